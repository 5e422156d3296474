//! Block devices, written in place.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::directory::file_type;
use crate::error::{KopiaError, KopiaResult};

/// A block device that is restored to.
#[derive(Debug)]
pub(crate) struct Device {
    file: OwnedFd,
    path: PathBuf,
}

impl Device {
    /// Opens a block device that has room for `size` bytes.
    pub(crate) fn open(path: &Path, size: u64) -> KopiaResult<Self> {
        let fail = |action, error: Errno| KopiaError::io(action, path, error);
        let refuse = |problem: String| {
            Err(KopiaError::Argument {
                name: "target",
                problem: format!("{} {problem}", path.display()),
            })
        };
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| fail("open", error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| fail("inspect", error))?;
        if file_type(&stat) != FileType::BlockDevice {
            return refuse("is not a block device".to_owned());
        }
        // Its end is its size, without an ioctl.
        let room = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|error| fail("inspect", error))?;
        if room < size {
            return refuse(format!("has {room} bytes, {size} are needed"));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The device itself.
    pub(crate) const fn descriptor(&self) -> &OwnedFd {
        &self.file
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what the kernel still holds to the device.
    pub(crate) fn sync(&self) -> KopiaResult<()> {
        rustix::fs::fsync(&self.file).map_err(|error| KopiaError::io("sync", &self.path, error))
    }
}
