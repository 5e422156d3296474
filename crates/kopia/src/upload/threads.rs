//! The threads of a backup.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::directory::{Opened, Trouble};
use super::engine::Engine;
use super::extents::device_length;
use super::large::LargeFile;
use super::list::{Kind, Listing, Metadata, retry};
use super::options::BackupSource;
use super::rules::Rules;
use super::scheduler::{Next, Task};
use super::slots::Slots;
use super::small::Pending;
use super::tree::Directory;
use crate::error::{KopiaError, KopiaResult};
use crate::object::ObjectId;
use crate::snapshot::EntryName;

/// What the first thread begins with.
pub(super) struct Start {
    /// What is backed up.
    pub(super) source: BackupSource,
    /// The name of the root in the snapshot.
    pub(super) name: EntryName,
    /// Roots of older snapshots, best first.
    pub(super) previous: Vec<ObjectId>,
    /// The rules for the root.
    pub(super) rules: Arc<Rules>,
    /// The modification time of what has none, in nanoseconds since 1970.
    pub(super) now: i64,
}

/// Starts the threads.
pub(super) fn start(engine: &Arc<Engine>, start: Start) -> KopiaResult<Vec<JoinHandle<()>>> {
    let mut start = Some(start);
    let mut threads = Vec::with_capacity(engine.plan.readers);
    for number in 0..engine.plan.readers {
        let (engine_of_thread, start) = (Arc::clone(engine), start.take());
        let thread = std::thread::Builder::new()
            .name(format!("backup-{number}"))
            .spawn(move || run(&engine_of_thread, start));
        match thread {
            Ok(thread) => threads.push(thread),
            // Fewer do as well.
            Err(error) if number > 0 => {
                tracing::warn!(%error, threads = number, "fewer threads than wanted");
                break;
            }
            Err(error) => return Err(KopiaError::io("start a thread for", &engine.plan.root, error)),
        }
    }
    Ok(threads)
}

fn run(engine: &Engine, start: Option<Start>) {
    // Whatever ends this thread early, a panic included, ends the backup.
    let guard = EndGuard(engine);
    let result = start.map_or(Ok(()), |start| engine.begin(&start));
    if let Err(error) = result.and_then(|()| work(engine)) {
        engine.end(Err(error));
    }
    drop(guard);
}

struct EndGuard<'a>(&'a Engine);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.end(Err(KopiaError::corrupt(
                "a thread of the backup",
                "it ended too early",
            )));
        }
    }
}

fn work(engine: &Engine) -> KopiaResult<()> {
    let mut pending = Pending::default();
    loop {
        match engine.work.next(pending.is_empty()) {
            Next::Stop => return Ok(()),
            Next::Nothing => pending.store(engine)?,
            Next::Do(Task::Hash(batch)) => engine.store_batch(batch)?,
            Next::Do(Task::Large(task)) => {
                // Their pieces need the room.
                pending.store(engine)?;
                let done = engine.read_large(task);
                engine.work.large_done();
                done?;
            }
            Next::Do(Task::Files(task)) => pending.read(engine, &task)?,
            Next::Do(Task::Directory(task)) => {
                if engine.open_directories.are_many() {
                    // Each file that waits to be stored keeps its directory open.
                    pending.store(engine)?;
                }
                engine.list(task)?;
            }
        }
    }
}

impl Engine {
    /// Opens what is backed up.
    fn begin(&self, start: &Start) -> KopiaResult<()> {
        match &start.source {
            BackupSource::Directory(path) => self.begin_directory(path, start),
            BackupSource::Device(path) => self.begin_device(path, start),
        }
    }

    fn begin_directory(&self, path: &Path, start: &Start) -> KopiaResult<()> {
        let failed = |errno: Errno| KopiaError::io("open directory", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty())).map_err(failed)?;
        let found = rustix::fs::fstat(handle.as_fd()).map_err(failed)?;
        let metadata = Metadata::new(&found).ok_or_else(|| failed(Errno::NOTDIR))?;
        let attributes = self.own_attributes(handle.as_fd(), Vec::new)?;
        let _ = self.root_device.set(found.st_dev);
        let opened = Opened {
            parent: None,
            handle: self.open_directories.hold(handle),
            name: start.name.clone(),
            metadata,
            device: found.st_dev,
            attributes,
        };
        self.enter(opened, &start.previous, &start.rules)
            .map_err(|trouble| match trouble {
                Trouble::Source(Errno::CANCELED) if self.is_stopped() => KopiaError::Cancelled,
                Trouble::Source(errno) => KopiaError::io("list directory", path, errno),
                Trouble::Repository(error) => error,
            })
    }

    fn begin_device(&self, path: &Path, start: &Start) -> KopiaResult<()> {
        let (handle, found, length) =
            open_device(path).map_err(|errno| KopiaError::io("open device", path, errno))?;
        let metadata = |kind, size| Metadata {
            kind,
            mode: 0o777,
            uid: 0,
            gid: 0,
            size,
            mtime: start.now,
        };
        let file = metadata(Kind::File, length);
        self.progress.listed(1);
        self.progress.found(1, length);
        self.progress.opened(1);
        let listing = Listing::of_one(start.name.as_bytes(), &file)
            .map_err(|errno| KopiaError::io("open device", path, errno))?;
        let directory = Directory::new(
            None,
            None,
            start.name.clone(),
            metadata(Kind::Directory, 0),
            None,
            listing,
            Arc::clone(&start.rules),
        );
        directory.begin(Slots::new(1), HashMap::new());
        self.set_root(Arc::clone(&directory));
        // The listing is gone through; what remains is the file.
        self.entries_done(&directory, 1)?;
        self.begin_large(&LargeFile::new(self, directory, 0, (handle, found), length))
    }
}

fn open_device(path: &Path) -> Result<(OwnedFd, Stat, u64), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let handle = retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))?;
    let stat = rustix::fs::fstat(handle.as_fd())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice | FileType::RegularFile => {}
        _ => return Err(Errno::NOTBLK),
    }
    let length = device_length(handle.as_fd())?;
    Ok((handle, stat, length))
}
