//! What is to be restored, entry by entry.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::hard_links::{HardLinks, Restoring, Role, Waiting};
use super::job::{Extended, Job, Kind, Large, Target, attributes};
use super::target::{Directory, EntryName, Values};
use super::writer::Writer;
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, Part, PartStream};
use crate::snapshot::{DirEntry, EntryKind, ExtendedAttributes};
use crate::tree::{Visitor, Window, add};

/// Creates directories and plans files.
pub(super) struct Planner {
    pub(super) writer: Arc<Writer>,
    pub(super) window: Window<Writer>,
    pub(super) source: Arc<dyn ContentSource>,
    pub(super) skip_existing: bool,
    /// Whether extended attributes and hard links are restored.
    pub(super) extended: bool,
    /// Room for extended attributes of files on their way.
    pub(super) room: Arc<Semaphore>,
    pub(super) links: HardLinks,
    pub(super) stop: CancellationToken,
}

/// Extended attributes of files on their way: 8 MiB, in units of a kibibyte.
pub(super) const ROOM: usize = 8 << 10;
const UNIT: usize = 1 << 10;

impl Visitor for Planner {
    type Directory = Arc<Directory>;

    fn enter(&mut self, parent: &Arc<Directory>, entry: &DirEntry) -> Option<Arc<Directory>> {
        let created = checked(parent, entry).and_then(|name| {
            self.writer
                .target
                .create_directory(parent, name, attributes(entry))
        });
        match created {
            Ok(directory) => {
                add(&self.writer.progress.directories, 1);
                Some(directory)
            }
            Err(error) => {
                self.failed(parent, entry, error);
                None
            }
        }
    }

    async fn entry(&mut self, parent: &Arc<Directory>, entry: DirEntry) -> KopiaResult<()> {
        let planned = self.plan(parent, &entry).await;
        self.note(parent, &entry, planned)?;
        self.link_ready().await
    }

    fn own_attributes(&mut self, directory: &Arc<Directory>, attributes: KopiaResult<ExtendedAttributes>) {
        if !self.extended {
            return;
        }
        let set =
            attributes.and_then(|attributes| self.writer.target.set_extended(directory, attributes.values));
        if let Err(error) = set {
            self.unreadable(directory, error);
        }
    }

    fn repeated(&mut self, directory: &Arc<Directory>, entry: &DirEntry, problem: &'static str) {
        self.failed(directory, entry, damaged(directory, entry, problem));
    }

    fn leave(&mut self, directory: Arc<Directory>) {
        self.writer.release(directory);
    }

    fn unreadable(&mut self, directory: &Arc<Directory>, error: KopiaError) {
        let path = directory.relative_path();
        self.writer.failed(|| path, Arc::new(error));
    }
}

impl Planner {
    /// Notes a failure of an entry; only that everything stops is an error then.
    fn note(&self, parent: &Arc<Directory>, entry: &DirEntry, planned: KopiaResult<()>) -> KopiaResult<()> {
        match planned {
            Err(KopiaError::Cancelled) => Err(KopiaError::Cancelled),
            Err(error) => {
                self.failed(parent, entry, error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn failed(&self, parent: &Arc<Directory>, entry: &DirEntry, error: KopiaError) {
        let path = || parent.relative_path().join(entry.name.as_os_str());
        self.writer.failed(path, Arc::new(error));
    }

    /// Plans one entry that is no directory.
    async fn plan(&mut self, parent: &Arc<Directory>, entry: &DirEntry) -> KopiaResult<()> {
        let name = checked(parent, entry)?;
        let target = &self.writer.target;
        let there = match entry.kind {
            EntryKind::File => {
                self.skip_existing
                    && target.has_same_file(parent, name, entry.size, attributes(entry).modified)
            }
            EntryKind::Symlink => self.skip_existing && target.has_symlink(parent, name),
            EntryKind::Directory | EntryKind::Unknown => {
                return Err(damaged(
                    parent,
                    entry,
                    "it is neither a file nor a directory nor a symlink",
                ));
            }
        };
        if there {
            add(&self.writer.progress.skipped, 1);
            add(&self.writer.progress.skipped_bytes, entry.size);
            return Ok(());
        }
        let extended = self.extended_of(parent, entry);
        let path = || parent.relative_path().join(entry.name.as_os_str());
        let role = extended.as_ref().and_then(|extended| {
            let link = extended.link.as_ref()?;
            Some(self.links.role(entry, &extended.values, link, path))
        });
        match role {
            None => self.data(parent, entry, extended, None).await,
            Some(Role::First(first)) => self.data(parent, entry, extended, Some(first)).await,
            Some(Role::Another(first)) => {
                let bytes = extended.map_or(0, |extended| size(&extended.values));
                self.links.wait(first, Arc::clone(parent), entry.clone(), bytes);
                Ok(())
            }
            Some(Role::Forgotten) => {
                add(&self.writer.progress.hard_links_copied, 1);
                self.data(parent, entry, extended, None).await
            }
        }
    }

    /// The extended attributes of an entry. If they are damaged that is noted, and the rest of the entry is restored.
    fn extended_of(&self, parent: &Arc<Directory>, entry: &DirEntry) -> Option<ExtendedAttributes> {
        if !self.extended {
            return None;
        }
        let read = ExtendedAttributes::of_entry(entry);
        read.unwrap_or_else(|error| {
            self.failed(parent, entry, error);
            None
        })
    }

    /// Links names whose files are done. If there are very many, it waits for some.
    async fn link_ready(&mut self) -> KopiaResult<()> {
        while let Some(next) = self.links.next_ready() {
            self.link(next).await?;
        }
        while self.links.is_full() {
            self.link_first().await?;
        }
        Ok(())
    }

    /// Links all names that wait.
    pub(super) async fn link_all(&mut self) -> KopiaResult<()> {
        while !self.links.is_empty() {
            self.link_first().await?;
        }
        Ok(())
    }

    async fn link_first(&mut self) -> KopiaResult<()> {
        // What they wait for must not wait for more to come.
        self.window.submit().await?;
        self.links.until_ready(&self.stop).await?;
        match self.links.next_ready() {
            Some(next) => self.link(next).await,
            None => Ok(()),
        }
    }

    /// Links a name; if that is not possible, it is restored with data of its own.
    async fn link(&mut self, next: Waiting) -> KopiaResult<()> {
        let Waiting {
            first, parent, entry, ..
        } = next;
        let linked = checked(&parent, &entry).and_then(|name| match first.restored() {
            Some((path, identity)) => {
                let target = &self.writer.target;
                target
                    .create_hard_link(path, identity, &parent, name)
                    .map(|()| true)
            }
            None => Ok(false),
        });
        if let Ok(true) = linked {
            let progress = &self.writer.progress;
            add(&progress.hard_links, 1);
            let number = match entry.kind {
                EntryKind::Symlink => &progress.symlinks,
                _ => &progress.files,
            };
            add(number, 1);
        } else {
            if let Err(error) = linked {
                tracing::debug!(%error, "a hard link becomes a file of its own");
            }
            add(&self.writer.progress.hard_links_copied, 1);
            let extended = self.extended_of(&parent, &entry);
            let planned = self.data(&parent, &entry, extended, None).await;
            self.note(&parent, &entry, planned)?;
        }
        self.writer.release(parent);
        Ok(())
    }

    /// Room for extended attributes of a file on its way.
    async fn with_room(&mut self, extended: Option<ExtendedAttributes>) -> KopiaResult<Option<Extended>> {
        let Some(ExtendedAttributes { values, .. }) = extended else {
            return Ok(None);
        };
        let units = u32::try_from(size(&values).div_ceil(UNIT).min(ROOM)).unwrap_or(u32::MAX);
        let room = if units == 0 {
            None
        } else if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
            Some(room)
        } else {
            // Those who have it must not wait for more to come.
            self.window.submit().await?;
            let room = Arc::clone(&self.room).acquire_many_owned(units).await;
            Some(room.map_err(|_| KopiaError::Cancelled)?)
        };
        Ok(Some(Extended { values, _room: room }))
    }

    /// Plans the data of a file or symlink.
    async fn data(
        &mut self,
        parent: &Arc<Directory>,
        entry: &DirEntry,
        extended: Option<ExtendedAttributes>,
        first: Option<Restoring>,
    ) -> KopiaResult<()> {
        let object = entry
            .object
            .ok_or_else(|| damaged(parent, entry, "it has no object"))?;
        let kind = match (entry.kind, object.content()) {
            (EntryKind::Symlink, _) => Kind::Symlink,
            (_, Some(_)) => Kind::Small,
            (_, None) => Kind::Large(Large::default()),
        };
        let job = Arc::new(Job {
            directory: Arc::clone(parent),
            name: entry.name.clone(),
            attributes: attributes(entry),
            extended: self.with_room(extended).await?,
            first,
            size: entry.size,
            kind,
            failed: AtomicBool::new(false),
        });
        if let Some(content) = object.content() {
            let part = Part {
                offset: 0,
                length: entry.size,
                content: *content,
                compressed: object.is_compressed(),
            };
            self.window.add(*content, entry.size, Target { job, part }).await
        } else if matches!(job.kind, Kind::Symlink) {
            Err(damaged(parent, entry, "its target is too long"))
        } else {
            self.parts(job, object).await
        }
    }

    /// Plans all parts of a file.
    async fn parts(&mut self, job: Arc<Job>, object: ObjectId) -> KopiaResult<()> {
        let planned = self.plan_parts(&job, object).await;
        match planned {
            Err(KopiaError::Cancelled) => return Err(KopiaError::Cancelled),
            Err(error) => self.writer.fail_job(&job, &Arc::new(error)),
            Ok(()) => {}
        }
        self.writer.done(job);
        Ok(())
    }

    async fn plan_parts(&mut self, job: &Arc<Job>, object: ObjectId) -> KopiaResult<()> {
        let mut parts = PartStream::open(Arc::clone(&self.source), object).await?;
        let mut end = 0;
        while let Some(part) = parts.next().await? {
            end = part.offset.saturating_add(part.length);
            if end > job.size {
                break;
            }
            let target = Target {
                job: Arc::clone(job),
                part,
            };
            self.window.add(part.content, part.length, target).await?;
        }
        if end == job.size {
            Ok(())
        } else {
            let problem = format_args!("its length is not the {} bytes of its file", job.size);
            Err(KopiaError::corrupt(format_args!("object {object}"), problem))
        }
    }
}

/// Bytes of names and values.
fn size(values: &Values) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn checked<'a>(parent: &Directory, entry: &'a DirEntry) -> KopiaResult<EntryName<'a>> {
    EntryName::new(entry.name.as_bytes()).map_err(|problem| damaged(parent, entry, problem))
}

fn damaged(parent: &Directory, entry: &DirEntry, problem: &str) -> KopiaError {
    let directory = parent.relative_path();
    KopiaError::corrupt(
        format_args!(
            "entry {:?} of directory \"{}\" of the snapshot",
            entry.name,
            directory.display()
        ),
        problem,
    )
}
