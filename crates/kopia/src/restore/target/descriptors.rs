//! A bounded number of open directories and files.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Where an open file or directory is kept until others need its place.
#[derive(Debug, Default)]
pub(crate) struct DescriptorSlot(Mutex<Option<Arc<OwnedFd>>>);

impl DescriptorSlot {
    /// What is open; none if it was closed in favour of others, or never opened.
    pub(crate) fn get(&self) -> Option<Arc<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes out what is open.
    pub(crate) fn take(&self) -> Option<Arc<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, descriptor: Arc<OwnedFd>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor);
    }
}

/// Limits how many slots are open: the one that was opened first is closed first, unless its owner is gone already.
///
/// First in, first out is enough: an engine that goes through a tree is seldom back at an old directory, and reopening
/// costs microseconds.
#[derive(Debug)]
pub(crate) struct Descriptors {
    limit: usize,
    order: Mutex<VecDeque<Weak<DescriptorSlot>>>,
}

impl Descriptors {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            order: Mutex::default(),
        }
    }

    /// Keeps something open in its slot.
    pub(crate) fn keep(&self, slot: &Arc<DescriptorSlot>, descriptor: Arc<OwnedFd>) {
        slot.put(descriptor);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(Arc::downgrade(slot));
        let oldest = if order.len() > self.limit {
            order.pop_front()
        } else {
            None
        };
        drop(order);
        // Closing may wait for a disk, so not under the lock.
        if let Some(slot) = oldest.as_ref().and_then(Weak::upgrade) {
            drop(slot.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_closed() {
        let descriptors = Descriptors::new(2);
        let slots: Vec<Arc<DescriptorSlot>> = (0..3).map(|_| Arc::default()).collect();
        for slot in &slots {
            let file = std::fs::File::open("/dev/null").unwrap();
            descriptors.keep(slot, Arc::new(file.into()));
        }
        let open: Vec<bool> = slots.iter().map(|slot| slot.get().is_some()).collect();
        assert_eq!(open, [false, true, true]);
    }
}
