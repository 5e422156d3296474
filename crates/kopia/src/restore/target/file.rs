//! Regular files: created or overwritten, written anywhere, found again.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::attributes;
use super::directory::{Failure, file_type, look};
use super::sparse::data_ranges;
use super::{Attributes, Directory, EntryName, Target, Values};
use crate::error::{KopiaError, KopiaResult};

/// How much is written by one call: little enough that a slow disk lets a cancellation through in time.
const WRITE: usize = 1 << 20;

/// How far modification times may be apart for a file to be taken for the same, as kopia does.
const SAME_TIME_NANOSECONDS: i128 = 2_000_000_000;

/// How often a name is tried whose owner changes it meanwhile.
const ATTEMPTS: u32 = 4;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Which file this is, to find it again.
    pub(crate) fn of_open(file: &OwnedFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|stat| Self::of(&stat))
    }

    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types differ by architecture"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }
}

impl Target {
    /// Creates an empty file, or empties the one that is there.
    pub(crate) fn create_file(&self, parent: &Directory, name: EntryName<'_>) -> KopiaResult<OwnedFd> {
        self.make_file(parent, name)
            .map_err(|error| error.unwrap_or_io("create", || self.path_of(parent, Some(name))))
    }

    fn make_file(&self, parent: &Directory, name: EntryName<'_>) -> Result<OwnedFd, Failure> {
        let within = self.descriptor(parent)?;
        for _ in 0..ATTEMPTS {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&within, name.as_os_str(), flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => {}
                opened => return Ok(opened?),
            }
            match self.overwrite(&within, parent, name) {
                Ok(Some(file)) => return Ok(file),
                // It is out of the way now, or vanished by itself.
                Ok(None) | Err(Failure::Call(Errno::NOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Decides about what is in the way of a file: opened and emptied, or removed.
    fn overwrite(
        &self,
        within: &OwnedFd,
        parent: &Directory,
        name: EntryName<'_>,
    ) -> Result<Option<OwnedFd>, Failure> {
        let there = look(within, name)?;
        let remove = match file_type(&there) {
            FileType::RegularFile if self.options.overwrite_files => has_other_names(&there),
            FileType::Symlink if self.options.overwrite_files && self.options.overwrite_symlinks => true,
            FileType::RegularFile => {
                return Err(self.in_the_way(parent, name, "it exists and must not be overwritten"));
            }
            _ => return Err(self.in_the_way(parent, name, "it exists and is not a regular file")),
        };
        if remove {
            rustix::fs::unlinkat(within, name.as_os_str(), AtFlags::empty())?;
            return Ok(None);
        }
        let file = open_file(within, name)?;
        // Between the look and the opening it may have become something else.
        let opened = rustix::fs::fstat(&file)?;
        if FileIdentity::of(&opened) != FileIdentity::of(&there) || has_other_names(&opened) {
            return Ok(None);
        }
        rustix::fs::ftruncate(&file, 0)?;
        Ok(Some(file))
    }

    /// Opens a file again that was created before.
    pub(crate) fn reopen_file(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
        identity: FileIdentity,
    ) -> KopiaResult<OwnedFd> {
        let open = || {
            let file = open_file(self.descriptor(parent)?, name)?;
            if FileIdentity::of(&rustix::fs::fstat(&file)?) == identity {
                Ok(file)
            } else {
                Err(Errno::STALE)
            }
        };
        open().map_err(|error| KopiaError::io("open again", self.path_of(parent, Some(name)), error))
    }

    /// Sets the attributes of a file that is written. Where it is matters for the report only.
    pub(crate) fn finish_file(
        &self,
        (parent, name): (&Directory, EntryName<'_>),
        file: &OwnedFd,
        attributes: &Attributes,
        extended: Option<&Values>,
    ) -> Result<(), Errno> {
        let applied = attributes::apply(self.options.attributes, file, attributes, extended)?;
        self.count(applied, || parent.relative_path().join(name.as_os_str()));
        Ok(())
    }

    /// Whether there is a file of this size and time, so that a restore may pass it over. The comparison is kopia's.
    pub(crate) fn has_same_file(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
        size: u64,
        modified: Timespec,
    ) -> bool {
        self.stat(parent, name).is_some_and(|there| {
            let apart = nanoseconds(there.st_mtime, i64::try_from(there.st_mtime_nsec).unwrap_or(0))
                - nanoseconds(modified.tv_sec, modified.tv_nsec);
            file_type(&there) == FileType::RegularFile
                && u64::try_from(there.st_size) == Ok(size)
                && apart.abs() < SAME_TIME_NANOSECONDS
        })
    }

    pub(super) fn stat(&self, parent: &Directory, name: EntryName<'_>) -> Option<Stat> {
        self.descriptor(parent).and_then(|within| look(within, name)).ok()
    }
}

fn has_other_names(stat: &Stat) -> bool {
    stat.st_nlink > 1
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// Opens a file for writing by its one name; a FIFO that was put in its place must not block.
fn open_file(within: impl AsFd, name: EntryName<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(within, name.as_os_str(), flags, Mode::empty())
}

/// Why data was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    Cancelled,
    Call(Errno),
}

impl From<Errno> for WriteError {
    fn from(error: Errno) -> Self {
        Self::Call(error)
    }
}

impl WriteError {
    /// The error, naming the file.
    pub(crate) fn at(self, path: impl Into<std::path::PathBuf>) -> KopiaError {
        match self {
            Self::Cancelled => KopiaError::Cancelled,
            Self::Call(error) => KopiaError::io("write", path, error),
        }
    }
}

/// Writes all of `data` at a position. When `sparse`, blocks of zeros are left out: the file must read as zeros there.
pub(crate) fn write_at(
    file: impl AsFd,
    data: &[u8],
    offset: u64,
    sparse: bool,
    cancel: &CancellationToken,
) -> Result<(), WriteError> {
    if !sparse {
        return write_all(file, data, offset, cancel);
    }
    for range in data_ranges(data, offset) {
        let position = offset + range.start as u64;
        if let Some(part) = data.get(range) {
            write_all(&file, part, position, cancel)?;
        }
    }
    Ok(())
}

fn write_all(
    file: impl AsFd,
    mut data: &[u8],
    mut offset: u64,
    cancel: &CancellationToken,
) -> Result<(), WriteError> {
    while !data.is_empty() {
        if cancel.is_cancelled() {
            return Err(WriteError::Cancelled);
        }
        let part = data.get(..WRITE).unwrap_or(data);
        match rustix::io::pwrite(&file, part, offset) {
            Ok(0) => return Err(Errno::NOSPC.into()),
            Ok(written) => {
                data = data.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
