//! Runs: sorted files of entries of one size, looked up with a small table in memory.

use std::sync::Arc;

use super::entry::{Entry, EntryFormat, Key, MAX_KEY, id_of};
use super::scratch::{ReadAt, ScratchFile, WINDOW, Window};
use crate::blob::BlobId;
use crate::compression::HeaderId;
use crate::content::ContentId;
use crate::error::{KopiaError, KopiaResult};

/// Entries between two keys that are kept in memory. With 16 a block is 0.7 KiB, and ten million entries need 4.8 MiB.
const BLOCK: usize = 16;
/// Bytes of an entry without the key.
const VALUE: usize = 28;
/// Bytes of the longest block.
const MAX_BLOCK: usize = BLOCK * (MAX_KEY + VALUE);

/// How entries are laid out in runs: the key, then the value. All numbers are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordLayout {
    key_size: usize,
}

impl RecordLayout {
    /// For contents whose hash has so many bytes.
    pub(super) fn new(hash_size: usize) -> Self {
        Self {
            key_size: 1 + hash_size,
        }
    }

    pub(super) fn key_size(self) -> usize {
        self.key_size
    }

    pub(super) fn size(self) -> usize {
        self.key_size + VALUE
    }

    /// Whether the hash of a content has the right length.
    pub(super) fn fits(self, id: &ContentId) -> bool {
        1 + id.hash().as_bytes().len() == self.key_size
    }

    /// Appends an entry whose content fits.
    pub(super) fn encode(self, entry: &Entry, output: &mut Vec<u8>) {
        debug_assert!(self.fits(&entry.id));
        output.extend(Key::of(&entry.id).as_bytes());
        output.extend(&entry.timestamp.to_be_bytes()[2..]);
        output.extend((entry.offset | u32::from(entry.deleted) << 31).to_be_bytes());
        output.extend(entry.packed_length.to_be_bytes());
        output.extend(entry.original_length.to_be_bytes());
        output.extend(entry.format.compression.0.to_be_bytes());
        output.extend([entry.format.version, entry.format.encryption_key]);
        output.extend(entry.pack.to_be_bytes());
    }

    pub(super) fn decode(self, record: &[u8]) -> KopiaResult<Entry> {
        let damaged = || KopiaError::corrupt("a scratch file of index entries", "an entry makes no sense");
        let (key, value) = record.split_at_checked(self.key_size).ok_or_else(damaged)?;
        let value: &[u8; VALUE] = value.try_into().map_err(|_| damaged())?;
        let number = |at: usize| u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
        Ok(Entry {
            id: id_of(key).ok_or_else(damaged)?,
            timestamp: i64::from(u16::from_be_bytes([value[0], value[1]])) << 32 | i64::from(number(2)),
            offset: number(6) & 0x7fff_ffff,
            deleted: value[6] & 0x80 != 0,
            packed_length: number(10),
            original_length: number(14),
            format: EntryFormat {
                compression: HeaderId(number(18)),
                version: value[22],
                encryption_key: value[23],
            },
            pack: number(24),
        })
    }
}

/// Entries sorted by content, each content once.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<ScratchFile>,
    start: u64,
    count: u64,
    layout: RecordLayout,
    /// The beginning of the first key of each block.
    fences: Vec<u64>,
    /// The index blobs whose entries these are, all of them.
    members: Vec<BlobId>,
}

impl Run {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn members(&self) -> &[BlobId] {
        &self.members
    }

    /// The entry of a content.
    pub(super) fn find(&self, key: &Key) -> KopiaResult<Option<Entry>> {
        let mut buffer = [0; MAX_BLOCK];
        let size = self.layout.size();
        if key.as_bytes().len() != self.layout.key_size {
            return Ok(None);
        }
        let Some(block) = self.block_of(key, &mut buffer)? else {
            return Ok(None);
        };
        let wanted = key.as_bytes();
        let number = partition(block, size, |record| &record[..wanted.len()] < wanted);
        block
            .chunks_exact(size)
            .nth(number)
            .filter(|record| record.starts_with(wanted))
            .map(|record| self.layout.decode(record))
            .transpose()
    }

    /// A cursor at the first entry whose key is not less.
    pub(super) fn cursor(self: &Arc<Self>, from: Option<&Key>, window: usize) -> KopiaResult<RunCursor> {
        let next = match from {
            Some(key) => self.lower_bound(key)?,
            None => 0,
        };
        let end = self.start + self.count * self.layout.size() as u64;
        Ok(RunCursor {
            window: Window::new(self.file.clone(), end, window),
            run: self.clone(),
            next,
        })
    }

    fn lower_bound(&self, key: &Key) -> KopiaResult<u64> {
        let mut buffer = [0; MAX_BLOCK];
        let Some(number) = self.block_number(key)? else {
            return Ok(0);
        };
        let block = self.read_block(number, &mut buffer)?;
        let size = self.layout.size();
        let wanted = key.as_bytes();
        Ok(number * BLOCK as u64 + partition(block, size, |record| &record[..wanted.len()] < wanted) as u64)
    }

    fn block_of<'b>(&self, key: &Key, buffer: &'b mut [u8; MAX_BLOCK]) -> KopiaResult<Option<&'b [u8]>> {
        match self.block_number(key)? {
            Some(number) => self.read_block(number, buffer).map(Some),
            None => Ok(None),
        }
    }

    /// The last block whose first key is not greater; none if the first block begins with a greater one.
    fn block_number(&self, key: &Key) -> KopiaResult<Option<u64>> {
        let fence = key.fence();
        let mut low = self.fences.partition_point(|other| *other < fence) as u64;
        let mut high = self.fences.partition_point(|other| *other <= fence) as u64;
        // Blocks low..high begin with the same eight bytes as the key: their keys decide. There is hardly ever one.
        let mut first = [0; MAX_KEY];
        let first = &mut first[..self.layout.key_size];
        while low < high {
            let middle = low + (high - low) / 2;
            self.file.read_at(first, self.offset(middle * BLOCK as u64))?;
            if &first[..] <= key.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1))
    }

    fn read_block<'b>(&self, number: u64, buffer: &'b mut [u8; MAX_BLOCK]) -> KopiaResult<&'b [u8]> {
        let first = number * BLOCK as u64;
        let count = usize::try_from(self.count - first).map_or(BLOCK, |rest| rest.min(BLOCK));
        let bytes = &mut buffer[..count * self.layout.size()];
        self.file.read_at(bytes, self.offset(first))?;
        Ok(bytes)
    }

    fn offset(&self, record: u64) -> u64 {
        self.start + record * self.layout.size() as u64
    }
}

/// The number of records for which the test, true for some and then false for all, holds.
fn partition(records: &[u8], size: usize, mut test: impl FnMut(&[u8]) -> bool) -> usize {
    let (mut low, mut high) = (0, records.len() / size);
    while low < high {
        let middle = low + (high - low) / 2;
        if test(&records[middle * size..(middle + 1) * size]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Writes a run.
#[derive(Debug)]
pub(super) struct RunWriter {
    run: Run,
    capacity: u64,
    buffer: Vec<u8>,
    at: u64,
}

impl RunWriter {
    /// A run of at most `capacity` entries in a part of the file.
    pub(super) fn new(file: Arc<ScratchFile>, layout: RecordLayout, capacity: u64) -> Self {
        let start = file.reserve(capacity * layout.size() as u64);
        Self {
            run: Run {
                file,
                start,
                count: 0,
                layout,
                fences: Vec::new(),
                members: Vec::new(),
            },
            capacity,
            buffer: Vec::new(),
            at: start,
        }
    }

    /// Adds an entry; it comes after all that were added before.
    pub(super) fn push(&mut self, entry: &Entry) -> KopiaResult<()> {
        let from = self.buffer.len();
        self.run.layout.encode(entry, &mut self.buffer);
        self.pushed(from)
    }

    /// Adds an entry as another run has it.
    pub(super) fn push_record(&mut self, record: &[u8]) -> KopiaResult<()> {
        let from = self.buffer.len();
        self.buffer.extend(record);
        self.pushed(from)
    }

    pub(super) fn finish(mut self, members: Vec<BlobId>) -> KopiaResult<Run> {
        self.flush()?;
        self.run.fences.shrink_to_fit();
        self.run.members = members;
        Ok(self.run)
    }

    fn pushed(&mut self, from: usize) -> KopiaResult<()> {
        if self.run.count == self.capacity {
            return Err(KopiaError::corrupt(
                "an index",
                "it has more entries than it announces",
            ));
        }
        if self.run.count.is_multiple_of(BLOCK as u64) {
            let key = &self.buffer[from..from + self.run.layout.key_size];
            self.run
                .fences
                .extend(Key::from_bytes(key).map(|key| key.fence()));
        }
        self.run.count += 1;
        if self.buffer.len() >= WINDOW {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> KopiaResult<()> {
        self.run.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a run in order.
#[derive(Debug)]
pub(super) struct RunCursor {
    run: Arc<Run>,
    window: Window<Arc<ScratchFile>>,
    next: u64,
}

impl RunCursor {
    /// The entry at the cursor; none at the end.
    pub(super) fn record(&mut self) -> KopiaResult<Option<&[u8]>> {
        if self.next == self.run.count {
            return Ok(None);
        }
        let offset = self.run.offset(self.next);
        self.window.get(offset, self.run.layout.size())
    }

    pub(super) fn advance(&mut self) {
        self.next += 1;
    }
}
