//! What is looked at, entry by entry and content by content.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::entries::{Directory, File};
use super::options::{Share, VerifyProgress};
use super::whole::{Digest, Held, Whole};
use crate::blob::BlobId;
use crate::content::{ContentId, ContentInfo};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, Part, PartStream, decode_part};
use crate::restore::{MAX_DEPTH, check_name};
use crate::snapshot::{DirEntry, EntryKind, ExtendedAttributes};
use crate::tree::{Consumer, Failure, Failures, OnError, Packs, Visitor, Window, add};

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
    whole: Arc<Whole>,
    failures: Failures,
    damaged: Mutex<BTreeMap<BlobId, u64>>,
    listed: usize,
}

impl Checker {
    pub(super) fn new(
        packs: Arc<dyn Packs>,
        progress: Arc<VerifyProgress>,
        whole: Arc<Whole>,
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
            whole,
            failures: Failures::new(on_error, cancel),
            damaged: Mutex::default(),
            listed,
        }
    }

    /// What a directory is called in the memory of what was found whole.
    pub(super) fn digest(&self, directory: &ObjectId) -> Digest {
        self.whole.directory(directory)
    }

    /// Entries with which something is wrong, so far.
    pub(super) fn count(&self) -> u64 {
        self.failures.count()
    }

    /// What was found.
    pub(super) fn finish(&self) -> KopiaResult<(Vec<Failure>, BTreeMap<BlobId, u64>)> {
        let damaged = std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((self.failures.finish()?, damaged))
    }

    fn failed(&self, path: impl FnOnce() -> PathBuf, error: Arc<KopiaError>) {
        if matches!(*error, KopiaError::Cancelled) {
            return;
        }
        self.failures.add(path, error);
        // Of all snapshots of the run, which the failures here are not.
        add(&self.progress.failed, 1);
    }

    /// Notes that something is wrong with a directory itself; once, though a large one is read several times.
    fn directory_failed(&self, directory: &Directory, error: KopiaError) {
        if directory.fail() {
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
        if file.fail() {
            self.failed(|| file.path(), Arc::clone(error));
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
        self.whole.add(self.whole.content(&info.id));
        for Target { file, part } in targets {
            let decoded = match part.filter(|part| part.compressed) {
                Some(part) => decode_part(&part, data.to_vec()).map(drop),
                None => Ok(()),
            };
            match decoded {
                Ok(()) => file.settle(&self.whole),
                Err(error) => self.file_failed(&file, None, &Arc::new(error)),
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
        let depth = parent.depth() + 1;
        let problem = match check_name(entry.name.as_bytes()) {
            Err(problem) => problem,
            Ok(()) if depth > MAX_DEPTH => "it is nested too deeply",
            Ok(()) => {
                let digest = entry.object.map(|object| self.checker.digest(&object));
                if let Some(held) = digest.and_then(|digest| self.known(digest, depth)) {
                    parent.hold_directory(held);
                    return None;
                }
                return Some(Arc::new(Directory::below(parent, entry.name.clone(), digest)));
            }
        };
        parent.doubt();
        let error = Arc::new(damaged(entry, problem));
        self.checker
            .failed(|| parent.path().join(entry.name.as_os_str()), error);
        None
    }

    async fn entry(&mut self, parent: &Arc<Directory>, entry: DirEntry) -> KopiaResult<()> {
        let whole = Arc::clone(&self.checker.whole);
        let object = entry.object.filter(|_| entry.kind == EntryKind::File);
        // What is one content as it is needs no digest of its own.
        let object = object.filter(|object| object.content().is_none() || object.is_compressed());
        let digest = object.map(|object| whole.file(&object, entry.size));
        let file = Arc::new(File::new(parent, entry.name.clone(), digest));
        // What a restore would read of it, with the same function.
        if let Err(error) = ExtendedAttributes::of_entry(&entry) {
            self.checker.file_failed(&file, None, &Arc::new(error));
        }
        match self.check(&file, &entry).await {
            Err(KopiaError::Cancelled) => return Err(KopiaError::Cancelled),
            Err(error) => self.checker.file_failed(&file, None, &Arc::new(error)),
            Ok(()) => {}
        }
        let held = match entry.kind {
            EntryKind::Symlink => Held {
                symlinks: 1,
                ..Held::default()
            },
            _ => Held {
                files: 1,
                bytes: entry.size,
                ..Held::default()
            },
        };
        self.checker.progress.found(held);
        parent.hold(held);
        file.settle(&whole);
        Ok(())
    }

    fn own_attributes(&mut self, directory: &Arc<Directory>, attributes: KopiaResult<ExtendedAttributes>) {
        if let Err(error) = attributes {
            self.checker.directory_failed(directory, error);
        }
    }

    fn repeated(&mut self, directory: &Arc<Directory>, entry: &DirEntry, problem: &'static str) {
        directory.doubt();
        let error = Arc::new(damaged(entry, problem));
        self.checker
            .failed(|| directory.path().join(entry.name.as_os_str()), error);
    }

    fn leave(&mut self, directory: Arc<Directory>) {
        add(&self.checker.progress.directories, 1);
        directory.settle(&self.checker.whole);
    }

    fn unreadable(&mut self, directory: &Arc<Directory>, error: KopiaError) {
        self.checker.directory_failed(directory, error);
    }
}

impl Planner {
    /// What a directory holds that was found whole before, and that could be restored at this depth, too.
    pub(super) fn known(&self, directory: Digest, depth: u32) -> Option<Held> {
        let held = self.checker.whole.known_directory(directory)?;
        if u64::from(depth).saturating_add(held.height) > u64::from(MAX_DEPTH) {
            return None;
        }
        let progress = &self.checker.progress;
        progress.found(held);
        add(&progress.known_directories, held.directories);
        add(&progress.known_files, held.files.saturating_add(held.symlinks));
        Some(held)
    }

    async fn check(&mut self, file: &Arc<File>, entry: &DirEntry) -> KopiaResult<()> {
        if !file.is_root() {
            check_name(entry.name.as_bytes()).map_err(|problem| damaged(entry, problem))?;
        }
        let object = entry.object.ok_or_else(|| damaged(entry, "it has no object"))?;
        if file
            .digest()
            .is_some_and(|digest| self.checker.whole.knows(digest))
        {
            add(&self.checker.progress.known_files, 1);
            return Ok(());
        }
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
        let whole = &self.checker.whole;
        if part.is_none_or(|part| !part.compressed) && whole.knows(whole.content(&id)) {
            return Ok(());
        }
        file.expect();
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
