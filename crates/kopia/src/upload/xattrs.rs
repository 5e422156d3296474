//! Extended attributes of entries, read while the directory is at hand.
//!
//! Of what is open anyway they are read by the descriptor that the data comes from. The rest is reached through the
//! descriptor of its directory below `/proc/self/fd`, and never through a symbolic link.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::list::{Metadata, retry};
use crate::snapshot::{MAX_ATTRIBUTE_BYTES, is_kept, values_json};

/// Enough for most names and values.
const SHORT: usize = 512;

/// All that Linux can have in a list of names or in a value.
const LONG: usize = 64 << 10;

/// The attributes of an open file or directory, as the JSON of their values; none if it has none that are kept.
pub(super) fn of_open(file: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    collect(
        |buffer| rustix::fs::flistxattr(file, buffer),
        |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
    )
}

/// The attributes of an entry that is not open, if it `is` still what it has to be: else they would be kept with the data
/// of another file, and the answer is [`Errno::STALE`].
pub(super) fn of_entry(
    directory: BorrowedFd<'_>,
    name: &CStr,
    is: impl FnOnce(&Metadata) -> bool,
) -> Result<Option<Vec<u8>>, Errno> {
    // One call says that there are none, which is so of nearly all files.
    let path = [below(directory).as_bytes(), b"/", name.to_bytes()].concat();
    if list(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer))?.is_empty() {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = retry(|| rustix::fs::openat(directory, name, flags, Mode::empty()))?;
    let stat = rustix::fs::fstat(&entry)?;
    if !Metadata::new(&stat).as_ref().is_some_and(is) {
        return Err(Errno::STALE);
    }
    // This leads to the entry itself, even if that is a symbolic link.
    let path = below(entry.as_fd());
    collect(
        |buffer| rustix::fs::listxattr(&path, buffer),
        |name, buffer| rustix::fs::getxattr(&path, name, buffer),
    )
}

fn below(descriptor: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn collect(
    names: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    value: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<Option<Vec<u8>>, Errno> {
    let mut values = BTreeMap::new();
    let mut bytes = 0;
    let names = list(names)?;
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(c_name) = CStr::from_bytes_with_nul(name) else {
            return Err(Errno::IO);
        };
        if !is_kept(c_name.to_bytes()) {
            continue;
        }
        let value = match fill(|buffer| value(c_name, buffer)) {
            Ok(value) => value,
            // It was removed meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        };
        bytes += name.len() + value.len();
        if bytes > MAX_ATTRIBUTE_BYTES {
            return Err(Errno::TOOBIG);
        }
        values.insert(c_name.to_bytes().to_vec(), value);
    }
    Ok((!values.is_empty()).then(|| values_json(&values)))
}

/// The names, each with a NUL behind it. A file system without extended attributes has none.
fn list(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    match fill(call) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
        names => names,
    }
}

/// What a call gives, with a longer buffer if the first one is too short.
fn fill(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut short = [0; SHORT];
    match retry(|| call(&mut short)) {
        Ok(length) => Ok(short.get(..length).ok_or(Errno::IO)?.to_vec()),
        Err(Errno::RANGE) => {
            let mut long = vec![0; LONG];
            let length = retry(|| call(&mut long))?;
            long.truncate(length);
            Ok(long)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::XattrFlags;

    use super::*;

    fn set(path: &Path, name: &str, value: &[u8]) {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    }

    fn metadata(directory: &File, name: &CStr) -> Metadata {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        Metadata::new(&rustix::fs::statat(directory, name, flags).unwrap()).unwrap()
    }

    #[test]
    fn both_ways_see_the_same_and_what_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "data").unwrap();
        let directory = File::open(folder.path()).unwrap();
        let opened = File::open(&file).unwrap();
        let file_is = metadata(&directory, c"file");
        let same = |now: &Metadata| *now == file_is;
        assert_eq!(of_open(opened.as_fd()), Ok(None));
        assert_eq!(of_entry(directory.as_fd(), c"file", same), Ok(None));
        // More names than fit into the first buffer, and a value that does not.
        for number in 0..30 {
            set(&file, &format!("user.a-name-that-is-long-{number:03}"), b"x");
        }
        set(&file, "user.long", &[b'y'; 1500]);
        let read = of_open(opened.as_fd()).unwrap().unwrap();
        assert_eq!(of_entry(directory.as_fd(), c"file", same), Ok(Some(read.clone())));
        let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
        assert_eq!(read.as_object().unwrap().len(), 31);
        assert_eq!(read["user.long"].as_str().unwrap().len(), 2000);
        assert_eq!(read["user.a-name-that-is-long-007"], "eA==");
    }

    #[test]
    fn a_link_is_not_followed_and_what_took_the_place_of_an_entry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        fs::write(path("secret"), "").unwrap();
        set(&path("secret"), "user.secret", b"1");
        symlink("secret", path("link")).unwrap();
        let directory = File::open(folder.path()).unwrap();
        let link_is = metadata(&directory, c"link");
        let same = |now: &Metadata| *now == link_is;
        assert_eq!(of_entry(directory.as_fd(), c"link", same), Ok(None));
        // A link's place is taken by a file with attributes.
        fs::rename(path("secret"), path("link")).unwrap();
        assert_eq!(of_entry(directory.as_fd(), c"link", same), Err(Errno::STALE));
        fs::remove_file(path("link")).unwrap();
        assert_eq!(of_entry(directory.as_fd(), c"link", same), Err(Errno::NOENT));
    }
}
