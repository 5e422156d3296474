//! Small files and links: read whole, and hashed several at once.

use std::cmp::Reverse;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::attributes::Attributes;
use super::budget::Share;
use super::engine::Engine;
use super::large::LargeTask;
use super::list::{Kind, open_file, retry};
use super::tree::Directory;
use crate::compression::HeaderId;
use crate::error::KopiaResult;
use crate::object::{ContentSink as _, ObjectId};

/// Files in one task. Cold reads are one after the other within a task, so many small tasks keep the disk busy.
const FILES_PER_TASK: usize = 16;

/// Files that are gathered until they are hashed together.
const FILES_PER_BATCH: usize = 32;

/// Bytes that are gathered until they are hashed together.
const BYTES_PER_BATCH: u64 = 512 << 10;

/// Some files and links of one directory.
#[derive(Debug)]
pub(super) struct FilesTask {
    /// The directory.
    pub(super) directory: Arc<Directory>,
    /// Which of its entries.
    pub(super) entries: Vec<u32>,
}

/// The small files and links of one directory that are still to be read, in portions.
#[derive(Debug)]
pub(super) struct Files {
    directory: Arc<Directory>,
    /// Those to be read last come first.
    left: Vec<u32>,
}

impl Files {
    /// These entries of a directory, in the order of the disk, more or less.
    pub(super) fn new(directory: &Arc<Directory>, mut entries: Vec<u32>) -> Self {
        entries.sort_unstable_by_key(|index| Reverse(directory.entry(*index).map(|entry| entry.order)));
        entries.shrink_to_fit();
        Self {
            directory: Arc::clone(directory),
            left: entries,
        }
    }
}

impl Iterator for Files {
    type Item = FilesTask;

    fn next(&mut self) -> Option<FilesTask> {
        let rest = self.left.len().saturating_sub(FILES_PER_TASK);
        let mut entries = self.left.split_off(rest);
        if entries.is_empty() {
            return None;
        }
        entries.reverse();
        Some(FilesTask {
            directory: Arc::clone(&self.directory),
            entries,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let portions = self.left.len().div_ceil(FILES_PER_TASK);
        (portions, Some(portions))
    }
}

impl ExactSizeIterator for Files {}

/// What one thread has read and not yet stored.
#[derive(Default)]
pub(super) struct Pending {
    places: Vec<(Arc<Directory>, u32, u64)>,
    data: Vec<Vec<u8>>,
    share: Option<Share>,
    bytes: u64,
    compression: HeaderId,
}

impl Pending {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Reads the files of a task; stores when enough has been gathered.
    pub(super) fn read(&mut self, engine: &Engine, task: &FilesTask) -> KopiaResult<()> {
        for index in &task.entries {
            if engine.is_stopped() {
                return Ok(());
            }
            self.read_one(engine, &task.directory, *index)?;
            if self.places.len() >= FILES_PER_BATCH || self.bytes >= BYTES_PER_BATCH {
                self.store(engine)?;
            }
        }
        Ok(())
    }

    fn read_one(&mut self, engine: &Engine, directory: &Arc<Directory>, index: u32) -> KopiaResult<()> {
        let Some(entry) = directory.entry(index) else {
            return Ok(());
        };
        let (is_link, size) = (entry.kind() == Kind::Symlink, entry.size());
        let compression = if is_link {
            HeaderId::default()
        } else {
            directory.compression(index)
        };
        if compression != self.compression {
            self.store(engine)?;
            self.compression = compression;
        }
        // One more, to see that the file ends where it should.
        let share = self.room(engine, size + 1)?;
        let read = if is_link {
            read_link(directory, index).map(|data| Some((data, engine.attributes_of_link(directory, index))))
        } else {
            engine.progress.opened(1);
            read_file(engine, directory, index)
        };
        match read {
            Ok(Some((data, attributes))) => {
                engine.keep_attributes(directory, index, attributes)?;
                let length = data.len() as u64;
                engine.progress.read(length);
                engine.progress.hashed(length);
                if !is_link {
                    engine.progress.stored(1, length);
                }
                self.bytes += length;
                match &mut self.share {
                    Some(held) => held.merge(share),
                    None => self.share = Some(share),
                }
                self.places.push((Arc::clone(directory), index, length));
                self.data.push(data);
                Ok(())
            }
            Ok(None) => {
                // It has grown.
                let task = LargeTask::Open(Arc::clone(directory), index);
                engine.work.push_large(task);
                Ok(())
            }
            Err((action, errno)) => engine.entry_failed(directory, index, action, errno),
        }
    }

    /// Room for so many bytes; what is held is stored first if there is none.
    fn room(&mut self, engine: &Engine, bytes: u64) -> KopiaResult<Share> {
        if let Some(share) = engine.budget.try_take(bytes) {
            return Ok(share);
        }
        self.store(engine)?;
        engine.take_budget(bytes)
    }

    /// Stores what was read.
    pub(super) fn store(&mut self, engine: &Engine) -> KopiaResult<()> {
        if self.places.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        let contents = engine.sink.put_batch(None, data, self.compression)?;
        self.share = None;
        self.bytes = 0;
        let places = std::mem::take(&mut self.places);
        let mut done: Option<(Arc<Directory>, usize)> = None;
        for ((directory, index, size), content) in places.into_iter().zip(contents) {
            directory.stored(index, ObjectId::direct(content), size);
            done = match done {
                Some((last, count)) if Arc::ptr_eq(&last, &directory) => Some((last, count + 1)),
                Some((last, count)) => {
                    engine.entries_done(&last, count)?;
                    Some((directory, 1))
                }
                None => Some((directory, 1)),
            };
        }
        match done {
            Some((last, count)) => engine.entries_done(&last, count),
            None => Ok(()),
        }
    }
}

type Failed = (&'static str, Errno);

/// The data of a file and its extended attributes; none if it is too long to be read whole.
fn read_file(
    engine: &Engine,
    directory: &Directory,
    index: u32,
) -> Result<Option<(Vec<u8>, Attributes)>, Failed> {
    let limit = engine.plan.small;
    let (Some(handle), Some(entry)) = (directory.handle(), directory.entry(index)) else {
        return Err(("open", Errno::NOENT));
    };
    let (file, stat) =
        open_file(handle, directory.listing().c_name(entry)).map_err(|errno| ("open", errno))?;
    let expected = u64::try_from(stat.st_size).unwrap_or_default();
    if expected > limit {
        return Ok(None);
    }
    let failed = |errno| ("read", errno);
    let mut data: Vec<u8> = Vec::new();
    data.reserve_exact(usize::try_from(expected + 1).map_err(|_| failed(Errno::FBIG))?);
    loop {
        let offset = data.len() as u64;
        let read = retry(|| rustix::io::pread(file.as_fd(), spare_capacity(&mut data), offset));
        let read = read.map_err(failed)?;
        if read == 0 {
            return Ok(Some((data, engine.attributes_of(file.as_fd()))));
        }
        if data.len() as u64 > limit {
            return Ok(None);
        }
        if data.len() as u64 == expected && data.len() < data.capacity() {
            // There was room for more than it gave, so it ends here.
            return Ok(Some((data, engine.attributes_of(file.as_fd()))));
        }
        if data.len() == data.capacity() {
            data.reserve(64 << 10);
        }
    }
}

/// What a link points to.
fn read_link(directory: &Directory, index: u32) -> Result<Vec<u8>, Failed> {
    let (Some(handle), Some(entry)) = (directory.handle(), directory.entry(index)) else {
        return Err(("read link", Errno::NOENT));
    };
    let target = rustix::fs::readlinkat(handle, directory.listing().c_name(entry), Vec::new());
    target
        .map(std::ffi::CString::into_bytes)
        .map_err(|errno| ("read link", errno))
}
