//! The directories that are open: what is known of their entries, and which are still to come.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::budget::{Budget, Share};
use super::limits::OpenDirectory;
use super::list::{Entry, Kind, Listing, Metadata};
use super::rules::Rules;
use super::slots::{Slot, Slots};
use super::summaries::Summaries;
use crate::compression::HeaderId;
use crate::error::KopiaResult;
use crate::object::ObjectId;
use crate::snapshot::{DirEntry, EntryKind, EntryName, FailedEntry, Permissions, Summary, UtcTime};

/// A directory that was listed and is not yet written.
#[derive(Debug)]
pub(super) struct Directory {
    /// The directory above, and which of its entries this is; none for the root.
    parent: Option<(Arc<Directory>, u32)>,
    /// For opening its entries; none if it does not exist as a directory (a block device's).
    handle: Option<OpenDirectory>,
    name: EntryName,
    metadata: Metadata,
    /// Its own extended attributes, as JSON.
    attributes: Option<Vec<u8>>,
    listing: Listing,
    rules: Arc<Rules>,
    results: Mutex<Results>,
    /// Entries still to come, and one until the listing has been gone through.
    remaining: AtomicUsize,
}

/// What is known of the entries.
#[derive(Debug)]
struct Results {
    /// What became of each; nothing before it is known what the older snapshots say.
    slots: Slots,
    /// What else directories that are still to come were in older snapshots, beside what their slots say.
    further: HashMap<u32, Vec<ObjectId>>,
    /// Sizes of files that were not what the listing said.
    sizes: HashMap<u32, u64>,
    /// What is below each directory.
    summaries: Summaries,
    /// The directories below that are open, for checkpoints.
    open: HashMap<u32, Weak<Directory>>,
    /// Extended attributes of files and links.
    attributes: HashMap<u32, Held>,
    /// Those of them that are held, each once: most files of a directory have the same.
    values: HashSet<Arc<[u8]>>,
    /// Room for these.
    room: Option<Share>,
    failures: Failures,
}

/// Extended attributes of an entry until its directory is written.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// Their values, as JSON.
    Here(Arc<[u8]>),
    /// There was no room for them; they are read when the directory is written.
    Later,
}

/// What was kept of an entry that is stored, beside what kopia keeps.
pub(super) struct Kept<'a> {
    /// Which entry of the directory.
    pub(super) index: u32,
    /// Its attributes, if it has any.
    pub(super) held: Option<&'a Held>,
}

/// Entries that are not in the snapshot because they could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// How many.
    pub(super) count: u64,
    /// Some of them.
    pub(super) named: Vec<FailedEntry>,
}

/// Failed entries that are remembered for each directory; the format keeps ten.
const NAMED: usize = 10;

impl Directory {
    /// A directory and its listing. Nothing counts as done before [`Directory::begin`] was called, and
    /// [`Directory::entries_done`] for one more than there are entries.
    pub(super) fn new(
        parent: Option<(Arc<Directory>, u32)>,
        handle: Option<OpenDirectory>,
        name: EntryName,
        metadata: Metadata,
        attributes: Option<Vec<u8>>,
        listing: Listing,
        rules: Arc<Rules>,
    ) -> Arc<Self> {
        let results = Results {
            slots: Slots::default(),
            further: HashMap::new(),
            sizes: HashMap::new(),
            summaries: Summaries::new(listing.directories()),
            open: HashMap::new(),
            attributes: HashMap::new(),
            values: HashSet::new(),
            room: None,
            failures: Failures::default(),
        };
        let remaining = AtomicUsize::new(listing.len() + 1);
        let directory = Arc::new(Self {
            parent,
            handle,
            name,
            metadata,
            attributes,
            listing,
            rules,
            results: Mutex::new(results),
            remaining,
        });
        if let Some((parent, index)) = &directory.parent {
            parent.lock().open.insert(*index, Arc::downgrade(&directory));
        }
        directory
    }

    /// Takes over what older snapshots say of the entries.
    pub(super) fn begin(&self, slots: Slots, further: HashMap<u32, Vec<ObjectId>>) {
        let mut results = self.lock();
        results.slots = slots;
        results.further = further;
    }

    fn lock(&self) -> MutexGuard<'_, Results> {
        // Each change is one assignment.
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory above and which of its entries this is.
    pub(super) fn parent(&self) -> Option<&(Arc<Self>, u32)> {
        self.parent.as_ref()
    }

    /// For opening its entries.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }

    /// Its entries.
    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// How the data of an entry is compressed.
    pub(super) fn compression(&self, index: u32) -> HeaderId {
        let entry = self.entry(index);
        entry.map_or(HeaderId::NONE, |entry| {
            self.rules.compression(self.listing.name(entry), entry.size())
        })
    }

    /// One of its entries.
    pub(super) fn entry(&self, index: u32) -> Option<&Entry> {
        self.listing.entries().get(index as usize)
    }

    /// The rules that hold for its entries.
    pub(super) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// What is known of the directory itself.
    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its own extended attributes, as JSON.
    pub(super) fn attributes(&self) -> Option<&[u8]> {
        self.attributes.as_deref()
    }

    /// Its path below the root; empty for the root.
    pub(super) fn path(&self) -> Vec<u8> {
        match &self.parent {
            None => Vec::new(),
            Some((parent, _)) => {
                let mut path = parent.path();
                append(&mut path, self.name.as_bytes());
                path
            }
        }
    }

    /// The path of an entry below the root.
    pub(super) fn entry_path(&self, index: u32) -> Vec<u8> {
        let mut path = self.path();
        if let Some(entry) = self.entry(index) {
            append(&mut path, self.listing.name(entry));
        }
        path
    }

    /// An entry that is a file or a link is stored; `size` is what was read.
    pub(super) fn stored(&self, index: u32, object: ObjectId, size: u64) {
        let expected = self.entry(index).map(Entry::size);
        let mut results = self.lock();
        if expected != Some(size) {
            results.sizes.insert(index, size);
        }
        results.slots.set(index as usize, Slot::Stored(object));
    }

    /// What a directory below that is still to come was in older snapshots, best one first.
    pub(super) fn take_previous(&self, index: u32) -> Vec<ObjectId> {
        let mut results = self.lock();
        let mut previous = Vec::new();
        if let Slot::Before(object) = results.slots.get(index as usize) {
            results.slots.set(index as usize, Slot::Open);
            previous.push(object);
        }
        previous.extend(results.further.remove(&index).unwrap_or_default());
        previous
    }

    /// Keeps extended attributes of an entry that is stored, or will be; they are JSON.
    pub(super) fn keep_attributes(&self, index: u32, values: Vec<u8>, room: &Arc<Budget>) {
        let mut results = self.lock();
        let known = results.values.get(values.as_slice()).cloned();
        let held = match known {
            Some(values) => Held::Here(values),
            None => match room.try_take(values.len() as u64) {
                None => Held::Later,
                Some(share) => {
                    match &mut results.room {
                        Some(held) => held.merge(share),
                        none => *none = Some(share),
                    }
                    let values: Arc<[u8]> = values.into();
                    results.values.insert(Arc::clone(&values));
                    Held::Here(values)
                }
            },
        };
        results.attributes.insert(index, held);
    }

    /// A directory below is written.
    pub(super) fn written(&self, index: u32, object: ObjectId, summary: Summary) {
        let mut results = self.lock();
        results.open.remove(&index);
        results.summaries.set(index, summary);
        results.slots.set(index as usize, Slot::Stored(object));
    }

    /// An entry is not in the snapshot.
    pub(super) fn left(&self, index: u32, failure: FailedEntry) {
        let mut results = self.lock();
        results.open.remove(&index);
        results.slots.set(index as usize, Slot::Left);
        results.failures.add(failure);
    }

    /// Whether it is known that an entry is not in the snapshot.
    pub(super) fn is_left(&self, index: u32) -> bool {
        self.lock().slots.get(index as usize) == Slot::Left
    }

    /// Something that a snapshot cannot hold was found.
    pub(super) fn left_special(&self, failure: FailedEntry) {
        self.lock().failures.add(failure);
    }

    /// Counts `count` entries as done; whether all are, so that the directory can be written.
    pub(super) fn entries_done(&self, count: usize) -> bool {
        self.remaining.fetch_sub(count, Ordering::AcqRel) == count
    }

    /// The open directories below.
    pub(super) fn open(&self) -> Vec<(u32, Arc<Self>)> {
        let results = self.lock();
        let open = results.open.iter();
        open.filter_map(|(index, directory)| Some((*index, directory.upgrade()?)))
            .collect()
    }

    /// Hands on what is stored, in the order of the listing, and what failed. `instead` has entries for directories that
    /// are still open.
    pub(super) fn for_each_stored(
        &self,
        instead: &HashMap<u32, DirEntry>,
        mut each: impl FnMut(DirEntry, Kept<'_>) -> KopiaResult<()>,
    ) -> KopiaResult<Failures> {
        let results = self.lock();
        for (index, entry) in (0_u32..).zip(self.listing.entries()) {
            let kept = Kept {
                index,
                held: results.attributes.get(&index),
            };
            let Slot::Stored(object) = results.slots.get(index as usize) else {
                if let Some(entry) = instead.get(&index) {
                    each(entry.clone(), kept)?;
                }
                continue;
            };
            let entry = DirEntry {
                size: results.sizes.get(&index).copied().unwrap_or(entry.size()),
                object: Some(object),
                summary: results.summaries.get(index).map(Box::new),
                ..dir_entry(self.listing.name(entry).into(), &self.listing.metadata(entry))
            };
            each(entry, kept)?;
        }
        Ok(results.failures.clone())
    }

    /// The entry of the directory itself, as its parent or the snapshot has it.
    pub(super) fn dir_entry(&self, object: ObjectId, summary: Summary) -> DirEntry {
        DirEntry {
            object: Some(object),
            summary: Some(Box::new(summary)),
            ..dir_entry(self.name.clone(), &self.metadata)
        }
    }
}

/// An entry without object.
pub(super) fn dir_entry(name: EntryName, metadata: &Metadata) -> DirEntry {
    DirEntry {
        name,
        kind: match metadata.kind {
            Kind::Directory => EntryKind::Directory,
            Kind::File => EntryKind::File,
            Kind::Symlink => EntryKind::Symlink,
        },
        permissions: Permissions::from_unix(metadata.mode.into()),
        size: metadata.size,
        mtime: UtcTime::from_nanos(metadata.mtime),
        uid: metadata.uid,
        gid: metadata.gid,
        ..DirEntry::default()
    }
}

impl Failures {
    fn add(&mut self, failure: FailedEntry) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(failure);
        }
    }
}

/// Adds a name to a path.
pub(super) fn append(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
