//! How a restore is made.

use std::path::PathBuf;

use holdfast_store::ByteBudget;

use super::target::{AttributePolicy, TargetOptions};
use crate::object::ObjectId;
use crate::snapshot::DirEntry;
use crate::tree::{FetchOptions, OnError};

/// How many directories are held open, and how many files.
const OPEN_DIRECTORIES: usize = 256;
pub(super) const OPEN_FILES: usize = 128;

/// What is restored.
#[derive(Clone, Debug, PartialEq)]
pub enum RestoreSource {
    /// An entry with its attributes: the root of a snapshot, or something below it.
    Entry(Box<DirEntry>),
    /// A directory by its object. The target itself keeps its attributes.
    Directory(ObjectId),
}

impl From<DirEntry> for RestoreSource {
    fn from(entry: DirEntry) -> Self {
        Self::Entry(Box::new(entry))
    }
}

impl From<ObjectId> for RestoreSource {
    fn from(directory: ObjectId) -> Self {
        Self::Directory(directory)
    }
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// What is restored becomes what is at this path: a directory's entries get into it, a file gets this name.
    Path(PathBuf),
    /// A block device, which is overwritten from its beginning. The source is a file, or a directory with one file: so
    /// Velero keeps volumes of mode `Block`.
    BlockDevice(PathBuf),
}

/// Options of a [`Restore`](super::Restore). The defaults are what Velero sets for kopia, but sparse.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "kopia's options, each for itself")]
pub struct RestoreOptions {
    /// Ranges of packs that are read at the same time.
    pub parallel_reads: usize,
    /// Threads that decode and write; 0 is two for each processor, at most 8.
    pub workers: usize,
    /// Overwrite existing files, in place. Otherwise they fail.
    pub overwrite_files: bool,
    /// Restore into existing directories even if something is in them. Otherwise they fail. Nothing is ever deleted.
    pub overwrite_directories: bool,
    /// Replace existing symlinks, wherever a file, directory or symlink belongs in their place. Otherwise they fail.
    pub overwrite_symlinks: bool,
    /// Pass over files that are there with the same size and the same time (within two seconds), and symlinks that are
    /// there.
    pub skip_existing: bool,
    /// Do not write blocks of zeros.
    pub sparse: bool,
    /// Restore owners and groups. Without, no file keeps the right to run as somebody else.
    pub owners: bool,
    /// Restore permissions.
    pub permissions: bool,
    /// Restore modification times.
    pub times: bool,
    /// Restore extended attributes (access control lists are such), and files with several names as one, where
    /// [`BackupOptions::extended_attributes`](crate::upload::BackupOptions::extended_attributes) kept them. Attributes
    /// that an existing file has beside those of the snapshot are removed, if the snapshot has any of it.
    pub extended_attributes: bool,
    /// Go on where the kernel does not permit to set owner, permissions, extended attributes or times; such entries are
    /// counted, and the first of them are listed.
    pub ignore_permission_errors: bool,
    /// What to do about entries that fail.
    pub on_error: OnError,
    /// Have everything on disk before the restore is called done (`syncfs`). Block devices always are.
    pub sync: bool,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            parallel_reads: 12,
            workers: 0,
            overwrite_files: true,
            overwrite_directories: true,
            overwrite_symlinks: true,
            skip_existing: false,
            sparse: true,
            owners: true,
            permissions: true,
            times: true,
            extended_attributes: true,
            ignore_permission_errors: true,
            on_error: OnError::Stop,
            sync: true,
        }
    }
}

impl RestoreOptions {
    pub(super) fn target(&self) -> TargetOptions {
        TargetOptions {
            overwrite_files: self.overwrite_files,
            overwrite_directories: self.overwrite_directories,
            overwrite_symlinks: self.overwrite_symlinks,
            attributes: AttributePolicy {
                owners: self.owners,
                permissions: self.permissions,
                times: self.times,
                ignore_permission_errors: self.ignore_permission_errors,
            },
            open_directories: OPEN_DIRECTORIES,
        }
    }

    pub(super) fn fetch(&self, memory: &ByteBudget) -> FetchOptions {
        FetchOptions::new(memory.clone(), self.parallel_reads, self.workers)
    }
}
