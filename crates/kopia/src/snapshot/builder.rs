//! Building directories.

use super::entry::{DirEntry, EntryKind};
use super::summary::{FailedEntry, Summary};
use super::time::UtcTime;
use crate::error::KopiaResult;
use crate::json;

/// How much JSON is handed on at a time.
const BLOCK: usize = 64 << 10;

/// A directory that comes to be: entries in any order, and what could not be read.
#[derive(Clone, Debug, Default)]
pub struct DirectoryBuilder {
    entries: Vec<DirEntry>,
    summary: Summary,
}

/// A directory as it is stored: its entries in kopia's order, and the summary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// Directories first, then the rest; each by the bytes of the names.
    pub entries: Vec<DirEntry>,
    /// What is in it and below it.
    pub summary: Summary,
}

impl DirectoryBuilder {
    /// Adds an entry.
    pub fn add(&mut self, entry: DirEntry) {
        let sum = &mut self.summary;
        sum.max_time = sum.max_time.max(entry.mtime);
        match entry.kind {
            EntryKind::Symlink => sum.symlinks += 1,
            EntryKind::File => {
                sum.files += 1;
                sum.size = sum.size.saturating_add(entry.size);
            }
            EntryKind::Directory => {
                if let Some(below) = &entry.summary {
                    sum.add_below(below);
                }
            }
            EntryKind::Unknown => {}
        }
        self.entries.push(entry);
    }

    /// Notes an entry, by its path below the root, that could not be read; `ignored` if that is no failure.
    pub fn add_failed(&mut self, path: String, error: String, ignored: bool) {
        if ignored {
            self.summary.ignored_errors += 1;
        } else {
            self.summary.failed += 1;
        }
        self.summary.add_errors([FailedEntry { path, error }]);
    }

    /// The directory. `mtime` is its own, which counts only if it is empty; `incomplete` says why it is not complete
    /// (empty if it is).
    pub fn build(self, mtime: UtcTime, incomplete: &str) -> Directory {
        let Self {
            mut entries,
            mut summary,
        } = self;
        summary.dirs += 1;
        if entries.is_empty() {
            summary.max_time = mtime;
        }
        incomplete.clone_into(&mut summary.incomplete);
        let key = |entry: &DirEntry| entry.kind != EntryKind::Directory;
        entries.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
        Directory { entries, summary }
    }
}

impl Directory {
    /// The JSON that kopia writes for it, in blocks, with the line end: the data of the directory's object.
    pub fn write_json(&self, write: &mut dyn FnMut(&[u8]) -> KopiaResult<()>) -> KopiaResult<()> {
        let mut out = Vec::with_capacity(BLOCK.min(256 * (self.entries.len() + 1)));
        out.extend_from_slice(b"{\"stream\":\"kopia:directory\",\"entries\":");
        // Go writes a list that was never added to as null.
        if self.entries.is_empty() {
            out.extend_from_slice(b"null");
        }
        for (index, entry) in self.entries.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            entry.write_json(&mut out)?;
            if out.len() >= BLOCK {
                write(&out)?;
                out.clear();
            }
        }
        if !self.entries.is_empty() {
            out.push(b']');
        }
        out.extend_from_slice(b",\"summary\":");
        out.extend_from_slice(&json::to_vec(&self.summary)?);
        out.extend_from_slice(b"}\n");
        write(&out)
    }
}
