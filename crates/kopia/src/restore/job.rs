//! Files and symlinks on their way.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rustix::fs::Timespec;
use tokio::sync::OwnedSemaphorePermit;

use super::hard_links::Restoring;
use super::target::{Attributes, DescriptorSlot, Directory, EntryName, FileIdentity, Values};
use crate::object::Part;
use crate::snapshot::DirEntry;

/// A file or symlink that is being restored. Every content of it that is on its way holds it; who gives it up last
/// finishes it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) directory: Arc<Directory>,
    pub(super) name: crate::snapshot::EntryName,
    pub(super) attributes: Attributes,
    pub(super) extended: Option<Extended>,
    /// Set if other names of the file wait for this one.
    pub(super) first: Option<Restoring>,
    /// Bytes that it has, as its directory says.
    pub(super) size: u64,
    pub(super) kind: Kind,
    pub(super) failed: AtomicBool,
}

/// Extended attributes of a file, and room for them.
#[derive(Debug)]
pub(super) struct Extended {
    pub(super) values: Values,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// How it is restored.
#[derive(Debug)]
pub(super) enum Kind {
    /// A file of one content: created, written and finished at once.
    Small,
    /// A symlink, whose content is its target.
    Symlink,
    /// A file of several contents, which come in any order.
    Large(Large),
}

/// A file that stays open, more or less, while it is written.
#[derive(Debug, Default)]
pub(super) struct Large {
    pub(super) slot: Arc<DescriptorSlot>,
    /// Which file it is, once it is created.
    pub(super) created: Mutex<Option<FileIdentity>>,
}

/// A content of a file.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) job: Arc<Job>,
    /// Where in the file it belongs, and how long it must be.
    pub(super) part: Part,
}

impl Job {
    /// Path below the root of the snapshot.
    pub(super) fn relative_path(&self) -> PathBuf {
        self.directory.relative_path().join(self.name.as_os_str())
    }

    /// The extended attributes, if it has some or is to have none.
    pub(super) fn extended(&self) -> Option<&Values> {
        self.extended.as_ref().map(|extended| &extended.values)
    }

    /// Notes which file was created, if that matters.
    pub(super) fn created(&self, identity: FileIdentity) {
        if let Some(first) = &self.first {
            first.created(identity);
        }
    }

    /// The name, judged again: it passed when the job was made, so an error says a defect and nothing is written.
    pub(super) fn checked_name(&self) -> Result<EntryName<'_>, &'static str> {
        EntryName::new(self.name.as_bytes())
    }
}

/// The attributes of an entry.
pub(super) fn attributes(entry: &DirEntry) -> Attributes {
    let (seconds, nanoseconds) = entry.mtime.to_unix();
    Attributes {
        mode: entry.permissions.to_unix(),
        user: entry.uid,
        group: entry.gid,
        modified: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        },
    }
}
