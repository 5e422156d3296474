//! The names of packs, in a file: millions of them would not fit into the memory we allow ourselves.

use std::sync::{Mutex, PoisonError};

use super::scratch::{ReadAt, ScratchFile, WINDOW};
use crate::blob::BlobId;
use crate::error::{KopiaError, KopiaResult};

/// Names are in slots of this size. kopia's fit into one: 1 byte of length, `p`, 32 digits, `-` and the session.
const SLOT: usize = 64;
/// How many names are remembered: restores ask for the same packs over and over.
const REMEMBERED: usize = 512;

/// Names of packs by number. The numbers that a writer gives are `first + n * step`.
#[derive(Debug)]
pub(super) struct PackTable {
    file: ScratchFile,
    remembered: Mutex<Vec<Option<(u32, BlobId)>>>,
}

impl PackTable {
    pub(super) fn new(file: ScratchFile) -> Self {
        Self {
            file,
            remembered: Mutex::new(vec![None; REMEMBERED]),
        }
    }

    /// Begins to write `count` names of at most `longest` bytes.
    pub(super) fn writer(&self, count: u32, longest: u8) -> KopiaResult<PackTableWriter<'_>> {
        let step = (1 + u64::from(longest)).div_ceil(SLOT as u64);
        let length = u64::from(count) * step * SLOT as u64;
        let start = self.file.reserve(length);
        let number = |offset: u64| {
            u32::try_from(offset / SLOT as u64).map_err(|_| KopiaError::Unsupported {
                feature: "more packs than can be numbered".to_owned(),
                detail: "the indexes of the repository name billions of packs".to_owned(),
            })
        };
        number(start + length)?;
        Ok(PackTableWriter {
            table: self,
            first: number(start)?,
            step: number(step * SLOT as u64)?,
            buffer: Vec::new(),
            at: start,
        })
    }

    /// The name of a pack.
    pub(super) fn name(&self, number: u32) -> KopiaResult<BlobId> {
        // Whoever finds the lock taken reads the file instead of waiting.
        let place = number as usize % REMEMBERED;
        if let Ok(remembered) = self.remembered.try_lock()
            && let Some((_, name)) = remembered[place].as_ref().filter(|(of, _)| *of == number)
        {
            return Ok(name.clone());
        }
        let mut bytes = [0; 256];
        let (slot, rest) = bytes.split_at_mut(SLOT);
        let offset = u64::from(number) * SLOT as u64;
        self.file.read_at(slot, offset)?;
        let end = 1 + usize::from(slot[0]);
        if let Some(more) = end.checked_sub(slot.len()) {
            self.file.read_at(&mut rest[..more], offset + SLOT as u64)?;
        }
        let name = std::str::from_utf8(&bytes[1..end])
            .map_err(|_| KopiaError::corrupt("the scratch file of pack names", "a name is no text"))?;
        let name = BlobId::from(name);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some((number, name.clone()));
        Ok(name)
    }
}

/// Writes names one after the other.
pub(super) struct PackTableWriter<'a> {
    table: &'a PackTable,
    first: u32,
    step: u32,
    buffer: Vec<u8>,
    at: u64,
}

impl PackTableWriter<'_> {
    /// Adds a name, which is not longer than was announced.
    pub(super) fn add(&mut self, name: &str) -> KopiaResult<()> {
        let size = self.step as usize * SLOT;
        let end = self.buffer.len() + size;
        self.buffer.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.buffer.extend(name.as_bytes());
        self.buffer.resize(end, 0);
        if self.buffer.len() >= WINDOW {
            self.flush()?;
        }
        Ok(())
    }

    /// Gives the numbering when all names have been added.
    pub(super) fn finish(mut self) -> KopiaResult<Numbers> {
        self.flush()?;
        Ok(Numbers {
            first: self.first,
            step: self.step,
        })
    }

    fn flush(&mut self) -> KopiaResult<()> {
        self.table.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// From the number of a pack in its index to that in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    first: u32,
    step: u32,
}

impl Numbers {
    pub(super) fn number(self, in_index: u32) -> u32 {
        self.first + in_index * self.step
    }
}
