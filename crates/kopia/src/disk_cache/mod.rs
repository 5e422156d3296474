//! A cache on disk for what is read again and again.
//!
//! Whoever backs up the same volume every hour opens the same repository every hour: it fetches the same index blobs,
//! and reads the same directories of the last snapshot, which are in packs of metadata. These blobs never change, so
//! they are kept in a directory, as they are stored: encrypted. What is written by this client is kept as well, because
//! the next run needs it. The description of the repository is not kept (a password may change), packs of file data are
//! not (a restore reads each once), and lists of blobs are not: which blobs are valid is always asked for.
//!
//! - **Nothing wrong comes out.** Each entry begins with a code that only clients of the repository can compute, over its
//!   name and its bytes. What is damaged, truncated or forged is removed, and read from the storage.
//! - **The limit holds at every moment**, for all clients that share the directory together, and whenever one is killed:
//!   who adds an entry holds a lock, makes room before, and takes note of the bytes before they are written.
//! - **It is never in the way.** Without a lock, with a full or broken disk, the storage is used as if there were no cache.

mod blobs;
mod entries;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use blobs::CachedBlobs;

/// Where a cache is, and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// A directory, which is made if there is none. Any number of processes and repositories may share it. Only what is
    /// in the directory `kopia-blobs` beneath it is touched.
    pub directory: PathBuf,
    /// The most bytes that all files together take on the disk; what was used longest ago makes room.
    pub limit: u64,
}
