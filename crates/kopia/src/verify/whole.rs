//! What was found whole, so that it is not looked at again for the next snapshot.
//!
//! Snapshots share most of what they hold. Remembered is only what is right in all its parts: so whatever is damaged is
//! looked at, and told, for each snapshot and each path. Neither is there any doubt about what was left out: digests are
//! keyed by a secret of this run, so nobody can prepare two objects of one digest.
//!
//! The memory is as large as it is. When it is full, what comes takes the place of what came long before; and what was
//! forgotten is simply looked at again.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::rand::SystemRandom;

use crate::content::{ContentId, random_bytes};
use crate::error::KopiaResult;
use crate::object::ObjectId;

/// Places of which one is chosen by the digest.
const WAYS: usize = 8;

/// What an object is called in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u128);

/// What a directory holds, with all that is below it and itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) directories: u64,
    pub(super) files: u64,
    pub(super) symlinks: u64,
    /// Of the files.
    pub(super) bytes: u64,
    /// How many directories are one within the other.
    pub(super) height: u64,
}

/// Directories, files and contents that were found whole.
pub(super) struct Whole {
    key: [u8; blake3::KEY_LEN],
    directories: Mutex<Recent<Held>>,
    others: Mutex<Recent<()>>,
}

impl Whole {
    /// Takes at most so many bytes of memory.
    pub(super) fn new(bytes: u64) -> KopiaResult<Self> {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Ok(Self {
            key: random_bytes(&SystemRandom::new())?,
            directories: Mutex::new(Recent::new(half)),
            others: Mutex::new(Recent::new(half)),
        })
    }

    /// A directory by its object.
    pub(super) fn directory(&self, object: &ObjectId) -> Digest {
        self.digest(format_args!("directory {object}"))
    }

    /// A file by its object and the length that its entry says.
    pub(super) fn file(&self, object: &ObjectId, length: u64) -> Digest {
        self.digest(format_args!("file {length} {object}"))
    }

    /// A content by its name.
    pub(super) fn content(&self, content: &ContentId) -> Digest {
        self.digest(format_args!("content {content}"))
    }

    fn digest(&self, text: fmt::Arguments<'_>) -> Digest {
        let hash = blake3::keyed_hash(&self.key, text.to_string().as_bytes());
        let mut first = [0; size_of::<u128>()];
        for (to, from) in first.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        // Zero is an empty place.
        Digest(u128::from_le_bytes(first).max(1))
    }

    /// What a directory holds that was found whole.
    pub(super) fn known_directory(&self, directory: Digest) -> Option<Held> {
        lock(&self.directories).get(directory)
    }

    pub(super) fn add_directory(&self, directory: Digest, held: Held) {
        lock(&self.directories).insert(directory, held);
    }

    /// Whether this file or content was found whole.
    pub(super) fn knows(&self, other: Digest) -> bool {
        lock(&self.others).get(other).is_some()
    }

    pub(super) fn add(&self, other: Digest) {
        lock(&self.others).insert(other, ());
    }
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whole")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Digests with a value each, the most of them that came last. All of the memory is taken at once, so there is no
/// moment at which it grows and is there twice.
struct Recent<V> {
    digests: Vec<u128>,
    values: Vec<V>,
}

impl<V: Copy + Default> Recent<V> {
    fn new(bytes: usize) -> Self {
        let places = bytes / (size_of::<u128>() + size_of::<V>());
        let places = places / WAYS * WAYS;
        Self {
            digests: vec![0; places],
            values: vec![V::default(); places],
        }
    }

    /// The places where a digest may be, the newest first; none if there is no memory.
    fn places(&self, digest: Digest) -> Range<usize> {
        let sets = (self.digests.len() / WAYS) as u128;
        let set = digest.0.checked_rem(sets).map(usize::try_from);
        match set {
            Some(Ok(set)) => set * WAYS..(set + 1) * WAYS,
            _ => 0..0,
        }
    }

    fn get(&self, digest: Digest) -> Option<V> {
        let mut places = self.places(digest);
        let place = places.find(|place| self.digests[*place] == digest.0)?;
        Some(self.values[place])
    }

    fn insert(&mut self, digest: Digest, value: V) {
        let places = self.places(digest);
        let there = places.clone().find(|place| self.digests[*place] == digest.0);
        let Some(last) = there.or(places.end.checked_sub(1)) else {
            return;
        };
        let moved = places.start..=last;
        self.digests[moved.clone()].rotate_right(1);
        self.values[moved].rotate_right(1);
        self.digests[places.start] = digest.0;
        self.values[places.start] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_last_is_remembered() {
        let mut recent: Recent<[u64; 2]> = Recent::new(100 * 32);
        assert_eq!(recent.digests.len(), 96);
        assert_eq!(recent.get(Digest(7)), None);
        // All of one set.
        let digest = |number: u64| Digest(u128::from(number) * 12 + 1);
        for number in 0..9 {
            recent.insert(digest(number), [number, 1]);
        }
        assert_eq!(recent.get(digest(0)), None);
        for number in 1..9 {
            assert_eq!(recent.get(digest(number)), Some([number, 1]));
        }
        recent.insert(digest(1), [1, 2]);
        recent.insert(digest(9), [9, 1]);
        assert_eq!(recent.get(digest(1)), Some([1, 2]));
        assert_eq!(recent.get(digest(2)), None);
        assert_eq!(recent.get(digest(3)), Some([3, 1]));
    }

    #[test]
    fn without_memory_nothing_is_remembered() {
        for bytes in [0, 31, 32 * WAYS - 1] {
            let mut recent: Recent<[u64; 2]> = Recent::new(bytes);
            recent.insert(Digest(1), [1, 2]);
            assert_eq!(recent.get(Digest(1)), None);
        }
    }

    #[test]
    fn what_is_of_another_kind_is_another() {
        let whole = Whole::new(1 << 20).unwrap();
        let content: ContentId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let object = ObjectId::direct(content);
        whole.add(whole.file(&object, 7));
        assert!(whole.knows(whole.file(&object, 7)));
        assert!(!whole.knows(whole.file(&object, 8)));
        assert!(!whole.knows(whole.content(&content)));
        whole.add(whole.content(&content));
        assert!(whole.knows(whole.content(&content)));
        assert_eq!(whole.known_directory(whole.directory(&object)), None);
        let held = Held {
            directories: 1,
            files: 2,
            symlinks: 3,
            bytes: 4,
            height: 5,
        };
        whole.add_directory(whole.directory(&object), held);
        assert_eq!(whole.known_directory(whole.directory(&object)), Some(held));
        // Nobody knows what a digest of another run is.
        let other = Whole::new(0).unwrap();
        assert_ne!(other.content(&content), whole.content(&content));
    }
}
