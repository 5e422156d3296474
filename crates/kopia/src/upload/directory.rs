//! Listing a directory, and what follows from it.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::io::Errno;

use super::engine::Engine;
use super::large::LargeTask;
use super::limits::OpenDirectory;
use super::list::{Filter, Kind, Listing, Metadata, open_directory};
use super::previous::{self, Known};
use super::rules::Rules;
use super::small::{FILES_PER_TASK, FilesTask};
use super::tree::Directory;
use crate::error::{KopiaError, KopiaResult};
use crate::object::ObjectId;
use crate::snapshot::EntryName;

/// A directory that is to be listed.
#[derive(Debug)]
pub(super) struct DirectoryTask {
    /// The directory above.
    pub(super) parent: Arc<Directory>,
    /// Which of its entries.
    pub(super) index: u32,
    /// What it was in older snapshots, best first.
    pub(super) previous: Vec<ObjectId>,
    /// The rules that hold for what is in the directory above.
    pub(super) rules: Arc<Rules>,
}

/// A directory that was opened.
pub(super) struct Opened {
    /// The directory above and which of its entries; none for the root.
    pub(super) parent: Option<(Arc<Directory>, u32)>,
    /// The open directory.
    pub(super) handle: OpenDirectory,
    /// Its name.
    pub(super) name: EntryName,
    /// What is known of it.
    pub(super) metadata: Metadata,
    /// Number of the file system it is on.
    pub(super) device: u64,
    /// Its extended attributes, as JSON.
    pub(super) attributes: Option<Vec<u8>>,
}

impl Engine {
    /// Lists a directory.
    pub(super) fn list(&self, task: DirectoryTask) -> KopiaResult<()> {
        let DirectoryTask {
            parent,
            index,
            previous,
            rules,
        } = task;
        let failed = |action, errno| self.entry_failed(&parent, index, action, errno);
        let (Some(above), Some(entry)) = (parent.handle(), parent.entry(index)) else {
            return failed("open", Errno::NOENT);
        };
        let handle = match open_directory(above, parent.listing().c_name(entry)) {
            Ok(handle) => self.open_directories.hold(handle),
            Err(errno) => return failed("open directory", errno),
        };
        let device = match rustix::fs::fstat(&handle) {
            Ok(stat) => stat.st_dev,
            Err(errno) => return failed("look at directory", errno),
        };
        let attributes = self.own_attributes(handle.as_fd(), || parent.entry_path(index))?;
        let opened = Opened {
            parent: Some((Arc::clone(&parent), index)),
            handle,
            name: parent.listing().name(entry).into(),
            metadata: entry.metadata,
            device,
            attributes,
        };
        match self.enter(opened, &previous, &rules) {
            Err(Trouble::Source(errno)) => failed("list directory", errno),
            Err(Trouble::Repository(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Lists a directory that was opened, and adds what is in it to the work.
    pub(super) fn enter(
        &self,
        opened: Opened,
        previous: &[ObjectId],
        above: &Arc<Rules>,
    ) -> Result<(), Trouble> {
        let path = match &opened.parent {
            Some((parent, index)) => parent.entry_path(*index),
            None => Vec::new(),
        };
        self.progress.listed(1);
        let handle = opened.handle.as_fd();
        let (listing, rules) = if let Some(rules) = above.enter(handle, &path).map_err(Trouble::with_rules)? {
            let mut filter = Wanted {
                engine: self,
                rules: &rules,
                path: slashed(&path),
                device: opened.device,
            };
            (
                Listing::read(handle, &mut filter).map_err(Trouble::Source)?,
                rules,
            )
        } else {
            self.progress.excluded_directory(1);
            (Listing::default(), Arc::clone(above))
        };
        let mut known = self.runtime.block_on(previous::compare(
            &self.source,
            &listing,
            previous,
            self.plan.verify_reused,
        ))?;
        let special = listing.special.len();
        let Opened {
            parent,
            handle,
            name,
            metadata,
            attributes,
            ..
        } = opened;
        let is_root = parent.is_none();
        let directory = Directory::new(
            parent,
            Some(handle),
            name,
            metadata,
            attributes,
            listing,
            Arc::clone(&rules),
        );
        if is_root {
            self.set_root(Arc::clone(&directory));
        }
        if special > 0 {
            self.note_special(&directory)?;
        }
        self.read_attributes_of_unchanged(&directory, &mut known);
        self.add_entries(&directory, known, &rules)?;
        Ok(())
    }

    /// Devices, sockets and pipes are left out without a word, unless the policy wants to know.
    fn note_special(&self, directory: &Arc<Directory>) -> KopiaResult<()> {
        if self.plan.ignored.unknown_types {
            return Ok(());
        }
        directory
            .listing()
            .special
            .iter()
            .try_for_each(|name| self.special_failed(directory, name))
    }

    /// Counts what is unchanged as done and adds the rest to the work.
    fn add_entries(&self, directory: &Arc<Directory>, known: Known, rules: &Arc<Rules>) -> KopiaResult<()> {
        let listing = directory.listing();
        let mut is_done = vec![false; listing.len()];
        for (index, _) in &known.unchanged {
            if let Some(done) = is_done.get_mut(*index as usize) {
                *done = true;
            }
        }
        let done = known.unchanged.len();
        self.progress.cached(done as u64, known.bytes);
        directory.reused(known.unchanged);

        let below = known.below.into_iter().chain(std::iter::repeat(Vec::new()));
        let directories = (0_u32..).zip(below).take(listing.directories());
        let directories = directories.map(|(index, previous)| DirectoryTask {
            parent: Arc::clone(directory),
            index,
            previous,
            rules: Arc::clone(rules),
        });
        let (mut large, mut small) = (Vec::new(), Vec::new());
        let (mut files, mut bytes) = (0, 0);
        for (index, (entry, is_done)) in (0_u32..).zip(listing.entries().iter().zip(is_done)) {
            if entry.metadata.kind == Kind::Directory {
                continue;
            }
            files += 1;
            bytes += entry.metadata.size;
            if is_done {
                continue;
            }
            if entry.metadata.size > self.plan.small && entry.metadata.kind == Kind::File {
                large.push(LargeTask::Open(Arc::clone(directory), index));
            } else {
                small.push((entry.inode, index));
            }
        }
        self.progress.found(files, bytes);
        // In the order of the disk, more or less.
        small.sort_unstable();
        let tasks = small.chunks(FILES_PER_TASK).map(|chunk| FilesTask {
            directory: Arc::clone(directory),
            entries: chunk.iter().map(|(_, index)| *index).collect(),
        });
        self.work
            .push_found(large, tasks.collect(), directories.collect());
        self.entries_done(directory, done + 1)
    }
}

/// A path as rules have it: with a slash before and, to add names to it, one behind.
fn slashed(path: &[u8]) -> Vec<u8> {
    let mut slashed = vec![b'/'];
    slashed.extend_from_slice(path);
    if !path.is_empty() {
        slashed.push(b'/');
    }
    slashed
}

/// Which entries of a directory belong to the snapshot.
struct Wanted<'a> {
    engine: &'a Engine,
    rules: &'a Rules,
    path: Vec<u8>,
    device: u64,
}

impl Filter for Wanted<'_> {
    fn keep(&mut self, name: &[u8], metadata: &Metadata, device: u64) -> bool {
        let above = self.path.len();
        self.path.extend_from_slice(name);
        let excluded = self.rules.excludes(&self.path, metadata, device == self.device);
        self.path.truncate(above);
        if excluded && metadata.kind == Kind::Directory {
            self.engine.progress.excluded_directory(1);
        } else if excluded {
            self.engine.progress.excluded(1, metadata.size);
        }
        !excluded
    }

    fn wants_links(&self) -> bool {
        self.engine.plan.extended_attributes
    }

    fn stopped(&self) -> bool {
        self.engine.is_stopped()
    }
}

/// Why a directory could not be entered.
pub(super) enum Trouble {
    /// The directory.
    Source(Errno),
    /// The repository.
    Repository(KopiaError),
}

impl Trouble {
    /// Ignore rules that cannot be read are a trouble with the directory.
    fn with_rules(error: KopiaError) -> Self {
        let errno = match &error {
            KopiaError::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        };
        errno.map_or(Self::Repository(error), Self::Source)
    }
}

impl From<KopiaError> for Trouble {
    fn from(error: KopiaError) -> Self {
        Self::Repository(error)
    }
}
