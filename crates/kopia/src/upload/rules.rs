//! What the repository's policies say about the entries of a directory: which belong to the backup, how they are
//! compressed.
//!
//! Of policies of directories below the root, the file rules and the compression of data are heeded; everything else is
//! as the root's policy has it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::limits::is_exhausted;
use super::list::{Kind, Metadata, retry};
use crate::compression::{self, HeaderId};
use crate::error::{KopiaError, KopiaResult};
use crate::policy::{Candidate, IgnoreRules, Policy, PolicyTree, is_cache_tag};

/// The longest file of ignore rules. A longer one is an error: of a part of it the last rule could be cut to one that
/// leaves out everything.
const MAX_RULES: usize = 1 << 20;

/// Bytes of a cache tag that are read.
const TAG: usize = 64;

/// What holds for the entries of one directory.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    tree: Arc<PolicyTree>,
    /// The policy that holds here: of this directory or the nearest above that has one.
    policy: Arc<Policy>,
    ignore: Arc<IgnoreRules>,
}

impl Rules {
    /// What holds above the root, which is nothing.
    pub(super) fn above_root(tree: Arc<PolicyTree>) -> Arc<Self> {
        Arc::new(Self {
            policy: Arc::new(tree.root().clone()),
            tree,
            ignore: Arc::default(),
        })
    }

    /// The rules for the entries of a directory below the one that these are of; none if the directory says that it is
    /// a cache and the policy takes those for empty. `path` is its path below the root.
    pub(super) fn enter(
        self: &Arc<Self>,
        directory: BorrowedFd<'_>,
        path: &[u8],
    ) -> KopiaResult<Option<Arc<Self>>> {
        let text = String::from_utf8_lossy(path);
        let node = self.tree.directory(&text);
        // kopia asks the nearest policy about caches.
        if let Some(tag) = node.policy.files.cache_tag()
            && is_cache(directory, tag)
                .map_err(|errno| KopiaError::io("look for a cache tag in", OsStr::from_bytes(path), errno))?
        {
            return Ok(None);
        }
        let mut slashed = Vec::with_capacity(path.len() + 1);
        if !path.is_empty() {
            slashed.push(b'/');
            slashed.extend_from_slice(path);
        }
        let mut read = |name: &str| {
            let file = |errno| KopiaError::io("read ignore rules", OsStr::from_bytes(path), errno);
            let data = read_start(directory, name, MAX_RULES + 1).map_err(file)?;
            if data.as_ref().is_some_and(|data| data.len() > MAX_RULES) {
                return Err(KopiaError::Argument {
                    name: "ignore rules",
                    problem: format!("{text}/{name} is longer than {MAX_RULES} bytes"),
                });
            }
            Ok(data)
        };
        let defined = node.defined.then_some(&node.policy.files);
        let ignore = self.ignore.directory(&slashed, defined, &mut read)?;
        if !node.defined && Arc::ptr_eq(&ignore, &self.ignore) {
            return Ok(Some(Arc::clone(self)));
        }
        let policy = if node.defined {
            Arc::new(node.policy.clone())
        } else {
            Arc::clone(&self.policy)
        };
        Ok(Some(Arc::new(Self {
            tree: Arc::clone(&self.tree),
            policy,
            ignore,
        })))
    }

    /// Whether an entry of the directory at `path` is left out; its path is `path`, a slash, its name.
    pub(super) fn excludes(&self, path: &[u8], metadata: &Metadata, same_device: bool) -> bool {
        self.ignore.excludes(&Candidate {
            path,
            directory: metadata.kind == Kind::Directory,
            size: metadata.size,
            same_device,
        })
    }

    /// How the data of a file is compressed.
    pub(super) fn compression(&self, name: &[u8], size: u64) -> HeaderId {
        let name = self.policy.compressor(OsStr::from_bytes(name), size);
        name.map_or(HeaderId::NONE, compression_named)
    }
}

/// A compression by its name in a policy. Those that are only read here become zstd: whoever reads the content sees how
/// it is compressed. kopia does not compress by names it does not know.
pub(super) fn compression_named(name: &str) -> HeaderId {
    match compression::by_name(name) {
        Some(id) if id.is_writable() => id,
        Some(_) => HeaderId::ZSTD,
        None => HeaderId::NONE,
    }
}

/// Whether a directory says that it is a cache. If that cannot be found out for a reason of its own, it is none.
fn is_cache(directory: BorrowedFd<'_>, tag: &str) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = retry(|| rustix::fs::openat(directory, tag, flags, Mode::empty()));
    let start = open.and_then(|file| read_regular(&file, TAG));
    match start {
        Ok(start) => Ok(start.is_some_and(|start| is_cache_tag(&start))),
        Err(errno) if is_exhausted(errno) => Err(errno),
        Err(_) => Ok(false),
    }
}

/// The first bytes of a file of a directory, or of what it links to; none if there is none or it is no file.
fn read_start(directory: BorrowedFd<'_>, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match retry(|| rustix::fs::openat(directory, name, flags, Mode::empty())) {
        Ok(file) => read_regular(&file, limit),
        // No such entry, or a socket.
        Err(Errno::NOENT | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn read_regular(file: &OwnedFd, limit: usize) -> Result<Option<Vec<u8>>, Errno> {
    if FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut data = vec![0; limit];
    let mut length = 0;
    while let Some(free) = data.get_mut(length..).filter(|free| !free.is_empty()) {
        match retry(|| rustix::io::pread(file.as_fd(), &mut *free, length as u64))? {
            0 => break,
            read => length += read,
        }
    }
    data.truncate(length);
    Ok(Some(data))
}
