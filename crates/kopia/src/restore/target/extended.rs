//! Extended attributes, access control lists among them.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::snapshot::is_kept;

/// Extended attributes: values by name.
pub(crate) type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// All that Linux can have in a list of names.
const NAMES: usize = 64 << 10;

/// Where extended attributes are set.
pub(super) enum Place<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// A symlink that is opened as `O_PATH`, by the path that leads to it and not to what it points to.
    Link(String),
}

impl Place<'_> {
    /// The place of a symlink that is opened as `O_PATH`.
    pub(super) fn link(link: BorrowedFd<'_>) -> Self {
        Self::Link(format!("/proc/self/fd/{}", link.as_raw_fd()))
    }

    /// Sets an attribute.
    pub(super) fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::Open(file) => rustix::fs::fsetxattr(file, name, value, flags),
            Self::Link(path) => rustix::fs::setxattr(path, name, value, flags),
        }
    }

    /// Removes an attribute.
    pub(super) fn remove(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(file) => rustix::fs::fremovexattr(file, name),
            Self::Link(path) => rustix::fs::removexattr(path, name),
        }
    }

    /// The names of attributes that there are and that are not wanted: from the file that was there before, or inherited
    /// from the directory. Labels of security modules stay; the target has its own.
    pub(super) fn unwanted(&self, wanted: &Values) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = vec![0; NAMES];
        let length = match self {
            Self::Open(file) => rustix::fs::flistxattr(file, &mut names),
            Self::Link(path) => rustix::fs::listxattr(path, &mut names),
        };
        let length = match length {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
            Err(errno) => return Err(errno),
        };
        let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
        let unwanted = names.filter(|name| {
            let is_label = name.starts_with(b"security.") && *name != b"security.capability";
            is_kept(name) && !is_label && !wanted.contains_key(*name)
        });
        Ok(unwanted.map(<[u8]>::to_vec).collect())
    }
}

/// Whether an attribute says who may do what.
pub(super) fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// Whether an attribute says what programs do with a file, not who may do what: users set those, on files that they may
/// write to.
pub(super) fn is_users(name: &[u8]) -> bool {
    name.starts_with(b"user.")
}
