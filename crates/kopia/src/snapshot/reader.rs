//! Reading directories.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::attributes::{ExtendedAttributes, FIELD};
use super::entry::DirEntry;
use super::summary::Summary;
use crate::error::{KopiaError, KopiaResult};
use crate::json::{Item, ItemStream};
use crate::object::{ContentSource, ObjectId, ObjectStream};

/// The longest entry that makes sense, in bytes of JSON: a name of 255 bytes is at most 1,530, ten errors of a
/// directory below name paths of 4,096 bytes, and extended attributes in base64 are at most 350,000.
const MAX_ENTRY: usize = 1 << 20;

/// How much is parsed at a time; its entries wait in memory.
const PARSE: usize = 16 << 10;

/// Reads a directory's JSON as it comes, entry by entry.
pub struct DirectoryParser {
    items: ItemStream,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    kind: bool,
    own_attributes: Option<Value>,
    summary: Option<Summary>,
}

impl Default for DirectoryParser {
    fn default() -> Self {
        Self {
            items: ItemStream::new("entries", MAX_ENTRY),
            seen: Seen::default(),
        }
    }
}

impl DirectoryParser {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for an error that names the directory.
    pub fn feed(&mut self, data: &[u8], visit: &mut dyn FnMut(DirEntry)) -> Result<(), String> {
        let seen = &mut self.seen;
        let mut visit = |item: Item<'_>| {
            seen.item(&item, visit)
                .map_err(|error: serde_json::Error| error.to_string())
        };
        self.items.feed(data, &mut visit)
    }

    /// The summary, if there is one, when all bytes have been taken.
    ///
    /// # Errors
    ///
    /// If the document is not complete, or no directory.
    pub fn finish(self) -> Result<Option<Summary>, String> {
        self.items.finish()?;
        if self.seen.kind {
            Ok(self.seen.summary)
        } else {
            Err("it is no directory".to_owned())
        }
    }
}

impl Seen {
    fn item(&mut self, item: &Item<'_>, visit: &mut dyn FnMut(DirEntry)) -> serde_json::Result<()> {
        match item {
            Item::Element(text) => visit(serde_json::from_slice(text)?),
            Item::Field("stream", text) => self.kind = *text == b"\"kopia:directory\"",
            Item::Field(FIELD, text) => self.own_attributes = Some(serde_json::from_slice(text)?),
            Item::Field("summary", text) => self.summary = serde_json::from_slice(text)?,
            Item::Field(..) => {}
        }
        Ok(())
    }
}

/// The entries of a directory object in the order they are stored in, of which only a few are held at a time.
pub struct DirectoryStream {
    object: ObjectId,
    data: ObjectStream,
    chunk: Vec<u8>,
    parsed: usize,
    /// None when the document has been read to its end.
    parser: Option<DirectoryParser>,
    entries: VecDeque<DirEntry>,
    own_attributes: Option<Value>,
    summary: Option<Summary>,
}

impl DirectoryStream {
    /// The directory that an object is.
    pub fn open(source: Arc<dyn ContentSource>, object: ObjectId) -> KopiaResult<Self> {
        Ok(Self {
            object,
            data: ObjectStream::open(source, object)?,
            chunk: Vec::new(),
            parsed: 0,
            parser: Some(DirectoryParser::default()),
            entries: VecDeque::new(),
            own_attributes: None,
            summary: None,
        })
    }

    /// The next entry; none at the end. Its name has not been checked: it may be `..`, or hold a `/`.
    pub async fn next(&mut self) -> KopiaResult<Option<DirEntry>> {
        while self.entries.is_empty() {
            let Some(parser) = &mut self.parser else {
                return Ok(None);
            };
            if self.parsed == self.chunk.len() {
                let Some(chunk) = self.data.next_chunk().await? else {
                    let parser = self.parser.take().unwrap_or_default();
                    self.summary = parser.finish().map_err(|problem| damaged(self.object, problem))?;
                    continue;
                };
                (self.chunk, self.parsed) = (chunk, 0);
            }
            let end = self.chunk.len().min(self.parsed + PARSE);
            let entries = &mut self.entries;
            parser
                .feed(&self.chunk[self.parsed..end], &mut |entry| {
                    entries.push_back(entry);
                })
                .map_err(|problem| damaged(self.object, problem))?;
            self.own_attributes = parser.seen.own_attributes.take().or(self.own_attributes.take());
            self.parsed = end;
        }
        Ok(self.entries.pop_front())
    }

    /// Extended attributes of the directory itself, once [`DirectoryStream::next`] has answered; none if there are none,
    /// or after the first call.
    ///
    /// # Errors
    ///
    /// Those of [`ExtendedAttributes::of_entry`].
    pub fn own_attributes(&mut self) -> KopiaResult<Option<ExtendedAttributes>> {
        let field = self.own_attributes.take();
        field.as_ref().map(ExtendedAttributes::from_json).transpose()
    }

    /// The summary, once [`DirectoryStream::next`] has answered that there are no more entries.
    pub const fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }
}

fn damaged(object: ObjectId, problem: impl std::fmt::Display) -> KopiaError {
    KopiaError::corrupt(format_args!("directory {object}"), problem)
}
