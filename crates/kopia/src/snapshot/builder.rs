//! Building directories.

use super::attributes::FIELD;
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
        self.summary.add_entry(&entry);
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
        summary.finish(entries.is_empty(), mtime, incomplete);
        let key = |entry: &DirEntry| entry.kind != EntryKind::Directory;
        entries.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
        Directory { entries, summary }
    }
}

impl Directory {
    /// The JSON that kopia writes for it, in blocks, with the line end: the data of the directory's object.
    pub fn write_json(&self, write: &mut dyn FnMut(&[u8]) -> KopiaResult<()>) -> KopiaResult<()> {
        let mut json = DirectoryJson::new(write, None);
        for entry in &self.entries {
            json.entry(entry, None)?;
        }
        json.end(&self.summary)
    }
}

/// Writes a directory whose entries come in kopia's order, without holding them: the same JSON, in the same blocks, that
/// [`DirectoryBuilder`] leads to.
pub struct DirectoryWriter<'a> {
    json: DirectoryJson<'a>,
    summary: Summary,
}

impl<'a> DirectoryWriter<'a> {
    /// Nothing yet; the JSON goes to `write`.
    pub fn new(write: &'a mut dyn FnMut(&[u8]) -> KopiaResult<()>) -> Self {
        Self::with_attributes(write, None)
    }

    /// The same, with the JSON of what kopia does not keep of the directory itself.
    pub(crate) fn with_attributes(
        write: &'a mut dyn FnMut(&[u8]) -> KopiaResult<()>,
        attributes: Option<&[u8]>,
    ) -> Self {
        Self {
            json: DirectoryJson::new(write, attributes),
            summary: Summary::default(),
        }
    }

    /// Adds the next entry: directories first, then the rest; each by the bytes of the names.
    pub fn add(&mut self, entry: &DirEntry) -> KopiaResult<()> {
        self.add_with(entry, None)
    }

    /// The same, with the JSON of what kopia does not keep of the entry.
    pub(crate) fn add_with(&mut self, entry: &DirEntry, attributes: Option<&[u8]>) -> KopiaResult<()> {
        self.summary.add_entry(entry);
        self.json.entry(entry, attributes)
    }

    /// Notes `count` entries that could not be read and were to be ignored; `named` are some of them.
    pub fn add_ignored(&mut self, count: u64, named: impl IntoIterator<Item = FailedEntry>) {
        self.summary.ignored_errors += count;
        self.summary.add_errors(named);
    }

    /// Ends the directory; see [`DirectoryBuilder::build`].
    pub fn finish(mut self, mtime: UtcTime, incomplete: &str) -> KopiaResult<Summary> {
        self.summary.finish(self.json.empty, mtime, incomplete);
        self.json.end(&self.summary)?;
        Ok(self.summary)
    }
}

/// The JSON of a directory as it comes to be.
struct DirectoryJson<'a> {
    write: &'a mut dyn FnMut(&[u8]) -> KopiaResult<()>,
    out: Vec<u8>,
    empty: bool,
}

impl<'a> DirectoryJson<'a> {
    fn new(write: &'a mut dyn FnMut(&[u8]) -> KopiaResult<()>, attributes: Option<&[u8]>) -> Self {
        let mut out = b"{\"stream\":\"kopia:directory\",".to_vec();
        if let Some(attributes) = attributes {
            // Before the entries, so that whoever restores them knows it first.
            append_field(&mut out, attributes);
            out.push(b',');
        }
        out.extend_from_slice(b"\"entries\":");
        Self {
            write,
            out,
            empty: true,
        }
    }

    fn entry(&mut self, entry: &DirEntry, attributes: Option<&[u8]>) -> KopiaResult<()> {
        self.out.push(if self.empty { b'[' } else { b',' });
        self.empty = false;
        entry.write_json(&mut self.out)?;
        if let Some(attributes) = attributes {
            // What kopia knows is never empty: there is always an object.
            self.out.pop();
            self.out.push(b',');
            append_field(&mut self.out, attributes);
            self.out.push(b'}');
        }
        if self.out.len() >= BLOCK {
            (self.write)(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    fn end(mut self, summary: &Summary) -> KopiaResult<()> {
        // Go writes a list that was never added to as null.
        self.out
            .extend_from_slice(if self.empty { b"null" } else { b"]" });
        self.out.extend_from_slice(b",\"summary\":");
        self.out.extend_from_slice(&json::to_vec(summary)?);
        self.out.extend_from_slice(b"}\n");
        (self.write)(&self.out)
    }
}

/// Appends the field that holds what kopia does not keep.
fn append_field(out: &mut Vec<u8>, attributes: &[u8]) {
    json::write_string(out, FIELD.as_bytes());
    out.push(b':');
    out.extend_from_slice(attributes);
}
