//! Writing objects.

use std::io::{self, Read};

use super::contents::ContentSink;
use super::id::ObjectId;
use super::list::{ListOptions, ListWriter};
use super::pieces::{PieceOptions, PieceWriter};
use crate::error::{KopiaError, KopiaResult};

/// How an object is written.
#[derive(Clone, Copy, Debug)]
pub struct ObjectOptions {
    /// How its data becomes contents.
    pub pieces: PieceOptions,
    /// How its list of parts is written, if it needs one.
    pub list: ListOptions,
}

/// Writes one object. Blocking, like [`ContentSink`].
#[derive(Clone)]
pub struct ObjectWriter<S> {
    pieces: PieceWriter<S>,
    list: ListWriter<S>,
}

impl<S: ContentSink + Clone> ObjectWriter<S> {
    /// An object without data yet.
    pub fn new(sink: S, options: ObjectOptions) -> Self {
        Self {
            pieces: PieceWriter::new(sink.clone(), options.pieces),
            list: ListWriter::new(sink, options.list),
        }
    }

    /// See [`PieceWriter::reserve`].
    pub fn reserve(&mut self, length: u64) {
        self.pieces.reserve(length);
    }

    /// Appends data.
    pub fn write(&mut self, data: &[u8]) -> KopiaResult<()> {
        self.pieces.write(data)?;
        self.list_stored()
    }

    /// Appends what a reader gives; see [`PieceWriter::write_from`].
    pub fn write_from(&mut self, reader: &mut impl Read, length: u64) -> KopiaResult<io::Result<u64>> {
        let count = self.pieces.write_from(reader, length)?;
        self.list_stored()?;
        Ok(count)
    }

    /// The object of what has been cut so far, for a checkpoint; none if nothing has. Data that is not yet cut is not
    /// in it.
    pub fn checkpoint(&mut self) -> KopiaResult<Option<ObjectId>> {
        self.pieces.store()?;
        self.list_stored()?;
        self.list.clone().finish()
    }

    /// The object of all that was written.
    pub fn finish(self) -> KopiaResult<ObjectId> {
        let mut list = self.list;
        for part in self.pieces.finish()? {
            list.push(part)?;
        }
        // There is at least one piece, so this error cannot happen.
        list.finish()?
            .ok_or_else(|| KopiaError::corrupt("an object to be written", "it has no parts"))
    }

    fn list_stored(&mut self) -> KopiaResult<()> {
        let stored = self.pieces.take_stored();
        stored.into_iter().try_for_each(|part| self.list.push(part))
    }
}
