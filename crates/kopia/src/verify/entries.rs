//! Directories and files that are being looked at, and when they are known to be whole.
//!
//! Contents are read later than the directories, by other threads, in any order. So each directory and each file counts
//! what of it is not yet known to be right: that it is looked at to its end, contents that are to be read, files and
//! directories in it. What fails, or is never done, stays in the count. When a count comes to nothing the file or
//! directory is whole, and the directory that it is in counts one less.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::whole::{Digest, Held, Whole};
use crate::snapshot::EntryName;
use crate::tree::add;

/// A directory on the way down.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Self>>,
    name: EntryName,
    depth: u32,
    /// What is remembered if it is whole.
    digest: Option<Digest>,
    /// Set when something is wrong with the directory itself, which is told once.
    failed: AtomicBool,
    open: AtomicU64,
    directories: AtomicU64,
    files: AtomicU64,
    symlinks: AtomicU64,
    bytes: AtomicU64,
    height: AtomicU64,
}

impl Directory {
    pub(super) fn root(digest: Option<Digest>) -> Self {
        Self::new(None, EntryName::default(), 0, digest)
    }

    pub(super) fn below(parent: &Arc<Self>, name: EntryName, digest: Option<Digest>) -> Self {
        add(&parent.open, 1);
        Self::new(
            Some(Arc::clone(parent)),
            name,
            parent.depth.saturating_add(1),
            digest,
        )
    }

    fn new(parent: Option<Arc<Self>>, name: EntryName, depth: u32, digest: Option<Digest>) -> Self {
        Self {
            parent,
            name,
            depth,
            digest,
            failed: AtomicBool::new(false),
            open: AtomicU64::new(1),
            directories: AtomicU64::new(1),
            files: AtomicU64::new(0),
            symlinks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            height: AtomicU64::new(0),
        }
    }

    pub(super) const fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// How many directories it is in.
    pub(super) const fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_os_str());
            at = parent;
        }
        names.into_iter().rev().collect()
    }

    /// Something in it is wrong that is no file or directory of its own here.
    pub(super) fn doubt(&self) {
        add(&self.open, 1);
    }

    /// Something is wrong with it; whether that was not known.
    pub(super) fn fail(&self) -> bool {
        self.doubt();
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// It has these, too.
    pub(super) fn hold(&self, held: Held) {
        let Held {
            directories,
            files,
            symlinks,
            bytes,
            height,
        } = held;
        add(&self.directories, directories);
        add(&self.files, files);
        add(&self.symlinks, symlinks);
        add(&self.bytes, bytes);
        self.height.fetch_max(height, Ordering::Relaxed);
    }

    /// It has a directory that holds these.
    pub(super) fn hold_directory(&self, held: Held) {
        let height = held.height.saturating_add(1);
        self.hold(Held { height, ..held });
    }

    /// One of what is counted is right: of the directory, and if it is whole of the one that it is in, and so on.
    pub(super) fn settle(&self, whole: &Whole) {
        let mut at = self;
        // What others have counted before is seen by who takes the last one away.
        while at.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            let held = at.held();
            if let Some(digest) = at.digest {
                whole.add_directory(digest, held);
            }
            let Some(parent) = &at.parent else { return };
            parent.hold_directory(held);
            at = parent;
        }
    }

    fn held(&self) -> Held {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Held {
            directories: get(&self.directories),
            files: get(&self.files),
            symlinks: get(&self.symlinks),
            bytes: get(&self.bytes),
            height: get(&self.height),
        }
    }
}

/// A file or symlink that is looked at, and of which contents are being read.
#[derive(Debug)]
pub(super) struct File {
    directory: Arc<Directory>,
    name: EntryName,
    /// What is remembered if it is whole.
    digest: Option<Digest>,
    failed: AtomicBool,
    open: AtomicU64,
}

impl File {
    pub(super) fn new(directory: &Arc<Directory>, name: EntryName, digest: Option<Digest>) -> Self {
        add(&directory.open, 1);
        Self {
            directory: Arc::clone(directory),
            name,
            digest,
            failed: AtomicBool::new(false),
            open: AtomicU64::new(1),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join(self.name.as_os_str())
    }

    pub(super) const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether it is the root, which has whatever name, or none.
    pub(super) fn is_root(&self) -> bool {
        self.directory.is_root() && self.name.as_bytes().is_empty()
    }

    /// A content of it is to be read.
    pub(super) fn expect(&self) {
        add(&self.open, 1);
    }

    /// Something is wrong with it; whether that was not known.
    pub(super) fn fail(&self) -> bool {
        add(&self.open, 1);
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// One of what is counted is right.
    pub(super) fn settle(&self, whole: &Whole) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(digest) = self.digest {
                whole.add(digest);
            }
            self.directory.settle(whole);
        }
    }
}
