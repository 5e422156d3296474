//! Further names of files that are restored.

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;

use super::directory::{Failure, file_type, look};
use super::{Directory, EntryName, FileIdentity, Target};
use crate::error::KopiaResult;

impl Target {
    /// Gives a file or symlink that was restored to `first`, below the root, another name. What has this name is replaced
    /// where a file or a symlink would be. It fails if there is another file now.
    pub(crate) fn create_hard_link(
        &self,
        first: &Path,
        identity: FileIdentity,
        parent: &Directory,
        name: EntryName<'_>,
    ) -> KopiaResult<()> {
        self.link(first, identity, parent, name)
            .map_err(|error| error.unwrap_or_io("create a hard link at", || self.path_of(parent, Some(name))))
    }

    fn link(
        &self,
        first: &Path,
        identity: FileIdentity,
        parent: &Directory,
        name: EntryName<'_>,
    ) -> Result<(), Failure> {
        let names: Vec<OsString> = first.iter().map(Into::into).collect();
        let names: Vec<&OsString> = names.iter().collect();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_names(&names, flags)?;
        if FileIdentity::of_open(&file)? != identity {
            return Err(Errno::STALE.into());
        }
        // By the descriptor, so that it is this file whatever has its name meanwhile.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let within = self.descriptor(parent)?;
        let link = || rustix::fs::linkat(CWD, &path, &within, name.as_os_str(), AtFlags::SYMLINK_FOLLOW);
        match link() {
            Err(Errno::EXIST) => {
                let may_go = match file_type(&look(&within, name)?) {
                    FileType::RegularFile => self.options.overwrite_files,
                    FileType::Symlink => self.options.overwrite_symlinks,
                    _ => return Err(self.in_the_way(parent, name, "it exists and is not a regular file")),
                };
                if !may_go {
                    return Err(self.in_the_way(parent, name, "it exists and must not be overwritten"));
                }
                rustix::fs::unlinkat(&within, name.as_os_str(), AtFlags::empty())?;
                Ok(link()?)
            }
            linked => Ok(linked?),
        }
    }
}
