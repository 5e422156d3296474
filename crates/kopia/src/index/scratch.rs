//! Files of the scratch directory, and reading anywhere in them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{KopiaError, KopiaResult};

/// How much is read or written by one system call where bytes are read in order.
pub(super) const WINDOW: usize = 64 << 10;

/// Something that can be read anywhere.
pub trait ReadAt {
    /// Fills the buffer from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> KopiaResult<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> KopiaResult<()> {
        usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .map(|bytes| buffer.copy_from_slice(bytes))
            .ok_or_else(|| KopiaError::corrupt("an index", "it ends too early"))
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> KopiaResult<()> {
        (**self).read_at(buffer, offset)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for std::sync::Arc<T> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> KopiaResult<()> {
        (**self).read_at(buffer, offset)
    }
}

/// A file without a name, of mode 0600: it is gone when nothing refers to it, even if the process is killed.
#[derive(Debug)]
pub(super) struct ScratchFile {
    file: File,
    directory: PathBuf,
    end: AtomicU64,
}

impl ScratchFile {
    pub(super) fn new(directory: &Path) -> KopiaResult<Self> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|error| KopiaError::io("create a file in", directory, error))?;
        Ok(Self::of(file, directory))
    }

    /// A file that was made by others.
    pub(super) fn of(file: File, directory: &Path) -> Self {
        Self {
            file,
            directory: directory.to_owned(),
            end: AtomicU64::new(0),
        }
    }

    /// The file itself, empty still, to be written by others.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// Sets `length` bytes at the end apart for one writer; says where they begin.
    pub(super) fn reserve(&self, length: u64) -> u64 {
        self.end.fetch_add(length, Ordering::Relaxed)
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> KopiaResult<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| KopiaError::io("write a file in", &self.directory, error))
    }
}

impl ReadAt for ScratchFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> KopiaResult<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| KopiaError::io("read a file in", &self.directory, error))
    }
}

/// Reads pieces that mostly follow each other with few calls.
#[derive(Debug)]
pub(super) struct Window<S> {
    source: S,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    size: usize,
}

impl<S: ReadAt> Window<S> {
    /// Over the first `length` bytes of the source, `size` bytes at a time.
    pub(super) fn new(source: S, length: u64, size: usize) -> Self {
        Self {
            source,
            length,
            start: 0,
            bytes: Vec::new(),
            size,
        }
    }

    /// The `length` bytes from `offset`; none if the source is shorter.
    pub(super) fn get(&mut self, offset: u64, length: usize) -> KopiaResult<Option<&[u8]>> {
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > self.length)
        {
            return Ok(None);
        }
        if offset < self.start || offset + length as u64 > self.start + self.bytes.len() as u64 {
            let rest = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            // Emptied first, so that a failed read leaves nothing that looks like data.
            self.bytes.clear();
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(rest.min(self.size.max(length)), 0);
            self.source.read_at(&mut bytes, offset)?;
            (self.start, self.bytes) = (offset, bytes);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..from + length))
    }
}
