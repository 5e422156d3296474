//! Cutting data into contents and storing them.

use std::io::{self, Read};

use super::contents::ContentSink;
use super::id::ObjectId;
use super::list::ObjectPart;
use crate::compression::HeaderId;
use crate::content::Prefix;
use crate::error::KopiaResult;
use crate::splitter::Splitter;

/// How data becomes contents.
#[derive(Clone, Copy, Debug)]
pub struct PieceOptions {
    /// The prefix of the contents: [`Prefix::DIRECTORY`] for directories, none for data.
    pub prefix: Option<Prefix>,
    /// How the contents are compressed.
    pub compression: HeaderId,
    /// Where the data is cut.
    pub splitter: Splitter,
    /// How many contents are gathered and stored at once; 0 is as 1. Up to this many pieces of up to
    /// [`Splitter::max_size`] bytes are held.
    pub batch: usize,
}

/// Cuts what is written into contents and stores them: a whole object by [`ObjectWriter`](super::ObjectWriter), or a
/// part of a bigger one, whose pieces go to a [`ListWriter`](super::ListWriter) together with those of other parts.
///
/// Blocking, like [`ContentSink`].
#[derive(Clone)]
pub struct PieceWriter<S> {
    sink: S,
    options: PieceOptions,
    /// The piece under way.
    piece: Vec<u8>,
    /// How much of it is known to hold no cut.
    searched: usize,
    /// Pieces that wait for the batch to be full.
    waiting: Vec<Vec<u8>>,
    /// Whether there has been a piece.
    any: bool,
    stored: Vec<ObjectPart>,
}

impl<S: ContentSink> PieceWriter<S> {
    /// Without data yet.
    pub const fn new(sink: S, options: PieceOptions) -> Self {
        Self {
            sink,
            options,
            piece: Vec::new(),
            searched: 0,
            waiting: Vec::new(),
            any: false,
            stored: Vec::new(),
        }
    }

    /// Makes room for as much of `length` bytes as will be held at a time, so that nothing is moved as they come.
    pub fn reserve(&mut self, length: u64) {
        let most = self.options.splitter.max_size();
        let wanted = usize::try_from(length).map_or(most, |length| length.min(most));
        self.piece.reserve_exact(wanted);
    }

    /// Appends data.
    pub fn write(&mut self, data: &[u8]) -> KopiaResult<()> {
        self.piece.extend_from_slice(data);
        self.cut()
    }

    /// Appends up to `length` bytes that `reader` gives; how many it gave, 0 at its end. They are read to where they
    /// are hashed, without a copy. Errors of the reader are in the inner result; nothing is appended then.
    pub fn write_from(&mut self, reader: &mut impl Read, length: u64) -> KopiaResult<io::Result<u64>> {
        let before = self.piece.len();
        match reader.by_ref().take(length).read_to_end(&mut self.piece) {
            Ok(count) => {
                self.cut()?;
                Ok(Ok(count as u64))
            }
            Err(error) => {
                self.piece.truncate(before);
                Ok(Err(error))
            }
        }
    }

    /// The pieces stored since the last call.
    pub fn take_stored(&mut self) -> Vec<ObjectPart> {
        std::mem::take(&mut self.stored)
    }

    /// Stores what has been cut, without waiting for the batch to be full.
    pub fn store(&mut self) -> KopiaResult<()> {
        let pieces = std::mem::take(&mut self.waiting);
        let lengths: Vec<u64> = pieces.iter().map(|piece| piece.len() as u64).collect();
        let (prefix, compression) = (self.options.prefix, self.options.compression);
        let contents = match <[_; 1]>::try_from(pieces) {
            Ok([piece]) => vec![self.sink.put(prefix, piece, compression)?],
            Err(pieces) if pieces.is_empty() => return Ok(()),
            Err(pieces) => self.sink.put_batch(prefix, pieces, compression)?,
        };
        let part = |(length, content)| ObjectPart {
            length,
            object: ObjectId::direct(content),
        };
        self.stored.extend(lengths.into_iter().zip(contents).map(part));
        Ok(())
    }

    /// Ends the last piece; the pieces stored since the last [`PieceWriter::take_stored`]. Of no data at all, that is
    /// one empty piece, as kopia has it.
    pub fn finish(mut self) -> KopiaResult<Vec<ObjectPart>> {
        if !self.piece.is_empty() || !self.any {
            let piece = std::mem::take(&mut self.piece);
            self.waiting.push(piece);
        }
        self.store()?;
        Ok(self.stored)
    }

    /// Takes off what ends at a cut.
    fn cut(&mut self) -> KopiaResult<()> {
        while let Some(cut) = self.options.splitter.next_cut(&self.piece, self.searched) {
            let rest = self.piece.split_off(cut);
            let capacity = self.piece.capacity();
            let piece = std::mem::replace(&mut self.piece, rest);
            self.searched = 0;
            self.any = true;
            self.waiting.push(piece);
            if self.waiting.len() >= self.options.batch {
                self.store()?;
            }
            // Untouched memory costs nothing; moving what is there does.
            self.piece
                .reserve_exact(capacity.saturating_sub(self.piece.len()));
        }
        self.searched = self.piece.len();
        Ok(())
    }
}
