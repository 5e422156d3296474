//! Large files and block devices: cut into pieces, of which idle threads hash some, and read by several threads where
//! the format allows it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, Stat};
use rustix::io::Errno;

use super::budget::Share;
use super::chunker::{Chunker, Piece, is_zero};
use super::engine::Engine;
use super::list::open_file;
use super::tree::Directory;
use crate::compression::HeaderId;
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSink as _, ListOptions, ListWriter, ObjectId, ObjectPart};

/// Pieces that are hashed together: as many as the hash has lanes.
const PIECES_PER_BATCH: usize = 4;

/// What is to be done for a large file.
#[derive(Debug)]
pub(super) enum LargeTask {
    /// Open the entry of a directory, then read it.
    Open(Arc<Directory>, u32),
    /// Read a section.
    Section(Arc<LargeFile>, usize),
}

/// A large file that is being read.
#[derive(Debug)]
pub(super) struct LargeFile {
    directory: Arc<Directory>,
    index: u32,
    handle: OwnedFd,
    stat: Stat,
    /// How long it is, as far as is known.
    length: u64,
    compression: HeaderId,
    sections: Vec<Section>,
    /// Sections that are not yet read, and batches that are not yet stored.
    remaining: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<(&'static str, Errno)>>,
}

/// A part of a large file that is cut by itself.
#[derive(Debug)]
struct Section {
    start: u64,
    end: u64,
    parts: Mutex<Vec<Option<ObjectPart>>>,
}

/// Pieces that were read and are to be stored.
#[derive(Debug)]
pub(super) struct HashBatch {
    file: Arc<LargeFile>,
    section: usize,
    pieces: Vec<(usize, Vec<u8>)>,
    share: Option<Share>,
}

/// Where sections begin: every `above` bytes if the file is longer than that, as kopia does. The last one goes on to
/// wherever the file ends then.
fn sections(length: u64, above: Option<u64>) -> Vec<Section> {
    let section = |start, end| Section {
        start,
        end,
        parts: Mutex::default(),
    };
    match above {
        Some(size) if size > 0 && length > size => {
            let full = length / size;
            let start = |number: u64| number * size;
            let end = |number: u64| {
                if number == full {
                    u64::MAX
                } else {
                    start(number + 1)
                }
            };
            (0..=full)
                .map(|number| section(start(number), end(number)))
                .collect()
        }
        _ => vec![section(0, u64::MAX)],
    }
}

impl Section {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<ObjectPart>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, number: usize, part: ObjectPart) {
        let mut parts = self.lock();
        if parts.len() <= number {
            parts.resize(number + 1, None);
        }
        if let Some(place) = parts.get_mut(number) {
            *place = Some(part);
        }
    }
}

impl LargeFile {
    /// A file or device that was opened. `length` is what the listing says.
    pub(super) fn new(
        engine: &Engine,
        directory: Arc<Directory>,
        index: u32,
        (handle, stat): (OwnedFd, Stat),
        length: u64,
    ) -> Arc<Self> {
        let compression = directory.compression(index);
        let sections = sections(length, engine.plan.parallel_above);
        // Advice only; a file system that does not take it reads all the same.
        let _ = rustix::fs::fadvise(&handle, 0, None, Advice::Sequential);
        let remaining = AtomicUsize::new(sections.len());
        Arc::new(Self {
            directory,
            index,
            handle,
            stat,
            length,
            compression,
            sections,
            remaining,
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
        })
    }

    /// The directory it is in, and which entry it is.
    pub(super) fn place(&self) -> (&Arc<Directory>, u32) {
        (&self.directory, self.index)
    }

    /// Ends the reading of this file, not of others.
    fn fail(&self, action: &'static str, errno: Errno) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert((action, errno));
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Hands on the parts stored so far, in order. Of what is missing nothing is said: this is for checkpoints, which
    /// only keep the contents from being deleted.
    pub(super) fn stored_parts(&self) -> Vec<ObjectPart> {
        let sections = self.sections.iter();
        sections
            .flat_map(|section| section.lock().iter().flatten().copied().collect::<Vec<_>>())
            .collect()
    }

    /// The object of all parts, and its length.
    fn object(&self, engine: &Engine) -> KopiaResult<(ObjectId, u64)> {
        let mut list = ListWriter::new(engine.sink.clone(), list_options(engine));
        for section in &self.sections {
            let parts = std::mem::take(&mut *section.lock());
            if parts.is_empty() {
                // kopia stores an empty content for a section without data.
                let content = engine.sink.put(None, Vec::new(), self.compression)?;
                let object = ObjectId::direct(content);
                list.push(ObjectPart { length: 0, object })?;
            }
            for part in parts {
                let part =
                    part.ok_or_else(|| KopiaError::corrupt("a file's list of parts", "one is missing"))?;
                list.push(part)?;
            }
        }
        let length = list.length();
        let object = list.finish()?;
        let object = object.ok_or_else(|| KopiaError::corrupt("a file's list of parts", "it is empty"))?;
        Ok((object, length))
    }
}

/// How lists of parts are written.
pub(super) fn list_options(engine: &Engine) -> ListOptions {
    ListOptions {
        prefix: None,
        compression: engine.plan.metadata_compression,
        splitter: engine.plan.splitter,
    }
}

impl Engine {
    /// Does what a task for a large file says.
    pub(super) fn read_large(&self, task: LargeTask) -> KopiaResult<()> {
        match task {
            LargeTask::Open(directory, index) => self.open_large(&directory, index),
            LargeTask::Section(file, section) => self.read_section(&file, section),
        }
    }

    fn open_large(&self, directory: &Arc<Directory>, index: u32) -> KopiaResult<()> {
        let (Some(handle), Some(entry)) = (directory.handle(), directory.entry(index)) else {
            return self.entry_failed(directory, index, "open", Errno::NOENT);
        };
        self.progress.opened(1);
        match open_file(handle, directory.listing().c_name(entry)) {
            Ok(opened) => {
                let attributes = self.attributes_of(opened.0.as_fd());
                self.keep_attributes(directory, index, attributes)?;
                let length = entry.size();
                self.begin_large(&LargeFile::new(
                    self,
                    Arc::clone(directory),
                    index,
                    opened,
                    length,
                ))
            }
            Err(errno) => self.entry_failed(directory, index, "open", errno),
        }
    }

    /// Reads the first section; the others are left to whoever has time.
    pub(super) fn begin_large(&self, file: &Arc<LargeFile>) -> KopiaResult<()> {
        self.add_large(file);
        for section in 1..file.sections.len() {
            self.work
                .push_large(LargeTask::Section(Arc::clone(file), section));
        }
        self.read_section(file, 0)
    }

    fn read_section(&self, file: &Arc<LargeFile>, number: usize) -> KopiaResult<()> {
        let Some(section) = file.sections.get(number) else {
            return Ok(());
        };
        match self.read_pieces(file, number, section) {
            Ok(()) => {}
            Err(Trouble::Source(Errno::CANCELED)) => return Err(KopiaError::Cancelled),
            Err(Trouble::Source(errno)) => file.fail("read", errno),
            Err(Trouble::Repository(error)) => return Err(error),
        }
        self.large_done(file)
    }

    fn read_pieces(&self, file: &Arc<LargeFile>, number: usize, section: &Section) -> Result<(), Trouble> {
        let plan = &self.plan;
        let handle = file.handle.as_fd();
        let mut chunker = Chunker::new(
            handle,
            &file.stat,
            plan.file_splitter,
            plan.zero_piece,
            section.start,
            section.end,
        );
        let mut batch = HashBatch::new(file, number);
        let mut count = 0;
        // Another section may have failed; then this one is of no use.
        while !file.failed.load(Ordering::Relaxed) {
            let need = chunker.need(file.length);
            let mut share = if let Some(share) = self.budget.try_take(need) {
                share
            } else {
                self.hand_over(&mut batch)?;
                self.take_budget(need)?
            };
            let before = chunker.position();
            let Some(piece) = chunker.next(|| self.is_stopped()).map_err(Trouble::Source)? else {
                break;
            };
            match piece {
                Piece::Zeros => {
                    drop(share);
                    self.place_zeros(file, section, count)?;
                }
                Piece::Data(data) => {
                    self.progress.read(chunker.position().saturating_sub(before));
                    self.progress.hashed(data.len() as u64);
                    if data.len() == plan.zero_piece && is_zero(&data) {
                        drop((share, data));
                        self.place_zeros(file, section, count)?;
                    } else {
                        share.shrink(data.capacity() as u64);
                        batch.push(count, data, share);
                    }
                }
            }
            count += 1;
            if batch.pieces.len() >= PIECES_PER_BATCH {
                self.hand_over(&mut batch)?;
            }
        }
        Ok(self.hand_over(&mut batch)?)
    }

    fn place_zeros(&self, file: &LargeFile, section: &Section, number: usize) -> KopiaResult<()> {
        let object = self.zeros(file.compression)?;
        let length = self.plan.zero_piece as u64;
        self.progress.hashed(length);
        section.set(number, ObjectPart { length, object });
        Ok(())
    }

    /// Lets an idle thread store what was read, or stores it here.
    fn hand_over(&self, batch: &mut HashBatch) -> KopiaResult<()> {
        if batch.pieces.is_empty() {
            return Ok(());
        }
        let next = HashBatch::new(&batch.file, batch.section);
        let batch = std::mem::replace(batch, next);
        batch.file.remaining.fetch_add(1, Ordering::Relaxed);
        match self.work.offer(batch) {
            Some(batch) => self.store_batch(batch),
            None => Ok(()),
        }
    }

    /// Stores pieces.
    pub(super) fn store_batch(&self, batch: HashBatch) -> KopiaResult<()> {
        let HashBatch {
            file,
            section,
            pieces,
            share,
        } = batch;
        let (numbers, data): (Vec<usize>, Vec<Vec<u8>>) = pieces.into_iter().unzip();
        let lengths: Vec<u64> = data.iter().map(|data| data.len() as u64).collect();
        let contents = self.sink.put_batch(None, data, file.compression)?;
        drop(share);
        if let Some(section) = file.sections.get(section) {
            for ((number, length), content) in numbers.into_iter().zip(lengths).zip(contents) {
                let object = ObjectId::direct(content);
                section.set(number, ObjectPart { length, object });
            }
        }
        self.large_done(&file)
    }

    /// A section is read or a batch is stored; finishes the file if that was all.
    fn large_done(&self, file: &Arc<LargeFile>) -> KopiaResult<()> {
        if file.remaining.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let failure = *file.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((action, errno)) = failure {
            return self.entry_failed(&file.directory, file.index, action, errno);
        }
        let (object, length) = file.object(self)?;
        self.progress.stored(1, length);
        file.directory.stored(file.index, object, length);
        self.entries_done(&file.directory, 1)
    }
}

impl HashBatch {
    fn new(file: &Arc<LargeFile>, section: usize) -> Self {
        Self {
            file: Arc::clone(file),
            section,
            pieces: Vec::new(),
            share: None,
        }
    }

    fn push(&mut self, number: usize, data: Vec<u8>, share: Share) {
        self.pieces.push((number, data));
        match &mut self.share {
            Some(held) => held.merge(share),
            None => self.share = Some(share),
        }
    }
}

/// Why a section was not read to its end.
enum Trouble {
    /// The file.
    Source(Errno),
    /// The repository.
    Repository(KopiaError),
}

impl From<KopiaError> for Trouble {
    fn from(error: KopiaError) -> Self {
        Self::Repository(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_those_of_kopia() {
        let bounds = |length, above| -> Vec<(u64, u64)> {
            sections(length, above)
                .iter()
                .map(|section| (section.start, section.end))
                .collect()
        };
        assert_eq!(bounds(100, None), [(0, u64::MAX)]);
        assert_eq!(bounds(100, Some(100)), [(0, u64::MAX)]);
        assert_eq!(bounds(101, Some(100)), [(0, 100), (100, u64::MAX)]);
        // The last one may be empty.
        assert_eq!(bounds(200, Some(100)), [(0, 100), (100, 200), (200, u64::MAX)]);
        assert_eq!(bounds(5, Some(0)), [(0, u64::MAX)]);
    }
}
