//! Going through the tree of a snapshot and fetching what its files are made of: what restore and verify share.
//!
//! ```text
//! walk (one thread)           directories, batch by batch, in the order of the tree
//!   └ window                  contents of the next files, grouped by pack, ranges merged
//!       └ fetch (async)       several ranges in flight, bounded by bytes
//!           └ worker threads  decode each content once, hand it to everything that wants it
//! ```
//!
//! Nothing of this grows with the tree: directories that wait are bounded, a window has so many contents and no more, and
//! what is fetched is covered by a byte budget.

mod counting;
mod failure;
mod fetch;
mod metadata;
mod names;
mod packs;
#[cfg(test)]
pub(crate) mod testing;
mod walk;
mod window;

pub(crate) use counting::{add, expect};
pub(crate) use failure::Failures;
pub use failure::{Failure, OnError};
pub(crate) use fetch::{Consumer, FetchOptions, fetch, resume};
pub(crate) use metadata::MetadataSource;
pub(crate) use packs::Packs;
pub(crate) use walk::{Visitor, walk};
pub(crate) use window::{Item, Piece, Window};
