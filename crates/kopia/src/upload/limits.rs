//! Limits of the process: open files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With more open directories, a thread stores the small files it has gathered before it opens another one.
const MANY: usize = 256;

/// Raises the number of files that the process may have open as far as it may, as Go does for kopia. A backup holds the
/// directories open that are on the way to what its threads read, and some hundred more at most, so a deep tree can need
/// more than the customary 1,024. For binaries, at their start.
pub fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Whether an error says that the process or the machine has run out of descriptors. That is no property of the entry
/// that it happened to, so nothing is left out of a backup because of it, whatever the policy.
pub(super) fn is_exhausted(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE)
}

/// Counts the directories that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenDirectories(Arc<AtomicUsize>);

/// An open directory that is counted until it is closed.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    handle: OwnedFd,
    count: OpenDirectories,
}

impl OpenDirectories {
    /// Counts a directory.
    pub(super) fn hold(&self, handle: OwnedFd) -> OpenDirectory {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenDirectory {
            handle,
            count: self.clone(),
        }
    }

    /// Whether so many are open that what keeps them open should be done first.
    pub(super) fn are_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MANY
    }
}

impl AsFd for OpenDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::Relaxed);
    }
}
