//! What is below a directory, in numbers.

use serde::{Deserialize, Serialize};

use super::entry::{DirEntry, EntryKind};
use super::time::UtcTime;

/// How many failed entries a summary names.
const MAX_FAILED: usize = 10;

/// What is in a directory and below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Bytes of all files.
    pub size: u64,
    /// Number of files.
    pub files: u64,
    /// Number of symbolic links.
    pub symlinks: u64,
    /// Number of directories, this one included.
    pub dirs: u64,
    /// The latest time that anything below was modified; that of the directory itself if it is empty.
    #[serde(rename = "maxTime")]
    pub max_time: UtcTime,
    /// Why the directory is not complete; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub incomplete: String,
    /// Entries that failed.
    #[serde(rename = "numFailed")]
    pub failed: u64,
    /// Entries that failed and were to be ignored.
    #[serde(rename = "numIgnoredErrors", skip_serializing_if = "is_zero")]
    pub ignored_errors: u64,
    /// The first ten of them, by path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FailedEntry>,
}

/// An entry that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedEntry {
    /// Its path below the snapshot's root.
    pub path: String,
    /// What went wrong.
    pub error: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Summary {
    /// Adds an entry of the directory.
    pub(super) fn add_entry(&mut self, entry: &DirEntry) {
        self.max_time = self.max_time.max(entry.mtime);
        match entry.kind {
            EntryKind::Symlink => self.symlinks += 1,
            EntryKind::File => {
                self.files += 1;
                self.size = self.size.saturating_add(entry.size);
            }
            EntryKind::Directory => {
                if let Some(below) = &entry.summary {
                    self.add_below(below);
                }
            }
            EntryKind::Unknown => {}
        }
    }

    /// Adds what is known when all entries are: the directory itself, its time if it is empty, why it is incomplete.
    pub(super) fn finish(&mut self, empty: bool, mtime: UtcTime, incomplete: &str) {
        self.dirs += 1;
        if empty {
            self.max_time = mtime;
        }
        incomplete.clone_into(&mut self.incomplete);
    }

    /// Adds what is in a directory below.
    pub(super) fn add_below(&mut self, below: &Self) {
        let sums = [
            (&mut self.size, below.size),
            (&mut self.files, below.files),
            (&mut self.symlinks, below.symlinks),
            (&mut self.dirs, below.dirs),
            (&mut self.failed, below.failed),
            (&mut self.ignored_errors, below.ignored_errors),
        ];
        // What is below may come from a damaged repository.
        for (sum, count) in sums {
            *sum = sum.saturating_add(count);
        }
        self.max_time = self.max_time.max(below.max_time);
        self.add_errors(below.errors.iter().cloned());
    }

    /// Notes entries that failed. kopia means to keep ten but keeps all until the directory is written twice; we
    /// never keep more.
    pub(super) fn add_errors(&mut self, errors: impl IntoIterator<Item = FailedEntry>) {
        self.errors.extend(errors);
        self.errors.sort();
        self.errors.truncate(MAX_FAILED);
    }
}
