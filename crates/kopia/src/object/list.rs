//! Indirect objects: lists of parts.

use super::contents::ContentSink;
use super::id::ObjectId;
use super::pieces::PieceOptions;
use super::writer::{ObjectOptions, ObjectWriter};
use crate::compression::HeaderId;
use crate::content::Prefix;
use crate::error::KopiaResult;
use crate::splitter::Splitter;

/// A piece of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectPart {
    /// Its bytes.
    pub length: u64,
    /// Where they are.
    pub object: ObjectId,
}

/// How lists are written.
#[derive(Clone, Copy, Debug)]
pub struct ListOptions {
    /// The prefix of the listed object; lists of objects without one have `x`.
    pub prefix: Option<Prefix>,
    /// How lists are compressed: kopia's metadata compression.
    pub compression: HeaderId,
    /// How lists themselves are cut: by the splitter of the repository, whatever cuts the object.
    pub splitter: Splitter,
}

/// Puts an object together from its parts, without holding the list: it is an object itself, which is cut and stored
/// while it grows.
///
/// Parts of a big file that were written apart (by a [`PieceWriter`](super::PieceWriter) each) become one object by
/// pushing all their pieces in order; that is what kopia's concatenation gives.
#[derive(Clone)]
pub struct ListWriter<S> {
    sink: S,
    options: ListOptions,
    /// Where the next part begins.
    offset: u64,
    /// What there is so far.
    so_far: SoFar<S>,
}

#[derive(Clone)]
enum SoFar<S> {
    Nothing,
    /// One part is an object by itself and needs no list.
    One(ObjectPart),
    List(Box<ObjectWriter<S>>),
}

impl<S: ContentSink + Clone> ListWriter<S> {
    /// An object without parts yet.
    pub const fn new(sink: S, options: ListOptions) -> Self {
        Self {
            sink,
            options,
            offset: 0,
            so_far: SoFar::Nothing,
        }
    }

    /// Bytes of all parts so far.
    pub const fn length(&self) -> u64 {
        self.offset
    }

    /// Adds the next part.
    pub fn push(&mut self, part: ObjectPart) -> KopiaResult<()> {
        let start = self.offset;
        self.offset += part.length;
        match &mut self.so_far {
            SoFar::Nothing => self.so_far = SoFar::One(part),
            SoFar::One(first) => {
                let mut text = b"{\"stream\":\"kopia:indirect\",\"entries\":[".to_vec();
                write_entry(&mut text, 0, first);
                text.push(b',');
                write_entry(&mut text, start, &part);
                let mut list = Box::new(self.list());
                list.write(&text)?;
                self.so_far = SoFar::List(list);
            }
            SoFar::List(list) => {
                let mut text = Vec::with_capacity(128);
                text.push(b',');
                write_entry(&mut text, start, &part);
                list.write(&text)?;
            }
        }
        Ok(())
    }

    /// The object of all parts; none if there was no part.
    pub fn finish(self) -> KopiaResult<Option<ObjectId>> {
        match self.so_far {
            SoFar::Nothing => Ok(None),
            SoFar::One(part) => Ok(Some(part.object)),
            SoFar::List(mut list) => {
                list.write(b"]}\n")?;
                Ok(Some(list.finish()?.listed_by()))
            }
        }
    }

    fn list(&self) -> ObjectWriter<S> {
        let prefix = self.options.prefix.unwrap_or(Prefix::INDIRECT);
        let options = ObjectOptions {
            pieces: PieceOptions {
                prefix: Some(prefix),
                compression: self.options.compression,
                splitter: self.options.splitter,
                batch: 1,
            },
            list: ListOptions {
                prefix: Some(prefix),
                ..self.options
            },
        };
        ObjectWriter::new(self.sink.clone(), options)
    }
}

/// The JSON of one entry; what is 0 is left out.
fn write_entry(out: &mut Vec<u8>, start: u64, part: &ObjectPart) {
    use std::io::Write as _;

    out.push(b'{');
    for (name, number) in [('s', start), ('l', part.length)] {
        if number != 0 {
            // Writing to memory does not fail.
            let _ = write!(out, "\"{name}\":{number},");
        }
    }
    let _ = write!(out, "\"o\":\"{}\"}}", part.object);
}
