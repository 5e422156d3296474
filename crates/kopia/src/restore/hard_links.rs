//! Files that had several names: the first one is restored, and the others become names of the same file when it is done.
//!
//! # Memory
//!
//! Of each file of which not all names have come yet, its first path is remembered and about 200 bytes, 16 MiB in all:
//! some 60,000 files with paths of 60 bytes. Names of files beyond that get data of their own. A thousand names may wait
//! for their files to be done.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::target::{Directory, FileIdentity, Values};
use crate::error::{KopiaError, KopiaResult};
use crate::snapshot::{DirEntry, HardLink};

/// What files may take of which not all names have come yet: bytes of a path are counted, and so many for the rest.
const REMEMBERED: usize = 16 << 20;
const OF_EACH: usize = 200;

/// How many names may wait, and bytes of their entries.
const WAITING: usize = 1000;
const WAITING_BYTES: usize = 4 << 20;

/// The first name of a file.
#[derive(Debug)]
pub(super) struct First {
    path: PathBuf,
    /// Which file it became; none if it was not restored.
    outcome: OnceLock<Option<FileIdentity>>,
    changed: Arc<Notify>,
}

/// The first name of a file while it is restored. Whoever drops it without success has failed.
#[derive(Debug)]
pub(super) struct Restoring {
    first: Arc<First>,
    /// Which file was created.
    identity: OnceLock<FileIdentity>,
}

/// What a name is.
pub(super) enum Role {
    /// The first one of its file.
    First(Restoring),
    /// Another one.
    Another(Arc<First>),
    /// There is no room to remember it.
    Forgotten,
}

/// A name that waits until the first one of its file is done.
pub(super) struct Waiting {
    pub(super) first: Arc<First>,
    pub(super) parent: Arc<Directory>,
    pub(super) entry: DirEntry,
    bytes: usize,
}

/// Files of which not all names have come.
pub(super) struct HardLinks {
    files: HashMap<[u8; 16], (Arc<First>, u64)>,
    bytes: usize,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    changed: Arc<Notify>,
    remembered: usize,
}

impl Default for HardLinks {
    fn default() -> Self {
        Self {
            files: HashMap::new(),
            bytes: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            changed: Arc::default(),
            remembered: REMEMBERED,
        }
    }
}

impl HardLinks {
    /// What an entry is that is a name of a file with several.
    pub(super) fn role(
        &mut self,
        entry: &DirEntry,
        values: &Values,
        link: &HardLink,
        path: impl FnOnce() -> PathBuf,
    ) -> Role {
        let key = key(entry, values, link);
        if let Some((first, left)) = self.files.get_mut(&key) {
            let first = Arc::clone(first);
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.files.remove(&key);
                self.bytes = self.bytes.saturating_sub(cost(&first.path));
            }
            return Role::Another(first);
        }
        let path = path();
        if link.names < 2 || self.bytes + cost(&path) > self.remembered {
            return Role::Forgotten;
        }
        self.bytes += cost(&path);
        let first = Arc::new(First {
            path,
            outcome: OnceLock::new(),
            changed: Arc::clone(&self.changed),
        });
        self.files.insert(key, (Arc::clone(&first), link.names - 1));
        Role::First(Restoring {
            first,
            identity: OnceLock::new(),
        })
    }

    /// Has a name wait. `bytes` are about those of its extended attributes.
    pub(super) fn wait(&mut self, first: Arc<First>, parent: Arc<Directory>, entry: DirEntry, bytes: usize) {
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting {
            first,
            parent,
            entry,
            bytes,
        });
    }

    /// Whether so many wait that they must be waited for.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING || self.waiting_bytes >= WAITING_BYTES
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The name that has waited longest, if its file is done.
    pub(super) fn next_ready(&mut self) -> Option<Waiting> {
        let next = self
            .waiting
            .pop_front_if(|next| next.first.outcome.get().is_some())?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(next.bytes);
        Some(next)
    }

    /// Waits until the file is done whose name has waited longest. All of that file must be under way.
    pub(super) async fn until_ready(&self, stop: &CancellationToken) -> KopiaResult<()> {
        let Some(next) = self.waiting.front() else {
            return Ok(());
        };
        while next.first.outcome.get().is_none() {
            // Whoever is done before this is called leaves a permit.
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => return Err(KopiaError::Cancelled),
            }
        }
        Ok(())
    }
}

impl First {
    /// Its path below the root, and which file it is; none if it was not restored.
    pub(super) fn restored(&self) -> Option<(&Path, FileIdentity)> {
        let identity = (*self.outcome.get()?)?;
        Some((&self.path, identity))
    }
}

impl Restoring {
    /// Notes which file was created.
    pub(super) fn created(&self, identity: FileIdentity) {
        // It is created once.
        let _ = self.identity.set(identity);
    }

    /// It is complete.
    pub(super) fn succeeded(&self) {
        let _ = self.first.outcome.set(self.identity.get().copied());
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.first.outcome.get_or_init(|| None);
        self.first.changed.notify_one();
    }
}

fn cost(path: &Path) -> usize {
    path.as_os_str().len() + OF_EACH
}

/// Names of one file have the same data and attributes. If they do not, the file was changed while it was backed up, and
/// each is restored as the snapshot has it.
fn key(entry: &DirEntry, values: &Values, link: &HardLink) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(link.id.as_bytes());
    add(entry
        .object
        .map(|object| object.to_string())
        .unwrap_or_default()
        .as_bytes());
    add(&[u8::from(entry.kind == crate::snapshot::EntryKind::Symlink)]);
    add(&entry.size.to_le_bytes());
    add(&entry.permissions.to_unix().to_le_bytes());
    add(&entry.uid.to_le_bytes());
    add(&entry.gid.to_le_bytes());
    add(&entry.mtime.nanos().to_le_bytes());
    add(&crate::snapshot::values_json(values));
    let mut key = [0; 16];
    hash.finalize_xof().fill(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::EntryName;

    #[test]
    fn files_are_forgotten_when_all_their_names_came_or_there_are_too_many() {
        let values = Values::new();
        let mut links = HardLinks {
            remembered: 2 * (OF_EACH + 5),
            ..HardLinks::default()
        };
        let mut role = |id: &str, names| {
            let entry = DirEntry {
                name: EntryName::from("x"),
                ..DirEntry::default()
            };
            let link = HardLink {
                id: id.to_owned(),
                names,
            };
            let role = links.role(&entry, &values, &link, || "12345".into());
            (role, links.files.len(), links.bytes)
        };
        let (first, ..) = role("a", 3);
        assert!(matches!(first, Role::First(_)));
        assert!(matches!(role("b", 2), (Role::First(_), 2, 410)));
        // There is no room for a third.
        assert!(matches!(role("c", 2), (Role::Forgotten, 2, 410)));
        assert!(matches!(role("a", 3), (Role::Another(_), 2, 410)));
        assert!(matches!(role("a", 3), (Role::Another(_), 1, 205)));
        // More names than the file said it had: the next one begins anew.
        assert!(matches!(role("a", 3), (Role::First(_), 2, 410)));
        assert!(matches!(role("b", 1), (Role::Another(_), 1, 205)));
        // A file that says it has one name is not remembered.
        assert!(matches!(role("d", 1), (Role::Forgotten, 1, 205)));
        let Role::First(restoring) = first else { panic!() };
        let file = Arc::clone(&restoring.first);
        assert!(file.outcome.get().is_none() && file.restored().is_none());
        drop(restoring);
        assert_eq!(file.outcome.get(), Some(&None));
    }
}
