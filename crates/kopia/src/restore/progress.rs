//! How far a restore is, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a restore is; it may be read at any time, by any thread.
#[derive(Debug, Default)]
pub struct RestoreProgress {
    pub(super) total_files: AtomicU64,
    pub(super) total_bytes: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) skipped_bytes: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) hard_links: AtomicU64,
    pub(super) hard_links_copied: AtomicU64,
}

/// The numbers of a [`RestoreProgress`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreCounts {
    /// Files and symlinks that there are, as the snapshot's summary says; 0 if it says nothing.
    pub total_files: u64,
    /// Bytes that there are, as the snapshot's summary says; 0 if it says nothing.
    pub total_bytes: u64,
    /// Files restored.
    pub files: u64,
    /// Directories created, or taken as they were.
    pub directories: u64,
    /// Symlinks restored.
    pub symlinks: u64,
    /// Bytes of files written, holes included.
    pub bytes: u64,
    /// Files and symlinks that were there already and were passed over.
    pub skipped: u64,
    /// Bytes of these.
    pub skipped_bytes: u64,
    /// Entries that failed.
    pub failed: u64,
    /// Files and symlinks that became further names of others that were restored; they are counted in `files` and
    /// `symlinks`, too, and their bytes are not counted.
    pub hard_links: u64,
    /// Names of files with several that got data of their own: the file could not be linked, or was not restored, or
    /// there was no room to remember it.
    pub hard_links_copied: u64,
}

impl RestoreProgress {
    /// The numbers now.
    pub fn counts(&self) -> RestoreCounts {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        RestoreCounts {
            total_files: get(&self.total_files),
            total_bytes: get(&self.total_bytes),
            files: get(&self.files),
            directories: get(&self.directories),
            symlinks: get(&self.symlinks),
            bytes: get(&self.bytes),
            skipped: get(&self.skipped),
            skipped_bytes: get(&self.skipped_bytes),
            failed: get(&self.failed),
            hard_links: get(&self.hard_links),
            hard_links_copied: get(&self.hard_links_copied),
        }
    }
}
