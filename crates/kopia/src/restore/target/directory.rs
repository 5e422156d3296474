//! Directories: created, held open, reopened safely, given their attributes when everything in them is done.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;

use super::attributes::{self, Applied};
use super::descriptors::Descriptors;
use super::file::FileIdentity;
use super::{AttributePolicy, Attributes, DescriptorSlot, EntryName, Values};
use crate::error::{KopiaError, KopiaResult};
use crate::restore::DeniedAttribute;

/// How deep a tree may be. The shortest path of that depth has the greatest length that Linux knows, so nothing deeper
/// was ever backed up in a usual way, and what walks up a tree by recursion has its limit.
pub(crate) const MAX_DEPTH: u32 = 2048;

/// How a target is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TargetOptions {
    pub(crate) overwrite_files: bool,
    pub(crate) overwrite_directories: bool,
    pub(crate) overwrite_symlinks: bool,
    pub(crate) attributes: AttributePolicy,
    /// How many directories are held open.
    pub(crate) open_directories: usize,
}

/// The directory that a snapshot is restored to.
#[derive(Debug)]
pub(crate) struct Target {
    root: OwnedFd,
    path: PathBuf,
    pub(super) options: TargetOptions,
    open: Descriptors,
    /// Cleared when the kernel, or a seccomp profile, has no `openat2`.
    openat2: AtomicBool,
    /// Entries some of whose attributes the kernel did not permit to set.
    denied: AtomicU64,
    /// The first of these attributes.
    listed: Mutex<Vec<DeniedAttribute>>,
    /// Bytes of extended attributes of directories that are not done.
    extended: AtomicU64,
}

/// How many attributes are listed that could not be set.
const LISTED: usize = 100;

/// Bytes of extended attributes that directories may have which are not done: those above one another, and those whose
/// files are on their way.
const EXTENDED: u64 = 16 << 20;

/// A directory of the target. It is done when nobody but the caller of [`Target::release`] holds it any more.
#[derive(Debug)]
pub(crate) struct Directory {
    parent: Option<Arc<Self>>,
    name: OsString,
    depth: u32,
    /// None if it keeps those that it has.
    attributes: Option<Attributes>,
    /// Known when what is in it is read.
    extended: OnceLock<Values>,
    identity: FileIdentity,
    open: Arc<DescriptorSlot>,
}

impl Directory {
    /// Names from the root down; none for the root itself.
    fn components(&self) -> Vec<&OsString> {
        let mut names = Vec::with_capacity(self.depth as usize);
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        names.reverse();
        names
    }

    /// Where it is, relative to the root.
    pub(crate) fn relative_path(&self) -> PathBuf {
        self.components().into_iter().collect()
    }
}

impl Target {
    /// Opens the root, and creates it with its parents if it is not there.
    pub(crate) fn open(
        path: &Path,
        attributes: Option<Attributes>,
        options: TargetOptions,
    ) -> KopiaResult<(Self, Arc<Directory>)> {
        let fail = |action, error: Errno| KopiaError::io(action, path, error);
        std::fs::create_dir_all(path).map_err(|error| KopiaError::io("create directory", path, error))?;
        // The caller chose the path of the root, so a symlink at this place is meant.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| fail("open", error))?;
        let identity = FileIdentity::of(&rustix::fs::fstat(&root).map_err(|error| fail("inspect", error))?);
        let target = Self {
            root,
            path: path.to_owned(),
            options,
            open: Descriptors::new(options.open_directories),
            openat2: AtomicBool::new(true),
            denied: AtomicU64::new(0),
            listed: Mutex::default(),
            extended: AtomicU64::new(0),
        };
        target.check_may_overwrite(&target.root, path)?;
        let directory = Arc::new(Directory {
            parent: None,
            name: OsString::new(),
            depth: 0,
            attributes,
            extended: OnceLock::new(),
            identity,
            open: Arc::default(),
        });
        Ok((target, directory))
    }

    /// Path of an entry, for messages only.
    pub(crate) fn path_of(&self, directory: &Directory, name: Option<EntryName<'_>>) -> PathBuf {
        let mut path = self.path.join(directory.relative_path());
        if let Some(name) = name {
            path.push(name.as_os_str());
        }
        path
    }

    /// How many entries have attributes that the kernel did not permit to set.
    pub(crate) fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// The first attributes that the kernel did not permit to set.
    pub(crate) fn take_denied(&self) -> Vec<DeniedAttribute> {
        std::mem::take(&mut self.listed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what could not be set of an entry, of which `path` says where it is below the root.
    pub(super) fn count(&self, applied: Applied, path: impl FnOnce() -> PathBuf) {
        if applied.denied.is_empty() {
            return;
        }
        self.denied.fetch_add(1, Ordering::Relaxed);
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() >= LISTED {
            return;
        }
        let path = path();
        listed.extend(
            applied
                .denied
                .into_iter()
                .map(|(attribute, error)| DeniedAttribute {
                    path: path.clone(),
                    attribute,
                    error: std::io::Error::from(error).to_string(),
                }),
        );
    }

    /// Says which extended attributes a directory gets when it is done. The root keeps its own if it keeps the others.
    pub(crate) fn set_extended(&self, directory: &Directory, values: Values) -> KopiaResult<()> {
        if directory.attributes.is_none() || directory.extended.get().is_some() {
            return Ok(());
        }
        let bytes = size(&values);
        if self.extended.fetch_add(bytes, Ordering::Relaxed) + bytes > EXTENDED {
            self.extended.fetch_sub(bytes, Ordering::Relaxed);
            return Err(KopiaError::corrupt(
                "the record of extended attributes",
                format_args!(
                    "directories that are restored at a time have more than {EXTENDED} bytes of them"
                ),
            ));
        }
        if directory.extended.set(values).is_err() {
            self.extended.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Creates a directory, or takes the one that is there.
    pub(crate) fn create_directory(
        &self,
        parent: &Arc<Directory>,
        name: EntryName<'_>,
        attributes: Attributes,
    ) -> KopiaResult<Arc<Directory>> {
        let depth = parent.depth + 1;
        if depth > MAX_DEPTH {
            return Err(KopiaError::corrupt(
                format_args!("directory {}", parent.relative_path().display()),
                "it is nested too deeply",
            ));
        }
        let (descriptor, identity) = self
            .make_directory(parent, name)
            .map_err(|error| error.unwrap_or_io("create directory", || self.path_of(parent, Some(name))))?;
        let directory = Arc::new(Directory {
            parent: Some(Arc::clone(parent)),
            name: name.as_os_str().to_owned(),
            depth,
            attributes: Some(attributes),
            extended: OnceLock::new(),
            identity,
            open: Arc::default(),
        });
        self.open.keep(&directory.open, Arc::new(descriptor));
        Ok(directory)
    }

    fn make_directory(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
    ) -> Result<(OwnedFd, FileIdentity), Failure> {
        let within = self.descriptor(parent)?;
        let existed = match rustix::fs::mkdirat(&within, name.as_os_str(), Mode::RWXU) {
            Ok(()) => false,
            Err(Errno::EXIST) => self.clear_for_directory(&within, parent, name)?,
            Err(error) => return Err(error.into()),
        };
        let directory = open_directory(&within, name)?;
        if existed {
            self.check_may_overwrite(&directory, &self.path_of(parent, Some(name)))?;
        }
        let identity = FileIdentity::of(&rustix::fs::fstat(&directory)?);
        Ok((directory, identity))
    }

    /// Decides about what is in the way of a directory; true if it is a directory.
    fn clear_for_directory(
        &self,
        within: &OwnedFd,
        parent: &Directory,
        name: EntryName<'_>,
    ) -> Result<bool, Failure> {
        match file_type(&look(within, name)?) {
            FileType::Directory => Ok(true),
            FileType::Symlink if self.options.overwrite_symlinks => {
                rustix::fs::unlinkat(within, name.as_os_str(), AtFlags::empty())?;
                rustix::fs::mkdirat(within, name.as_os_str(), Mode::RWXU)?;
                Ok(false)
            }
            _ => Err(self.in_the_way(parent, name, "it exists and is not a directory")),
        }
    }

    pub(super) fn in_the_way(
        &self,
        parent: &Directory,
        name: EntryName<'_>,
        problem: &'static str,
    ) -> Failure {
        KopiaError::TargetExists {
            path: self.path_of(parent, Some(name)),
            problem,
        }
        .into()
    }

    fn check_may_overwrite(&self, directory: &OwnedFd, path: &Path) -> KopiaResult<()> {
        if self.options.overwrite_directories {
            return Ok(());
        }
        let fail = |error: Errno| KopiaError::io("read directory", path, error);
        for entry in rustix::fs::Dir::read_from(directory).map_err(fail)? {
            if !matches!(entry.map_err(fail)?.file_name().to_bytes(), b"." | b"..") {
                return Err(KopiaError::TargetExists {
                    path: path.to_owned(),
                    problem: "it is a directory that is not empty",
                });
            }
        }
        Ok(())
    }

    /// The directory, opened again if it was closed meanwhile.
    pub(super) fn descriptor(&self, directory: &Directory) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(open) = directory.open.get() {
            return Ok(open);
        }
        let descriptor = self.open_beneath(directory)?;
        // Somebody may have put another directory in its place.
        if FileIdentity::of(&rustix::fs::fstat(&descriptor)?) != directory.identity {
            return Err(Errno::STALE);
        }
        let descriptor = Arc::new(descriptor);
        self.open.keep(&directory.open, Arc::clone(&descriptor));
        Ok(descriptor)
    }

    fn open_beneath(&self, directory: &Directory) -> Result<OwnedFd, Errno> {
        self.open_names(&directory.components(), DIRECTORY)
    }

    /// Opens what these names lead to, from the root down and never through a symlink.
    pub(super) fn open_names(&self, names: &[&OsString], flags: OFlags) -> Result<OwnedFd, Errno> {
        if names.is_empty() {
            return self
                .root
                .try_clone()
                .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error));
        }
        if self.openat2.load(Ordering::Relaxed) {
            let path: PathBuf = names.iter().collect();
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Docker's seccomp profile answered PERM to calls that it did not know; step by step tells apart.
                Err(Errno::NOSYS | Errno::PERM) => self.openat2.store(false, Ordering::Relaxed),
                // The path is too long for one call, or was in motion.
                Err(Errno::NAMETOOLONG | Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        let mut at: Option<OwnedFd> = None;
        for (number, name) in names.iter().enumerate() {
            // Names were judged when something was created by them.
            let within = at.as_ref().unwrap_or(&self.root);
            let flags = if number + 1 == names.len() {
                flags
            } else {
                DIRECTORY
            };
            at = Some(rustix::fs::openat(within, *name, flags, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }

    /// Gives up a hold on a directory. The last one to do so sets its attributes, and those of the directories above it
    /// that nobody else holds.
    pub(crate) fn release(&self, directory: Arc<Directory>, mut on_error: impl FnMut(PathBuf, KopiaError)) {
        let mut next = Some(directory);
        while let Some(mut directory) = next.and_then(Arc::into_inner) {
            if let Err(error) = self.finish(&directory) {
                let path = self.path_of(&directory, None);
                on_error(
                    directory.relative_path(),
                    KopiaError::io("set the attributes of", path, error),
                );
            }
            if let Some(values) = directory.extended.get() {
                self.extended.fetch_sub(size(values), Ordering::Relaxed);
            }
            next = directory.parent.take();
        }
    }

    fn finish(&self, directory: &Directory) -> Result<(), Errno> {
        if let Some(attributes) = &directory.attributes {
            let descriptor = self.descriptor(directory)?;
            let extended = directory.extended.get();
            let applied = attributes::apply(self.options.attributes, &descriptor, attributes, extended)?;
            self.count(applied, || directory.relative_path());
        }
        Ok(())
    }

    /// Writes everything of the file system of the target to its disk.
    pub(crate) fn sync(&self) -> KopiaResult<()> {
        rustix::fs::syncfs(&self.root).map_err(|error| KopiaError::io("sync", &self.path, error))
    }

    #[cfg(test)]
    pub(super) fn without_openat2(self) -> Self {
        self.openat2.store(false, Ordering::Relaxed);
        self
    }
}

/// A failed call, or an error that says more.
#[derive(Debug)]
pub(super) enum Failure {
    Call(Errno),
    Told(KopiaError),
}

impl Failure {
    /// The error, with the path and action for a bare failed call.
    pub(super) fn unwrap_or_io(self, action: &'static str, path: impl FnOnce() -> PathBuf) -> KopiaError {
        match self {
            Self::Call(error) => KopiaError::io(action, path(), error),
            Self::Told(error) => error,
        }
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Call(error)
    }
}

impl From<KopiaError> for Failure {
    fn from(error: KopiaError) -> Self {
        Self::Told(error)
    }
}

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Bytes of names and values.
fn size(values: &Values) -> u64 {
    let bytes = values.iter().map(|(name, value)| name.len() + value.len());
    bytes.sum::<usize>() as u64
}

/// Opens a directory by its one name, never through a symlink.
fn open_directory(within: impl AsFd, name: EntryName<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(within, name.as_os_str(), DIRECTORY, Mode::empty())
}

/// What has this name, symlinks not followed.
pub(super) fn look(within: impl AsFd, name: EntryName<'_>) -> Result<Stat, Errno> {
    rustix::fs::statat(within, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}
