//! Symlinks.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Applied;
use super::directory::{Failure, file_type, look};
use super::file::FileIdentity;
use super::{Attributes, Directory, EntryName, Target, Values};
use crate::error::KopiaResult;

impl Target {
    /// Creates a symlink, or replaces the one that is there, and says which it is. Where it points to is of no concern:
    /// nobody follows it here.
    pub(crate) fn create_symlink(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
        points_to: &[u8],
        attributes: &Attributes,
        extended: Option<&Values>,
    ) -> KopiaResult<FileIdentity> {
        self.make_symlink(parent, name, points_to, attributes, extended)
            .map_err(|error| error.unwrap_or_io("create symlink", || self.path_of(parent, Some(name))))
    }

    fn make_symlink(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
        points_to: &[u8],
        attributes: &Attributes,
        extended: Option<&Values>,
    ) -> Result<FileIdentity, Failure> {
        let within = self.descriptor(parent)?;
        match rustix::fs::symlinkat(points_to, &within, name.as_os_str()) {
            Err(Errno::EXIST) => {
                let there = file_type(&look(&within, name)?);
                if there != FileType::Symlink {
                    return Err(self.in_the_way(parent, name, "it exists and is not a symlink"));
                }
                if !self.options.overwrite_symlinks {
                    return Err(self.in_the_way(parent, name, "it exists and must not be overwritten"));
                }
                rustix::fs::unlinkat(&within, name.as_os_str(), AtFlags::empty())?;
                rustix::fs::symlinkat(points_to, &within, name.as_os_str())?;
            }
            created => created?,
        }
        let (identity, applied) = self.set_link_attributes(&within, name, points_to, attributes, extended)?;
        self.count(applied, || parent.relative_path().join(name.as_os_str()));
        Ok(identity)
    }

    fn set_link_attributes(
        &self,
        within: impl AsFd,
        name: EntryName<'_>,
        points_to: &[u8],
        attributes: &Attributes,
        extended: Option<&Values>,
    ) -> Result<(FileIdentity, Applied), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(within, name.as_os_str(), flags, Mode::empty())?;
        let now = rustix::fs::fstat(&link)?;
        // Another one in its place must get neither the attributes nor further names.
        let is_ours = file_type(&now) == FileType::Symlink
            && rustix::fs::readlinkat(&link, c"", Vec::new())?.to_bytes() == points_to;
        if !is_ours {
            return Err(Errno::STALE);
        }
        let policy = self.options.attributes;
        let applied = policy.apply_to_link(link.as_fd(), &now, attributes, extended)?;
        Ok((FileIdentity::of(&now), applied))
    }

    /// Whether there is a symlink, so that a restore may pass it over, as kopia does.
    pub(crate) fn has_symlink(&self, parent: &Directory, name: EntryName<'_>) -> bool {
        self.stat(parent, name)
            .is_some_and(|there| file_type(&there) == FileType::Symlink)
    }
}
