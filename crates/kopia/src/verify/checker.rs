//! What is looked at, entry by entry and content by content.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::options::{Share, VerifyProgress};
use crate::blob::BlobId;
use crate::content::{ContentId, ContentInfo};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, Part, PartStream, decode_part};
use crate::restore::{MAX_DEPTH, check_name};
use crate::snapshot::{DirEntry, EntryKind, EntryName, ExtendedAttributes};
use crate::tree::{Consumer, Failure, Failures, OnError, Packs, Visitor, Window, add};

/// A directory on the way down.
#[derive(Debug)]
pub(super) struct Directory {
    parent: Option<Arc<Self>>,
    name: EntryName,
    depth: u32,
    failed: AtomicBool,
}

impl Directory {
    pub(super) fn root() -> Self {
        Self {
            parent: None,
            name: EntryName::default(),
            depth: 0,
            failed: AtomicBool::new(false),
        }
    }

    fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_os_str());
            at = parent;
        }
        names.into_iter().rev().collect()
    }
}

/// A file or symlink of which contents are being read.
#[derive(Debug)]
pub(super) struct File {
    directory: Arc<Directory>,
    name: EntryName,
    failed: AtomicBool,
}

/// A content of a file.
#[derive(Debug)]
pub(super) struct Target {
    file: Arc<File>,
    /// None of symlinks, of which no length is known for sure.
    part: Option<Part>,
}

/// Reads contents, and notes what is wrong.
pub(super) struct Checker {
    packs: Arc<dyn Packs>,
    progress: Arc<VerifyProgress>,
    failures: Failures,
    damaged: Mutex<BTreeMap<BlobId, u64>>,
    listed: usize,
}

impl Checker {
    pub(super) fn new(
        packs: Arc<dyn Packs>,
        progress: Arc<VerifyProgress>,
        on_error: OnError,
        cancel: CancellationToken,
    ) -> Self {
        let listed = match on_error {
            OnError::Stop => 1,
            OnError::Continue { list } => list,
        };
        Self {
            packs,
            progress,
            failures: Failures::new(on_error, cancel),
            damaged: Mutex::default(),
            listed,
        }
    }

    /// What was found.
    pub(super) fn finish(&self) -> KopiaResult<(Vec<Failure>, BTreeMap<BlobId, u64>)> {
        let damaged = std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((self.failures.finish()?, damaged))
    }

    fn failed(&self, path: impl FnOnce() -> PathBuf, error: Arc<KopiaError>) {
        self.failures.add(path, error);
        self.progress
            .failed
            .store(self.failures.count(), Ordering::Relaxed);
    }

    /// Notes that something is wrong with a directory itself; once, though a large one is read several times.
    fn directory_failed(&self, directory: &Directory, error: KopiaError) {
        if !directory.failed.swap(true, Ordering::Relaxed) {
            self.failed(|| directory.path(), Arc::new(error));
        }
    }

    fn file_failed(&self, file: &File, pack: Option<&BlobId>, error: &Arc<KopiaError>) {
        if let Some(pack) = pack {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            if damaged.len() < self.listed || damaged.contains_key(pack) {
                *damaged.entry(pack.clone()).or_default() += 1;
            }
        }
        if !file.failed.swap(true, Ordering::Relaxed) {
            self.failed(
                || file.directory.path().join(file.name.as_os_str()),
                Arc::clone(error),
            );
        }
    }
}

impl Consumer for Checker {
    type Target = Target;

    fn take(&self, info: &ContentInfo, targets: Vec<Target>, data: &[u8]) {
        add(&self.progress.read_contents, 1);
        add(&self.progress.read_bytes, data.len() as u64);
        if let Err(error) = self.packs.check_hash(info, data) {
            self.fail(Some(info), targets, &Arc::new(error));
            return;
        }
        for Target { file, part } in targets {
            let Some(part) = part else { continue };
            if part.compressed
                && let Err(error) = decode_part(&part, data.to_vec())
            {
                self.file_failed(&file, None, &Arc::new(error));
            }
        }
    }

    fn fail(&self, info: Option<&ContentInfo>, targets: Vec<Target>, error: &Arc<KopiaError>) {
        for target in targets {
            self.file_failed(&target.file, info.map(|info| &info.pack), error);
        }
    }
}

/// Goes through directories and looks everything up.
pub(super) struct Planner {
    pub(super) window: Window<Checker>,
    pub(super) checker: Arc<Checker>,
    pub(super) packs: Arc<dyn Packs>,
    pub(super) source: Arc<dyn ContentSource>,
    /// Bytes of each pack that there is.
    pub(super) lengths: Arc<HashMap<BlobId, u64>>,
    pub(super) share: Share,
}

impl Visitor for Planner {
    type Directory = Arc<Directory>;

    fn enter(&mut self, parent: &Arc<Directory>, entry: &DirEntry) -> Option<Arc<Directory>> {
        let depth = parent.depth + 1;
        let problem = match check_name(entry.name.as_bytes()) {
            Err(problem) => problem,
            Ok(()) if depth > MAX_DEPTH => "it is nested too deeply",
            Ok(()) => {
                return Some(Arc::new(Directory {
                    parent: Some(Arc::clone(parent)),
                    name: entry.name.clone(),
                    depth,
                    failed: AtomicBool::new(false),
                }));
            }
        };
        let error = Arc::new(damaged(entry, problem));
        self.checker
            .failed(|| parent.path().join(entry.name.as_os_str()), error);
        None
    }

    async fn entry(&mut self, parent: &Arc<Directory>, entry: DirEntry) -> KopiaResult<()> {
        let file = Arc::new(File {
            directory: Arc::clone(parent),
            name: entry.name.clone(),
            failed: AtomicBool::new(false),
        });
        // What a restore would read of it, with the same function.
        if let Err(error) = ExtendedAttributes::of_entry(&entry) {
            self.checker.file_failed(&file, None, &Arc::new(error));
        }
        match self.check(&file, &entry).await {
            Err(KopiaError::Cancelled) => return Err(KopiaError::Cancelled),
            Err(error) => self.checker.file_failed(&file, None, &Arc::new(error)),
            Ok(()) => {}
        }
        let progress = &self.checker.progress;
        if entry.kind == EntryKind::Symlink {
            add(&progress.symlinks, 1);
        } else {
            add(&progress.files, 1);
            add(&progress.bytes, entry.size);
        }
        Ok(())
    }

    fn own_attributes(&mut self, directory: &Arc<Directory>, attributes: KopiaResult<ExtendedAttributes>) {
        if let Err(error) = attributes {
            self.checker.directory_failed(directory, error);
        }
    }

    fn leave(&mut self, _: Arc<Directory>) {
        add(&self.checker.progress.directories, 1);
    }

    fn unreadable(&mut self, directory: &Arc<Directory>, error: KopiaError) {
        self.checker.directory_failed(directory, error);
    }
}

impl Planner {
    async fn check(&mut self, file: &Arc<File>, entry: &DirEntry) -> KopiaResult<()> {
        // A root has whatever name, which is not used.
        let is_root = file.directory.parent.is_none() && entry.name.as_bytes().is_empty();
        if !is_root {
            check_name(entry.name.as_bytes()).map_err(|problem| damaged(entry, problem))?;
        }
        let object = entry.object.ok_or_else(|| damaged(entry, "it has no object"))?;
        match (entry.kind, object.content()) {
            (EntryKind::File | EntryKind::Symlink, Some(content)) => {
                let part = Part {
                    offset: 0,
                    length: entry.size,
                    content: *content,
                    compressed: object.is_compressed(),
                };
                let part = Some(part).filter(|_| entry.kind == EntryKind::File || part.compressed);
                self.content(file, *content, part).await
            }
            (EntryKind::File, None) => self.parts(file, entry, object).await,
            (EntryKind::Symlink, None) => Err(damaged(entry, "its target is too long")),
            (EntryKind::Directory | EntryKind::Unknown, _) => Err(damaged(
                entry,
                "it is neither a file nor a directory nor a symlink",
            )),
        }
    }

    async fn parts(&mut self, file: &Arc<File>, entry: &DirEntry, object: ObjectId) -> KopiaResult<()> {
        let mut parts = PartStream::open(Arc::clone(&self.source), object).await?;
        let mut end = 0;
        while let Some(part) = parts.next().await? {
            end = part.offset.saturating_add(part.length);
            self.content(file, part.content, Some(part)).await?;
        }
        if end == entry.size {
            Ok(())
        } else {
            Err(damaged(entry, "its object has another length than it has"))
        }
    }

    /// Looks a content up; what is wrong with it is noted, and the other contents of the file are looked up all the same.
    async fn content(&mut self, file: &Arc<File>, id: ContentId, part: Option<Part>) -> KopiaResult<()> {
        add(&self.checker.progress.contents, 1);
        let looked_up = self.packs.info(&id);
        let info = match looked_up {
            Ok(info) => info,
            Err(error) => {
                self.checker.file_failed(file, None, &Arc::new(error));
                return Ok(());
            }
        };
        if let Err(error) = self.location(&info) {
            self.checker.file_failed(file, Some(&info.pack), &Arc::new(error));
            return Ok(());
        }
        if let Some(part) = part.filter(|part| !part.compressed)
            && part.length != u64::from(info.original_length)
        {
            let problem = format_args!(
                "it has {} bytes, its file says {}",
                info.original_length, part.length
            );
            let error = KopiaError::corrupt(format_args!("content {id}"), problem);
            self.checker.file_failed(file, None, &Arc::new(error));
        }
        if !self.share.holds(&id) {
            return Ok(());
        }
        let target = Target {
            file: Arc::clone(file),
            part,
        };
        self.window.add(id, info.original_length.into(), target).await
    }

    /// Whether the pack is there and long enough.
    fn location(&self, info: &ContentInfo) -> KopiaResult<()> {
        let Some(length) = self.lengths.get(&info.pack) else {
            return Err(KopiaError::BlobNotFound {
                blob: info.pack.to_string(),
            });
        };
        let end = info.packed_range().end;
        if end > *length {
            let problem = format_args!("it has {length} bytes, content {} ends at {end}", info.id);
            return Err(KopiaError::corrupt(format_args!("pack {}", info.pack), problem));
        }
        Ok(())
    }
}

fn damaged(entry: &DirEntry, problem: &str) -> KopiaError {
    KopiaError::corrupt(
        format_args!("entry {:?} of a directory of the snapshot", entry.name),
        problem,
    )
}
