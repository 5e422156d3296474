//! Listing a directory, and what follows from it.

use std::ops::Range;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::io::Errno;

use super::engine::Engine;
use super::large::LargeTask;
use super::limits::OpenDirectory;
use super::list::{Filter, Kind, Listing, Metadata, open_directory};
use super::names::{AMBIGUOUS, ambiguous};
use super::previous::{self, Known};
use super::rules::Rules;
use super::small::Files;
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
}

/// The directories of a directory that are still to be listed, first one first.
#[derive(Debug)]
pub(super) struct Below {
    directory: Arc<Directory>,
    left: Range<u32>,
}

impl Iterator for Below {
    type Item = DirectoryTask;

    fn next(&mut self) -> Option<DirectoryTask> {
        Some(DirectoryTask {
            parent: Arc::clone(&self.directory),
            index: self.left.next()?,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl ExactSizeIterator for Below {}

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
        let DirectoryTask { parent, index } = task;
        if parent.is_left(index) {
            // Its name was refused.
            return Ok(());
        }
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
            metadata: parent.listing().metadata(entry),
            device,
            attributes,
        };
        let previous = parent.take_previous(index);
        match self.enter(opened, &previous, parent.rules()) {
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
        let mut known = self.wait_for(previous::compare(
            &self.source,
            &listing,
            previous,
            self.plan.verify_reused,
            &|| self.is_stopped(),
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
        let directory = Directory::new(parent, Some(handle), name, metadata, attributes, listing, rules);
        if is_root {
            self.set_root(Arc::clone(&directory));
        }
        if special > 0 {
            self.note_special(&directory)?;
        }
        self.read_attributes_of_unchanged(&directory, &mut known);
        self.add_entries(&directory, known)?;
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
    fn add_entries(&self, directory: &Arc<Directory>, known: Known) -> KopiaResult<()> {
        let listing = directory.listing();
        let refused = ambiguous(listing);
        let Known {
            slots,
            unchanged,
            bytes: unchanged_bytes,
            further,
        } = known;
        self.progress.cached(unchanged as u64, unchanged_bytes);
        let (mut large, mut small) = (Vec::new(), Vec::new());
        let (mut files, mut bytes) = (0, 0);
        let directories = listing.directories();
        for (at, entry) in listing.entries().iter().enumerate().skip(directories) {
            files += 1;
            bytes += entry.size();
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            if slots.is_stored(at) || refused.binary_search(&index).is_ok() {
                continue;
            }
            if entry.size() > self.plan.small && entry.kind() == Kind::File {
                large.push(LargeTask::Open(Arc::clone(directory), index));
            } else {
                small.push(index);
            }
        }
        self.progress.found(files, bytes);
        directory.begin(slots, further);
        for index in refused {
            let error = std::io::Error::new(std::io::ErrorKind::AlreadyExists, AMBIGUOUS);
            self.entry_refused(directory, index, "store", error)?;
        }
        let below = Below {
            directory: Arc::clone(directory),
            left: 0..u32::try_from(directories).unwrap_or(u32::MAX),
        };
        self.work.push_found(large, Files::new(directory, small), below);
        self.entries_done(directory, unchanged + 1)
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
