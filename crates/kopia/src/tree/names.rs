//! Whether the names of a directory differ.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::snapshot::{DirEntry, EntryKind};

/// Of how many names each set below holds the hash; 1.2 MB at most.
const REMEMBERED: usize = 64 << 10;

/// The names of one directory, in the order they are stored in. Two entries of one name would become one file, with the
/// data of either or of both; honest directories have them, too, because two names that are not UTF-8 can become the same
/// in the repository.
///
/// Directories are sorted, directories before the rest, so a name that is greater than all before it is new. Only of the
/// others it must be known what was before: of those with U+FFFD, which are sorted by the bytes that they were; and of
/// directories that are not sorted.
pub(super) struct Names {
    hasher: RandomState,
    remembered: usize,
    /// The greatest name so far, without those with U+FFFD: whether it is no directory, and its bytes.
    greatest: Option<(bool, Vec<u8>)>,
    /// Hashes of names, without those with U+FFFD.
    seen: HashSet<u64>,
    /// Hashes of names with U+FFFD.
    replaced: HashSet<u64>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self::with(REMEMBERED)
    }

    fn with(remembered: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            remembered,
            greatest: None,
            seen: HashSet::new(),
            replaced: HashSet::new(),
        }
    }

    /// Takes the next entry; what is wrong with its name if it cannot be told from all before.
    pub(super) fn check(&mut self, entry: &DirEntry) -> Result<(), &'static str> {
        let name = entry.name.as_bytes();
        let hash = self.hasher.hash_one(name);
        if !entry.name.is_certain() {
            return remember(&mut self.replaced, self.remembered, hash).unwrap_or(Err(
                "the directory has too many names that are not UTF-8 to tell whether they differ",
            ));
        }
        let key = (entry.kind != EntryKind::Directory, name);
        let ascends = self
            .greatest
            .as_ref()
            .is_none_or(|(kind, greatest)| key > (*kind, greatest.as_slice()));
        if ascends {
            self.greatest = Some((key.0, name.to_vec()));
        }
        // A file that has the name of a directory is in its way, which is an error of its own.
        let unknown = if ascends {
            Ok(())
        } else {
            Err("the directory is not sorted and too large to tell whether its names differ")
        };
        remember(&mut self.seen, self.remembered, hash).unwrap_or(unknown)
    }
}

/// Whether a name is new; none if that is not known.
fn remember(set: &mut HashSet<u64>, most: usize, hash: u64) -> Option<Result<(), &'static str>> {
    const REPEATED: &str = "another entry of the directory has its name";
    if set.len() < most {
        Some(if set.insert(hash) { Ok(()) } else { Err(REPEATED) })
    } else {
        set.contains(&hash).then_some(Err(REPEATED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> DirEntry {
        let (kind, name) = match name.strip_suffix('/') {
            Some(name) => (EntryKind::Directory, name),
            None => (EntryKind::File, name),
        };
        DirEntry {
            name: name.into(),
            kind,
            ..DirEntry::default()
        }
    }

    /// The names that are refused if so many are remembered.
    fn refused<'a>(remembered: usize, names: &[&'a str]) -> Vec<&'a str> {
        let mut checked = Names::with(remembered);
        let names = names.iter().copied();
        names
            .filter(|name| checked.check(&entry(name)).is_err())
            .collect()
    }

    #[test]
    fn each_name_is_there_once() {
        assert_eq!(refused(9, &["b/", "d/", "a", "c", "e"]), [""; 0]);
        assert_eq!(refused(9, &["b/", "b/", "a", "a", "b"]), ["b/", "a", "b"]);
        // Not sorted.
        assert_eq!(refused(9, &["c", "a", "b/", "c", "a", "b", "d"]), ["c", "a", "b"]);
        // As they are sorted if they were \xfeb, \xfec and \xffb, then a character of four bytes before that.
        let names = ["\u{10000}", "\u{fffd}b", "\u{fffd}c", "\u{fffd}b", "a"];
        assert_eq!(refused(9, &names), ["\u{fffd}b"]);
    }

    #[test]
    fn what_is_not_known_of_a_large_directory_is_refused_unless_it_is_sorted() {
        let names = ["a/", "b/", "c/", "d/", "a", "b", "c", "d", "d", "e"];
        // A file like a directory that is not remembered is found by the file system.
        assert_eq!(refused(2, &names), ["a", "b", "d"]);
        assert_eq!(refused(2, &["a", "b", "d", "c", "e", "\u{fffd}", "f"]), ["c"]);
        assert_eq!(
            refused(1, &["\u{fffd}1", "\u{fffd}2", "\u{fffd}1"]),
            ["\u{fffd}2", "\u{fffd}1"]
        );
    }
}
