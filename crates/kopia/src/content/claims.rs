//! Which contents a writer has taken on, so that none is stored twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::ContentId;

/// Threads that put different contents seldom want the same part.
const SHARDS: usize = 64;

/// Contents that are being written or are in no index yet.
#[derive(Debug)]
pub(crate) struct Claims {
    shards: Vec<Mutex<HashMap<ContentId, Claim>>>,
}

/// How far a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// A thread is about to append it to a pack; whether others rely on that.
    Taken { shared: bool },
    /// It is in the pack of this number.
    Packed(u64),
}

impl Claims {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes a content on; no if somebody has it already, on whom one relies then.
    pub(crate) fn take(&self, id: &ContentId) -> bool {
        match self.shard(id).entry(*id) {
            Entry::Vacant(entry) => {
                entry.insert(Claim::Taken { shared: false });
                true
            }
            Entry::Occupied(mut entry) => {
                if let Claim::Taken { shared } = entry.get_mut() {
                    *shared = true;
                }
                false
            }
        }
    }

    /// Gives a content back that was taken and is in no pack; whether somebody relied on it.
    pub(crate) fn give_back(&self, id: &ContentId) -> bool {
        let claim = self.shard(id).remove(id);
        claim == Some(Claim::Taken { shared: true })
    }

    /// The content that was taken is in a pack now.
    pub(crate) fn packed(&self, id: &ContentId, pack: u64) {
        self.shard(id).insert(*id, Claim::Packed(pack));
    }

    /// The pack of a content.
    pub(crate) fn pack_of(&self, id: &ContentId) -> Option<u64> {
        match self.shard(id).get(id) {
            Some(Claim::Packed(pack)) => Some(*pack),
            Some(Claim::Taken { .. }) | None => None,
        }
    }

    /// A content is in an index now.
    pub(crate) fn indexed(&self, id: &ContentId) {
        let mut shard = self.shard(id);
        shard.remove(id);
        // A map does not become smaller by itself.
        if shard.is_empty() {
            shard.shrink_to_fit();
        }
    }

    fn shard(&self, id: &ContentId) -> MutexGuard<'_, HashMap<ContentId, Claim>> {
        let first = id.hash().as_bytes().first().copied().unwrap_or_default();
        // No code between lock and unlock can panic and leave a map half changed.
        self.shards[usize::from(first) % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Hash;

    #[test]
    fn one_thread_has_a_content() {
        let claims = Claims::new();
        let id = ContentId::new(None, Hash::new(&[1; 16]).unwrap());
        assert!(claims.take(&id));
        assert!(!claims.give_back(&id), "nobody relied on it");
        assert!(claims.take(&id) && !claims.take(&id));
        assert!(claims.give_back(&id), "somebody relied on it");
        assert!(claims.take(&id));
        assert_eq!(claims.pack_of(&id), None);
        claims.packed(&id, 7);
        assert!(!claims.take(&id));
        assert_eq!(claims.pack_of(&id), Some(7));
        claims.indexed(&id);
        assert!(claims.take(&id));
    }
}
