//! What is to be restored, entry by entry.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::job::{Job, Kind, Large, Target, attributes};
use super::progress::add;
use super::target::{Directory, EntryName};
use super::writer::Writer;
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, Part, PartStream};
use crate::snapshot::{DirEntry, EntryKind};
use crate::tree::{Visitor, Window};

/// Creates directories and plans files.
pub(super) struct Planner {
    pub(super) writer: Arc<Writer>,
    pub(super) window: Window<Writer>,
    pub(super) source: Arc<dyn ContentSource>,
    pub(super) skip_existing: bool,
}

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
        match self.plan(parent, &entry).await {
            Err(KopiaError::Cancelled) => Err(KopiaError::Cancelled),
            Err(error) => {
                self.failed(parent, &entry, error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
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
    fn failed(&self, parent: &Arc<Directory>, entry: &DirEntry, error: KopiaError) {
        let path = || parent.relative_path().join(entry.name.as_os_str());
        self.writer.failed(path, Arc::new(error));
    }

    /// Plans one entry that is no directory.
    async fn plan(&mut self, parent: &Arc<Directory>, entry: &DirEntry) -> KopiaResult<()> {
        let name = checked(parent, entry)?;
        let object = entry
            .object
            .ok_or_else(|| damaged(parent, entry, "it has no object"))?;
        let (kind, there) = match entry.kind {
            EntryKind::File => (
                object
                    .content()
                    .map_or_else(|| Kind::Large(Large::default()), |_| Kind::Small),
                self.skip_existing
                    && self
                        .writer
                        .target
                        .has_same_file(parent, name, entry.size, attributes(entry).modified),
            ),
            EntryKind::Symlink => (
                Kind::Symlink,
                self.skip_existing && self.writer.target.has_symlink(parent, name),
            ),
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
        let job = Arc::new(Job {
            directory: Arc::clone(parent),
            name: entry.name.clone(),
            attributes: attributes(entry),
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
