//! Names that the repository cannot tell apart.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use super::list::Listing;
use crate::json::replace_invalid;

/// What is said of an entry that is left out for its name.
pub(super) const AMBIGUOUS: &str =
    "its name is not UTF-8, and in the repository it would be that of another entry of the directory";

/// The entries of a directory that would have the name of another one in the repository, where U+FFFD stands for what is
/// not UTF-8. The one whose name is kept as it is, or else the first, is not among them. In order.
pub(super) fn ambiguous(listing: &Listing) -> Vec<u32> {
    // Hashes of names: a directory may have a million.
    let (hasher, mut taken) = (RandomState::new(), HashSet::new());
    let mut ambiguous = Vec::new();
    for (index, entry) in (0..).zip(listing.entries()) {
        let name = listing.name(entry);
        if std::str::from_utf8(name).is_ok() {
            continue;
        }
        let kept = replace_invalid(name);
        let is_there = |directory| listing.find(directory, kept.as_bytes()).is_some();
        if is_there(true) || is_there(false) || !taken.insert(hasher.hash_one(kept)) {
            ambiguous.push(index);
        }
    }
    ambiguous
}
