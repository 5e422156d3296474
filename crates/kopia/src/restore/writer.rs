//! Writes what contents hold into files.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio_util::sync::CancellationToken;

use super::job::{self, Job, Kind, Large};
use super::progress::RestoreProgress;
use super::target::{Descriptors, Directory, FileIdentity, Target, write_at};
use crate::content::ContentInfo;
use crate::error::{KopiaError, KopiaResult};
use crate::object::decode_part;
use crate::tree::{Consumer, Failures, add};

/// Writes files, on several threads.
pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) files: Descriptors,
    pub(super) sparse: bool,
    pub(super) progress: Arc<RestoreProgress>,
    pub(super) failures: Failures,
    pub(super) cancel: CancellationToken,
}

impl Consumer for Writer {
    type Target = job::Target;

    fn take(&self, _info: &ContentInfo, targets: Vec<job::Target>, data: &[u8]) {
        for target in targets {
            if !target.job.failed.load(Ordering::Relaxed)
                && let Err(error) = self.write(&target, data)
            {
                self.fail_job(&target.job, &Arc::new(error));
            }
            self.done(target.job);
        }
    }

    fn fail(&self, _info: Option<&ContentInfo>, targets: Vec<job::Target>, error: &Arc<KopiaError>) {
        for target in targets {
            self.fail_job(&target.job, error);
            self.done(target.job);
        }
    }
}

impl Writer {
    fn write(&self, target: &job::Target, data: &[u8]) -> KopiaResult<()> {
        let job = &*target.job;
        let name = job
            .checked_name()
            .map_err(|problem| KopiaError::corrupt("a name", problem))?;
        let data = unpacked(target, data)?;
        match &job.kind {
            Kind::Symlink => {
                let (attributes, extended) = (&job.attributes, job.extended());
                let created =
                    self.target
                        .create_symlink(&job.directory, name, &data, attributes, extended)?;
                job.created(created);
                Ok(())
            }
            Kind::Small => {
                let file = self.target.create_file(&job.directory, name)?;
                self.fill(job, &file, 0, &data)?;
                self.finish(job, &file)
            }
            Kind::Large(large) => {
                let file = self.open(job, large)?;
                self.fill(job, &file, target.part.offset, &data)
            }
        }
    }

    /// Writes data into a file that reads as zeros at that place.
    fn fill(&self, job: &Job, file: &OwnedFd, offset: u64, data: &[u8]) -> KopiaResult<()> {
        let fail = |error| KopiaError::io("write", self.path_of(job), error);
        // Without this a file that ends in a hole would end before it. Large files have their size from the beginning.
        if self.sparse && matches!(job.kind, Kind::Small) && data.last() == Some(&0) {
            rustix::fs::ftruncate(file, data.len() as u64).map_err(fail)?;
        }
        write_at(file, data, offset, self.sparse, &self.cancel)
            .map_err(|error| error.at(self.path_of(job)))?;
        add(&self.progress.bytes, data.len() as u64);
        Ok(())
    }

    /// A large file: created by the first part that comes, opened again if it had to be closed meanwhile.
    fn open(&self, job: &Job, large: &Large) -> KopiaResult<Arc<OwnedFd>> {
        if let Some(file) = large.slot.get() {
            return Ok(file);
        }
        let name = job
            .checked_name()
            .map_err(|problem| KopiaError::corrupt("a name", problem))?;
        let fail = |error| KopiaError::io("create", self.path_of(job), error);
        let mut created = large.created.lock().unwrap_or_else(PoisonError::into_inner);
        let file = if let Some(identity) = *created {
            self.target.reopen_file(&job.directory, name, identity)?
        } else {
            let file = self.target.create_file(&job.directory, name)?;
            rustix::fs::ftruncate(&file, job.size).map_err(fail)?;
            *created = Some(FileIdentity::of_open(&file).map_err(fail)?);
            file
        };
        let file = Arc::new(file);
        self.files.keep(&large.slot, Arc::clone(&file));
        Ok(file)
    }

    fn finish(&self, job: &Job, file: &OwnedFd) -> KopiaResult<()> {
        let fail = |error| KopiaError::io("set the attributes of", self.path_of(job), error);
        let name = job
            .checked_name()
            .map_err(|problem| KopiaError::corrupt("a name", problem))?;
        if job.first.is_some() {
            job.created(FileIdentity::of_open(file).map_err(fail)?);
        }
        self.target
            .finish_file((&job.directory, name), file, &job.attributes, job.extended())
            .map_err(fail)
    }

    /// Gives up a hold on a job; the last one finishes it.
    pub(super) fn done(&self, job: Arc<Job>) {
        let Some(job) = Arc::into_inner(job) else { return };
        if let Kind::Large(large) = &job.kind
            && !self.cancel.is_cancelled()
        {
            // What is there of a file with failed parts may be of use, with its attributes.
            let finished = self.open(&job, large).and_then(|file| self.finish(&job, &file));
            if let Err(error) = finished {
                self.fail_job(&job, &Arc::new(error));
            }
        }
        if !job.failed.load(Ordering::Relaxed) {
            let number = match job.kind {
                Kind::Symlink => &self.progress.symlinks,
                Kind::Small | Kind::Large(_) => &self.progress.files,
            };
            add(number, 1);
            if let Some(first) = &job.first
                && !self.cancel.is_cancelled()
            {
                first.succeeded();
            }
        }
        self.release(job.directory);
    }

    /// Notes that a job failed, once.
    pub(super) fn fail_job(&self, job: &Job, error: &Arc<KopiaError>) {
        if !job.failed.swap(true, Ordering::Relaxed) {
            self.failed(|| job.relative_path(), Arc::clone(error));
        }
    }

    /// Notes that an entry failed.
    pub(super) fn failed(&self, path: impl FnOnce() -> PathBuf, error: Arc<KopiaError>) {
        self.failures.add(path, error);
        self.progress
            .failed
            .store(self.failures.count(), Ordering::Relaxed);
    }

    /// Gives up a hold on a directory; the last one sets its attributes.
    pub(super) fn release(&self, directory: Arc<Directory>) {
        // A restore that is given up leaves directories as they are; that saves time, and nobody takes them for done.
        if self.cancel.is_cancelled() {
            return;
        }
        self.target
            .release(directory, |path, error| self.failed(|| path, Arc::new(error)));
    }

    fn path_of(&self, job: &Job) -> PathBuf {
        self.target.path_of(&job.directory, job.checked_name().ok())
    }
}

/// The data that belongs into the file, as long as it must be. Of symlinks the length says nothing.
fn unpacked<'a>(target: &job::Target, data: &'a [u8]) -> KopiaResult<Cow<'a, [u8]>> {
    let fits = data.len() as u64 == target.part.length || matches!(target.job.kind, Kind::Symlink);
    if fits && !target.part.compressed {
        Ok(Cow::Borrowed(data))
    } else {
        decode_part(&target.part, data.to_vec()).map(Cow::Owned)
    }
}
