//! What kopia does not keep of entries: gathered when they are read, written with their directory.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::ErrorPolicy;
use super::engine::Engine;
use super::limits::is_exhausted;
use super::list::{Kind, LinkedFile, Metadata};
use super::previous::Known;
use super::slots::Slot;
use super::tree::{Directory, Held, Kept};
use super::xattrs;
use crate::error::{KopiaError, KopiaResult};
use crate::snapshot::{HardLink, field_json};

/// What was tried when attributes could not be read.
const ACTION: &str = "read the extended attributes of";

/// The attributes of an entry, as JSON, if they could be read.
pub(super) type Attributes = Result<Option<Vec<u8>>, Errno>;

impl Engine {
    /// Reads the attributes of an open file, if they are wanted.
    pub(super) fn attributes_of(&self, file: BorrowedFd<'_>) -> Attributes {
        if self.plan.extended_attributes {
            xattrs::of_open(file)
        } else {
            Ok(None)
        }
    }

    /// Reads the attributes of a symbolic link, if they are wanted.
    pub(super) fn attributes_of_link(&self, directory: &Directory, index: u32) -> Attributes {
        match (directory.handle(), directory.entry(index)) {
            (Some(handle), Some(entry)) if self.plan.extended_attributes => {
                // It was read just now, so if it is another one it is the one that was read.
                let is_link = |now: &Metadata| now.kind == Kind::Symlink;
                xattrs::of_entry(handle, directory.listing().c_name(entry), is_link)
            }
            _ => Ok(None),
        }
    }

    /// Keeps attributes of an entry until its directory is written.
    pub(super) fn keep_attributes(
        &self,
        directory: &Directory,
        index: u32,
        attributes: Attributes,
    ) -> KopiaResult<()> {
        match attributes {
            Ok(None) => Ok(()),
            Ok(Some(values)) => {
                directory.keep_attributes(index, values, &self.attribute_room);
                Ok(())
            }
            Err(errno) => self.attributes_failed(&directory.entry_path(index), errno),
        }
    }

    /// The attributes of a directory that was opened, if they are wanted.
    pub(super) fn own_attributes(
        &self,
        handle: BorrowedFd<'_>,
        path: impl FnOnce() -> Vec<u8>,
    ) -> KopiaResult<Option<Vec<u8>>> {
        match self.attributes_of(handle) {
            Ok(values) => Ok(values),
            Err(errno) => self.attributes_failed(&path(), errno).map(|()| None),
        }
    }

    /// Reads the attributes of files and links that an older snapshot has: they may have changed alone. What cannot be
    /// read is not taken from there, so it is opened like any other and fails there, if it does.
    pub(super) fn read_attributes_of_unchanged(&self, directory: &Arc<Directory>, known: &mut Known) {
        let Some(handle) = directory.handle().filter(|_| self.plan.extended_attributes) else {
            return;
        };
        let listing = directory.listing();
        for (at, entry) in listing.entries().iter().enumerate() {
            let Ok(index) = u32::try_from(at) else { return };
            if !known.slots.is_stored(at) {
                continue;
            }
            if self.is_stopped() {
                return;
            }
            let metadata = listing.metadata(entry);
            match xattrs::of_entry(handle, listing.c_name(entry), |now| *now == metadata) {
                Ok(None) => {}
                Ok(Some(values)) => directory.keep_attributes(index, values, &self.attribute_room),
                Err(_) => {
                    known.slots.set(at, Slot::Open);
                    known.unchanged -= 1;
                    known.bytes = known.bytes.saturating_sub(entry.size());
                }
            }
        }
    }

    /// The field with what was kept of an entry. `checkpoint` if it is no matter whether it is complete.
    pub(super) fn attributes_field(
        &self,
        directory: &Directory,
        kept: &Kept<'_>,
        checkpoint: bool,
    ) -> KopiaResult<Option<Vec<u8>>> {
        let entry = directory.entry(kept.index);
        let linked = entry.and_then(|entry| directory.listing().linked(entry));
        let link = linked.map(|linked| self.hard_link(&linked));
        let read;
        let values = match kept.held {
            Some(Held::Here(values)) => Some(&**values),
            Some(Held::Later) if !checkpoint => {
                read = self.read_now(directory, kept.index)?;
                read.as_deref()
            }
            Some(Held::Later) | None => None,
        };
        if values.is_none() && link.is_none() {
            return Ok(None);
        }
        if !checkpoint {
            self.progress.attributes_kept(1);
        }
        Ok(Some(field_json(values, link.as_ref())))
    }

    /// Reads attributes that there was no room for before.
    fn read_now(&self, directory: &Directory, index: u32) -> KopiaResult<Option<Vec<u8>>> {
        let read = match (directory.handle(), directory.entry(index)) {
            (Some(handle), Some(entry)) => {
                let listing = directory.listing();
                let metadata = listing.metadata(entry);
                xattrs::of_entry(handle, listing.c_name(entry), |now| *now == metadata)
            }
            _ => Err(Errno::NOENT),
        };
        match read {
            Ok(values) => Ok(values),
            Err(errno) => self
                .attributes_failed(&directory.entry_path(index), errno)
                .map(|()| None),
        }
    }

    /// Which file a name is one of. The number of the root's own file system is left out: it is another one after each
    /// mount, and what is unchanged should give the same directory.
    fn hard_link(&self, linked: &LinkedFile) -> HardLink {
        let inode = linked.inode;
        HardLink {
            id: if self.root_device.get() == Some(&linked.device) {
                format!("{inode:x}")
            } else {
                format!("{inode:x}.{:x}", linked.device)
            },
            names: linked.names,
        }
    }

    /// Attributes could not be read: ends the backup, or leaves them out, as was asked for. The entry itself stays.
    fn attributes_failed(&self, path: &[u8], errno: Errno) -> KopiaResult<()> {
        self.progress.failed(1);
        let skips = self.plan.errors != ErrorPolicy::FailFast || self.plan.ignored.files;
        if !skips || is_exhausted(errno) {
            return Err(KopiaError::io(ACTION, self.full_path(path), errno));
        }
        self.note_skipped(path, ACTION, errno.into());
        Ok(())
    }
}
