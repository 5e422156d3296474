//! How far a backup or restore is, readable at any time from anywhere.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_store::Store;

/// The steps of a backup, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Reaching storage and server.
    #[default]
    Preparing,
    /// Waiting for the server's checkpoint.
    Checkpoint,
    /// Copying the data files.
    Copying,
    /// Storing the rest of the WAL.
    ArchivingWal,
    /// Reading back what was stored.
    Verifying,
    /// Done.
    Finished,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Preparing,
        Self::Checkpoint,
        Self::Copying,
        Self::ArchivingWal,
        Self::Verifying,
        Self::Finished,
    ];

    /// The step as part of a sentence: "interrupted while ...".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Checkpoint => "waiting for the checkpoint",
            Self::Copying => "copying data",
            Self::ArchivingWal => "storing WAL",
            Self::Verifying => "verifying",
            Self::Finished => "finishing",
        }
    }
}

/// Counters of one run.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    read: AtomicU64,
    total: AtomicU64,
    store: Mutex<Option<(Store, u64)>>,
    segments: AtomicU64,
    name: Mutex<Option<String>>,
}

impl Progress {
    /// The current step.
    pub fn phase(&self) -> Phase {
        Phase::ALL
            .get(usize::from(self.phase.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or_default()
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes to read, by the server's estimate; 0 while unknown.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes stored so far, compressed; grows with every part of an object.
    pub fn stored(&self) -> u64 {
        let watched = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        watched
            .as_ref()
            .map_or(0, |(store, before)| store.bytes_sent().saturating_sub(*before))
    }

    /// WAL segments stored so far.
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Name of the backup, once known.
    pub fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a step.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Forgets what an attempt that failed did.
    pub fn restart(&self) {
        self.enter(Phase::Preparing);
        for counter in [&self.read, &self.total, &self.segments] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what this store sends from now on.
    pub(crate) fn watch(&self, store: &Store) {
        let before = store.bytes_sent();
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some((store.clone(), before));
    }

    pub(crate) fn add_segment(&self) {
        self.segments.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_name(&self, name: &str) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
    }
}
