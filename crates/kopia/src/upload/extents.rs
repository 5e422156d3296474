//! Where a file has data and where it has holes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Data up to this offset, as far as is known.
    Data(u64),
    /// Zeros that are not on the disk, up to this offset.
    Hole(u64),
}

impl Extent {
    /// Where it ends.
    pub(super) const fn end(self) -> u64 {
        match self {
            Self::Data(end) | Self::Hole(end) => end,
        }
    }
}

/// Finds the extents of a file.
#[derive(Debug)]
pub(super) struct Extents<'a> {
    file: BorrowedFd<'a>,
    sparse: bool,
}

impl<'a> Extents<'a> {
    /// Of a file whose metadata is `stat`. A file with as many blocks as it is long is not asked any further.
    pub(super) fn new(file: BorrowedFd<'a>, stat: &Stat) -> Self {
        let kept = u64::try_from(stat.st_blocks)
            .unwrap_or_default()
            .saturating_mul(512);
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        Self {
            file,
            sparse: kept < length,
        }
    }

    /// The extent that begins at `offset`. Past the end there may be data: the file may have grown.
    pub(super) fn at(&mut self, offset: u64) -> Extent {
        if !self.sparse {
            return Extent::Data(u64::MAX);
        }
        match self.look(offset) {
            Ok(extent) => extent,
            // A file system that does not know; or the offset is past the end.
            Err(_) => Extent::Data(u64::MAX),
        }
    }

    fn look(&self, offset: u64) -> Result<Extent, Errno> {
        let data = match rustix::fs::seek(self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // No data behind: a hole up to the end, if the end is behind.
            Err(Errno::NXIO) => rustix::fs::seek(self.file, SeekFrom::End(0))?,
            Err(error) => return Err(error),
        };
        if data > offset {
            return Ok(Extent::Hole(data));
        }
        let hole = rustix::fs::seek(self.file, SeekFrom::Hole(offset))?;
        if hole > offset {
            Ok(Extent::Data(hole))
        } else {
            Err(Errno::NXIO)
        }
    }
}

/// The length of a block device, in bytes. Moves the position of the descriptor.
pub(super) fn device_length(device: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::seek(device, SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_found() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.set_len(3 << 20).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let mut extents = Extents::new(file.as_fd(), &stat);
        assert_eq!(extents.at(0), Extent::Hole(1 << 20));
        let Extent::Data(end) = extents.at(1 << 20) else {
            panic!("data was written here");
        };
        assert!(end < 2 << 20);
        assert_eq!(extents.at(end), Extent::Hole(3 << 20));
        assert_eq!(extents.at(3 << 20), Extent::Data(u64::MAX));
        assert_eq!(device_length(&file), Ok(3 << 20));
    }

    #[test]
    fn a_dense_file_is_one_extent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 100_000]).unwrap();
        let file = File::open(file.path()).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!(Extents::new(file.as_fd(), &stat).at(0).end(), u64::MAX);
    }
}
