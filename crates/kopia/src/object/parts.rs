//! Reading objects.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::contents::ContentSource;
use super::id::ObjectId;
use crate::compression;
use crate::content::{ContentId, MAX_PIECE};
use crate::error::{KopiaError, KopiaResult};
use crate::json::{Item, ItemStream};

/// The longest entry of a list that makes sense, in bytes of JSON.
const MAX_ENTRY: usize = 4096;

/// How much of a list is parsed at a time; its entries wait in memory.
const PARSE: usize = 16 << 10;

/// How deep lists may be within lists, however they are nested.
const MAX_DEPTH: u8 = 16;

/// The longest piece of an object.
const MAX_CONTENT: usize = MAX_PIECE as usize;

/// A piece of an object: one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where in the object it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The content that is this piece.
    pub content: ContentId,
    /// Whether the data of the content is compressed by itself; [`decode_part`] takes that off.
    pub compressed: bool,
}

/// The data of a part from the data of its content: decompressed if need be, and as long as it must be.
pub fn decode_part(part: &Part, data: Vec<u8>) -> KopiaResult<Vec<u8>> {
    let limit = usize::try_from(part.length)
        .unwrap_or(MAX_CONTENT)
        .min(MAX_CONTENT);
    let data = decode(data, &part.content, part.compressed, limit)?;
    if data.len() as u64 != part.length {
        let problem = format_args!("it has {} bytes, its object says {}", data.len(), part.length);
        return Err(KopiaError::corrupt(
            format_args!("content {}", part.content),
            problem,
        ));
    }
    Ok(data)
}

fn decode(data: Vec<u8>, content: &ContentId, compressed: bool, limit: usize) -> KopiaResult<Vec<u8>> {
    if compressed {
        compression::decompress(&data, limit, format_args!("content {content}"))
    } else {
        Ok(data)
    }
}

/// An entry of a list, as JSON.
#[derive(Deserialize)]
struct ListEntry {
    #[serde(default, rename = "s")]
    start: u64,
    #[serde(default, rename = "l")]
    length: u64,
    #[serde(rename = "o")]
    object: ObjectId,
}

/// The pieces of an object in order. Of a list's own pieces only one is held at a time, so an object may be of any
/// length.
pub struct PartStream {
    source: Arc<dyn ContentSource>,
    state: State,
}

enum State {
    Direct(Option<Part>),
    List(Box<List>),
}

struct List {
    object: ObjectId,
    depth: u8,
    /// Where the object begins in the outermost one.
    base: u64,
    /// The length it must have, if known.
    length: Option<u64>,
    /// Where the next entry must begin, from `base`.
    offset: u64,
    /// The list's own data.
    data: ObjectStream,
    /// What of it is not parsed yet.
    chunk: Vec<u8>,
    parsed: usize,
    parser: ItemStream,
    entries: VecDeque<ListEntry>,
    /// An entry that is a list itself.
    inner: Option<PartStream>,
}

impl PartStream {
    /// The pieces of an object.
    pub async fn open(source: Arc<dyn ContentSource>, object: ObjectId) -> KopiaResult<Self> {
        let state = match object.content() {
            None => State::List(List::open(&source, object, 0, None, 0)?),
            Some(content) => {
                let length = if object.is_compressed() {
                    decode(source.get(content).await?, content, true, MAX_CONTENT)?.len() as u64
                } else {
                    source.length(content).await?
                };
                State::Direct(Some(Part {
                    offset: 0,
                    length,
                    content: *content,
                    compressed: object.is_compressed(),
                }))
            }
        };
        Ok(Self { source, state })
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> KopiaResult<Option<Part>> {
        match &mut self.state {
            State::Direct(part) => Ok(part.take()),
            State::List(list) => list.next(&self.source).await,
        }
    }
}

impl List {
    fn open(
        source: &Arc<dyn ContentSource>,
        object: ObjectId,
        base: u64,
        length: Option<u64>,
        depth: u8,
    ) -> KopiaResult<Box<Self>> {
        let list = object.list().filter(|_| depth < MAX_DEPTH);
        let list = list.ok_or_else(|| damaged(object, "it is nested too deep"))?;
        Ok(Box::new(Self {
            object,
            depth,
            base,
            length,
            offset: 0,
            data: ObjectStream::whole(source.clone(), list, depth + 1)?,
            chunk: Vec::new(),
            parsed: 0,
            parser: ItemStream::new("entries", MAX_ENTRY),
            entries: VecDeque::new(),
            inner: None,
        }))
    }

    /// Boxed, because lists are within lists.
    fn next<'a>(
        &'a mut self,
        source: &'a Arc<dyn ContentSource>,
    ) -> BoxFuture<'a, KopiaResult<Option<Part>>> {
        async move {
            loop {
                if let Some(inner) = &mut self.inner {
                    match inner.next().await? {
                        None => self.inner = None,
                        part => return Ok(part),
                    }
                } else if let Some(entry) = self.entries.pop_front() {
                    if let Some(part) = self.entry(&entry, source)? {
                        return Ok(Some(part));
                    }
                } else if !self.parse().await? {
                    return self.ended();
                }
            }
        }
        .boxed()
    }

    /// The part that an entry is; none if it is a list, which is read next.
    fn entry(&mut self, entry: &ListEntry, source: &Arc<dyn ContentSource>) -> KopiaResult<Option<Part>> {
        let end = entry.start.checked_add(entry.length);
        let (true, Some(end)) = (entry.start == self.offset, end) else {
            return Err(damaged(self.object, "its parts are not one after the other"));
        };
        if self.base.checked_add(end).is_none() {
            return Err(damaged(self.object, "it is too long"));
        }
        let offset = self.base + entry.start;
        self.offset = end;
        if let Some(content) = entry.object.content() {
            return Ok(Some(Part {
                offset,
                length: entry.length,
                content: *content,
                compressed: entry.object.is_compressed(),
            }));
        }
        let list = Self::open(source, entry.object, offset, Some(entry.length), self.depth + 1)?;
        self.inner = Some(PartStream {
            source: source.clone(),
            state: State::List(list),
        });
        Ok(None)
    }

    /// Parses on; whether there was anything.
    async fn parse(&mut self) -> KopiaResult<bool> {
        if self.parsed == self.chunk.len() {
            let Some(chunk) = self.data.next_chunk().await? else {
                return Ok(false);
            };
            (self.chunk, self.parsed) = (chunk, 0);
        }
        let end = self.chunk.len().min(self.parsed + PARSE);
        let entries = &mut self.entries;
        let mut visit = |item: Item<'_>| match item {
            Item::Element(text) => {
                entries.push_back(serde_json::from_slice(text).map_err(|error| error.to_string())?);
                Ok(())
            }
            Item::Field(..) => Ok(()),
        };
        self.parser
            .feed(&self.chunk[self.parsed..end], &mut visit)
            .map_err(|problem| damaged(self.object, problem))?;
        self.parsed = end;
        Ok(true)
    }

    fn ended(&self) -> KopiaResult<Option<Part>> {
        self.parser
            .finish()
            .map_err(|problem| damaged(self.object, problem))?;
        if self.length.is_some_and(|length| length != self.offset) {
            return Err(damaged(self.object, "it has not the length that its list says"));
        }
        Ok(None)
    }
}

fn damaged(object: ObjectId, problem: impl std::fmt::Display) -> KopiaError {
    KopiaError::corrupt(format_args!("the list of object {object}"), problem)
}

/// The data of an object, content by content.
pub struct ObjectStream {
    source: Arc<dyn ContentSource>,
    state: StreamState,
}

enum StreamState {
    /// One content, of whatever length.
    Whole(Option<ObjectId>),
    Parts(PartStream),
}

impl ObjectStream {
    /// The data of an object.
    pub fn open(source: Arc<dyn ContentSource>, object: ObjectId) -> KopiaResult<Self> {
        Self::whole(source, object, 0)
    }

    fn whole(source: Arc<dyn ContentSource>, object: ObjectId, depth: u8) -> KopiaResult<Self> {
        let state = if object.content().is_some() {
            StreamState::Whole(Some(object))
        } else {
            let list = List::open(&source, object, 0, None, depth)?;
            StreamState::Parts(PartStream {
                source: source.clone(),
                state: State::List(list),
            })
        };
        Ok(Self { source, state })
    }

    /// The next content's data; none at the end.
    pub async fn next_chunk(&mut self) -> KopiaResult<Option<Vec<u8>>> {
        match &mut self.state {
            StreamState::Whole(object) => {
                let Some(object) = object.take() else {
                    return Ok(None);
                };
                let Some(content) = object.content() else {
                    return Ok(None);
                };
                let data = self.source.get(content).await?;
                decode(data, content, object.is_compressed(), MAX_CONTENT).map(Some)
            }
            StreamState::Parts(parts) => {
                let Some(part) = parts.next().await? else {
                    return Ok(None);
                };
                let data = self.source.get(&part.content).await?;
                decode_part(&part, data).map(Some)
            }
        }
    }
}

/// Bytes of an object. A list is read to its end for it; the length of files is in their directory.
pub async fn object_length(source: Arc<dyn ContentSource>, object: ObjectId) -> KopiaResult<u64> {
    let mut parts = PartStream::open(source, object).await?;
    let mut length = 0;
    while let Some(part) = parts.next().await? {
        length = part.offset + part.length;
    }
    Ok(length)
}

/// A range of an object's data, or as much of it as there is; only the contents that hold it are fetched.
pub async fn read_range(
    source: Arc<dyn ContentSource>,
    object: ObjectId,
    range: Range<u64>,
) -> KopiaResult<Vec<u8>> {
    let mut parts = PartStream::open(source.clone(), object).await?;
    let mut out = Vec::new();
    while let Some(part) = parts.next().await? {
        let end = part.offset + part.length;
        if part.offset >= range.end {
            break;
        }
        if end <= range.start {
            continue;
        }
        let data = decode_part(&part, source.get(&part.content).await?)?;
        let within =
            |at: u64| usize::try_from(at.clamp(part.offset, end) - part.offset).unwrap_or(data.len());
        out.extend_from_slice(
            data.get(within(range.start)..within(range.end))
                .unwrap_or_default(),
        );
    }
    Ok(out)
}
