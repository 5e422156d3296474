//! Indexes: which content is in which pack.
//!
//! An index blob is an encrypted index: its contents sorted by name ([`IndexFile`], [`IndexBuilder`]). Which blobs are
//! valid together is told by [`epoch`](crate::epoch), or by compaction logs in old repositories.

mod blobs;
mod builder;
mod committed;
mod entry;
mod file;
mod legacy;
mod merge;
mod packs;
mod run;
mod scratch;

pub(crate) use blobs::IN_MEMORY;
pub use builder::IndexBuilder;
pub use committed::{CommittedIndex, Contents};
pub use file::IndexFile;
pub use scratch::ReadAt;

#[cfg(test)]
mod tests;
