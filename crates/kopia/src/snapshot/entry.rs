//! Entries of directories.

use serde_json::{Map, Value};

use super::name::EntryName;
use super::permissions::Permissions;
use super::summary::Summary;
use super::time::UtcTime;
use crate::object::ObjectId;

/// What an entry is. kopia keeps nothing else: no devices, pipes, sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file; also a block device's content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its object is its target.
    Symlink,
    /// Something that this version does not know.
    #[default]
    Unknown,
}

impl EntryKind {
    /// As it is written.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::File => "f",
            Self::Directory => "d",
            Self::Symlink => "s",
            Self::Unknown => "",
        }
    }

    pub(super) fn from_letter(letter: &str) -> Self {
        match letter {
            "f" => Self::File,
            "d" => Self::Directory,
            "s" => Self::Symlink,
            _ => Self::Unknown,
        }
    }
}

/// An entry of a directory, or the root of a snapshot. As JSON it is, byte for byte, what kopia writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DirEntry {
    /// Its name.
    pub name: EntryName,
    /// What it is.
    pub kind: EntryKind,
    /// Its permissions.
    pub permissions: Permissions,
    /// Bytes of a file, or of a link's target; 0 for directories.
    pub size: u64,
    /// When it was last modified.
    pub mtime: UtcTime,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Where its content is; none if it has none (kopia writes an empty name).
    pub object: Option<ObjectId>,
    /// What is below a directory.
    pub summary: Option<Box<Summary>>,
    /// Fields that this version does not know, to be kept.
    pub extra: Option<Box<Map<String, Value>>>,
}
