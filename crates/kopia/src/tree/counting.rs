//! The counters by which a run tells how far it is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::snapshot::{DirEntry, EntryKind};

/// Counts up.
pub(crate) fn add(number: &AtomicU64, count: u64) {
    number.fetch_add(count, Ordering::Relaxed);
}

/// Adds the files and bytes that there are at and below an entry, as far as its summary says.
pub(crate) fn expect(entry: &DirEntry, total_files: &AtomicU64, total_bytes: &AtomicU64) {
    let (files, bytes) = match (&entry.summary, entry.kind) {
        (Some(summary), EntryKind::Directory) => {
            (summary.files.saturating_add(summary.symlinks), summary.size)
        }
        (_, EntryKind::Directory) => (0, 0),
        _ => (1, entry.size),
    };
    add(total_files, files);
    add(total_bytes, bytes);
}
