//! The files of the cache.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use super::CacheOptions;
use crate::error::{KopiaError, KopiaResult};

/// The directory beneath the one that is given.
pub(super) const FOLDER: &str = "kopia-blobs";
/// The file that is locked. It says how many bytes there are at most.
pub(super) const LEDGER: &str = "ledger";
/// Begins the names of files that are being written.
pub(super) const UNFINISHED: &str = "unfinished-";
/// Bytes of the code that an entry begins with.
const TAG: usize = blake3::OUT_LEN;
/// Files take whole blocks.
const BLOCK: u64 = 4096;
/// How often the lock is tried for while another process has it, and how long in between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// What an entry is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// All of a blob.
    Whole,
    /// Bytes of a blob.
    Range { offset: u64, length: u64 },
    /// The number of its bytes.
    Size,
}

/// The name of an entry, which tells nothing to those who have no key.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryName(blake3::Hash);

/// A directory of entries, for one repository.
pub(super) struct DiskCache {
    folder: PathBuf,
    limit: u64,
    key: [u8; blake3::KEY_LEN],
    /// The threads of this process take turns: the lock on the ledger is one between processes.
    writing: Mutex<()>,
}

impl DiskCache {
    /// Opens the directory; `secret` is something that only clients of the repository know.
    ///
    /// # Errors
    ///
    /// [`Io`](KopiaError::Io) if the directory or the ledger cannot be made.
    pub(super) fn open(options: &CacheOptions, secret: &[u8]) -> KopiaResult<Self> {
        let this = Self {
            folder: options.directory.join(FOLDER),
            limit: options.limit,
            key: blake3::derive_key("holdfast 2026 disk cache of kopia blobs", secret),
            writing: Mutex::default(),
        };
        let failed = |error: io::Error| KopiaError::io("make the cache", &this.folder, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&this.folder)
            .map_err(failed)?;
        // The limit may be lower than it was, and processes that were killed have left something.
        if let Some(mut ledger) = Ledger::lock(&this.folder).map_err(failed)? {
            let total = this.make_room(0).map_err(failed)?;
            ledger.set(total).map_err(failed)?;
        }
        Ok(this)
    }

    pub(super) fn name(&self, blob: &str, part: Part) -> EntryName {
        let part = match part {
            Part::Whole => "whole".to_owned(),
            Part::Range { offset, length } => format!("{length} bytes from {offset}"),
            Part::Size => "size".to_owned(),
        };
        let text = format!("{blob}\n{part}");
        EntryName(blake3::keyed_hash(&self.key, text.as_bytes()))
    }

    /// The bytes of an entry, if it is there, is whole, and has at most `most` bytes.
    pub(super) fn get(&self, name: &EntryName, most: u64) -> Option<Bytes> {
        let path = self.path(name);
        match self.read(&path, name, most) {
            Ok(Some(data)) => return Some(data),
            Ok(None) => {
                tracing::debug!(path = %path.display(), "a damaged entry of the cache is removed");
                // If that fails, it is found damaged again.
                let _ = fs::remove_file(&path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "the cache cannot be read"),
        }
        None
    }

    /// Keeps bytes, if there is room or can be made.
    pub(super) fn put(&self, name: &EntryName, data: &[Bytes]) {
        if let Err(error) = self.write(name, data) {
            tracing::debug!(folder = %self.folder.display(), %error, "the cache cannot be written");
        }
    }

    /// None if the entry is not what was written.
    fn read(&self, path: &Path, name: &EntryName, most: u64) -> io::Result<Option<Bytes>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let Some(length) = length
            .checked_sub(TAG as u64)
            .filter(|length| *length <= most)
            .and_then(|length| usize::try_from(length).ok())
        else {
            return Ok(None);
        };
        let mut tag = [0; TAG];
        let mut data = vec![0; length];
        file.read_exact(&mut tag)?;
        file.read_exact(&mut data)?;
        let data = Bytes::from(data);
        if self.tag(name, std::slice::from_ref(&data)) != tag {
            return Ok(None);
        }
        // What was used last stays longest. If that cannot be noted, it goes earlier.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let _ = futimens(
            &file,
            &Timestamps {
                last_access: now,
                last_modification: now,
            },
        );
        Ok(Some(data))
    }

    fn write(&self, name: &EntryName, data: &[Bytes]) -> io::Result<()> {
        let length: usize = data.iter().map(Bytes::len).sum();
        let cost = on_disk((TAG + length) as u64);
        // What would push everything else out is not kept.
        if cost > self.limit / 4 {
            return Ok(());
        }
        // Nothing is left half done if a thread panics here.
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(name);
        if path.exists() {
            return Ok(());
        }
        let Some(mut ledger) = Ledger::lock(&self.folder)? else {
            return Ok(());
        };
        let mut total = match ledger.total()? {
            Some(total) if total.saturating_add(cost) <= self.limit => total,
            _ => self.make_room(cost)?,
        };
        total = total.saturating_add(cost);
        if total > self.limit {
            return Ok(());
        }
        // Before the bytes are there: a process that is killed now leaves too large a number, never too small a one.
        ledger.set(total)?;
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        file.write_all(&self.tag(name, data))?;
        for piece in data {
            file.write_all(piece)?;
        }
        file.persist(path)?;
        Ok(())
    }

    /// Removes what was used longest ago until there is room for so many bytes, and some more; how many bytes are there
    /// then. To be called with the lock.
    fn make_room(&self, cost: u64) -> io::Result<u64> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata,
                _ => continue,
            };
            if name.starts_with(UNFINISHED) {
                // Who wrote it held the lock, and is gone.
                fs::remove_file(entry.path())?;
            } else if name != LEDGER && blake3::Hash::from_hex(name).is_ok() {
                let used = (metadata.mtime(), metadata.mtime_nsec());
                entries.push((used, on_disk(metadata.len()), entry.path()));
            }
        }
        let mut total: u64 = entries.iter().map(|(_, cost, _)| cost).sum();
        if total.saturating_add(cost) <= self.limit {
            return Ok(total);
        }
        // Some more, so that the next entries need not look for room.
        let wanted = self.limit - self.limit / 8;
        entries.sort_unstable();
        for (_, size, path) in entries {
            if total.saturating_add(cost) <= wanted {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= size,
            }
        }
        Ok(total)
    }

    fn tag(&self, name: &EntryName, data: &[Bytes]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.0.as_bytes());
        for piece in data {
            hasher.update(piece);
        }
        hasher.finalize().into()
    }

    fn path(&self, name: &EntryName) -> PathBuf {
        self.folder.join(name.0.to_hex().as_str())
    }
}

impl std::fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskCache")
            .field("folder", &self.folder)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What a file of so many bytes takes.
fn on_disk(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The file that says how many bytes there are, while it is locked.
struct Ledger(File);

impl Ledger {
    /// Locks it; none if another process has it for long.
    fn lock(folder: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LEDGER))?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// None if it was never written, or is damaged.
    fn total(&self) -> io::Result<Option<u64>> {
        let mut text = [0; 16];
        match self.0.read_exact_at(&mut text, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (total, check) = text.split_at(8);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let (total, check) = (number(total), number(check));
        Ok((total == !check).then_some(total))
    }

    /// The number and its complement.
    fn set(&mut self, total: u64) -> io::Result<()> {
        let text = [total.to_be_bytes(), (!total).to_be_bytes()].concat();
        self.0.write_all_at(&text, 0)
    }
}
