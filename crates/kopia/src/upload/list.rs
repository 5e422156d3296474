//! What a directory holds: names and metadata, compactly and in the order of the format.
//!
//! Everything is looked up relative to the descriptor of the directory and never through a symbolic link, so that
//! nothing outside the tree is read, whatever is renamed meanwhile.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

/// Bytes that one `getdents64` may fill.
const DIRENT_BUFFER: usize = 32 << 10;

/// Entries between two looks at whether to go on.
const ENTRIES_PER_CHECK: usize = 256;

/// What a snapshot can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What is known about an entry without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// What it is.
    pub(super) kind: Kind,
    /// Permissions, set-user-id, set-group-id and sticky: the low twelve bits of `st_mode`.
    pub(super) mode: u16,
    /// The owner.
    pub(super) uid: u32,
    /// The owning group.
    pub(super) gid: u32,
    /// Bytes; of a directory 0, as kopia has it.
    pub(super) size: u64,
    /// Time of the last modification, in nanoseconds since 1970.
    pub(super) mtime: i64,
}

impl Metadata {
    /// From what the kernel says; none for devices, sockets and pipes.
    pub(super) fn new(stat: &Stat) -> Option<Self> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            _ => return None,
        };
        let size = if kind == Kind::Directory { 0 } else { stat.st_size };
        Some(Self {
            kind,
            mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(size).unwrap_or_default(),
            mtime: nanoseconds(stat),
        })
    }
}

/// The modification time as one number. A time before 1678 or after 2262 does not fit and becomes the nearest that does.
fn nanoseconds(stat: &Stat) -> i64 {
    let fraction = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction)
}

/// An entry of a directory: 32 bytes, because a directory may have a million.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    name_at: u32,
    name_length: u16,
    /// The low twelve bits are the mode, those above the kind.
    kind_and_mode: u16,
    /// Files are read in this order, which is about that of the disk.
    pub(super) order: u32,
    /// Where in the list of owners.
    owner: u32,
    size: u64,
    mtime: i64,
}

/// Bits of the mode.
const MODE: u16 = 0o7777;

impl Entry {
    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        match self.kind_and_mode & !MODE {
            DIRECTORY => Kind::Directory,
            SYMLINK => Kind::Symlink,
            _ => Kind::File,
        }
    }

    /// Bytes; of a directory 0.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// The kinds above the bits of the mode; a file has none of these.
const DIRECTORY: u16 = 1 << 12;
const SYMLINK: u16 = 2 << 12;

/// The owners of entries, each once: 4 bytes for each entry instead of 8.
#[derive(Debug, Default)]
struct Owners {
    all: Vec<(u32, u32)>,
    /// Where each is; only while the directory is being read.
    places: HashMap<(u32, u32), u32>,
}

impl Owners {
    /// Where an owner is; it is added if it is new.
    fn place(&mut self, owner: (u32, u32)) -> Result<u32, Errno> {
        if let Some(place) = self.places.get(&owner) {
            return Ok(*place);
        }
        let place = u32::try_from(self.all.len()).map_err(|_| Errno::OVERFLOW)?;
        self.all.push(owner);
        self.places.insert(owner, place);
        Ok(place)
    }
}

/// Which file an entry is one of several names of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkedFile {
    /// Number of the file system.
    pub(super) device: u64,
    /// Number of the inode.
    pub(super) inode: u64,
    /// How many names it has.
    pub(super) names: u64,
}

impl LinkedFile {
    /// None for what has one name, and for directories.
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types differ by architecture"
    )]
    fn new(stat: &Stat, kind: Kind) -> Option<Self> {
        (kind != Kind::Directory && stat.st_nlink > 1).then_some(Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            names: stat.st_nlink as u64,
        })
    }
}

/// The entries of a directory: directories first, then the rest, each by the bytes of the name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The names, each with a NUL behind it.
    names: Vec<u8>,
    entries: Vec<Entry>,
    owners: Owners,
    directories: usize,
    /// Files with several names, by where the name is.
    linked: HashMap<u32, LinkedFile>,
    /// What a snapshot cannot hold: devices, sockets, pipes.
    pub(super) special: Vec<Vec<u8>>,
}

/// What decides about an entry before it is taken.
pub(super) trait Filter {
    /// Whether an entry with this name belongs to the snapshot. `device` is that of the entry.
    fn keep(&mut self, name: &[u8], metadata: &Metadata, device: u64) -> bool;

    /// Whether it matters which names are one file.
    fn wants_links(&self) -> bool;

    /// Whether to stop listing: the caller does not want the result any more.
    fn stopped(&self) -> bool;
}

impl Listing {
    /// Reads a directory. Entries that vanish meanwhile are left out, as kopia does.
    pub(super) fn read(directory: BorrowedFd<'_>, filter: &mut dyn Filter) -> Result<Self, Errno> {
        let mut listing = Self::default();
        let mut found = listing.read_names(directory)?;
        // Inodes of one block are then looked up one after the other: on a cold cache half the reads.
        found.sort_unstable();
        listing.entries.reserve_exact(found.len());
        for (index, &(_, name_at, name_length)) in found.iter().enumerate() {
            if index % ENTRIES_PER_CHECK == 0 && filter.stopped() {
                return Err(Errno::CANCELED);
            }
            let name = c_name(&listing.names, name_at, name_length);
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let Some(metadata) = Metadata::new(&stat) else {
                listing.special.push(name.to_bytes().to_vec());
                continue;
            };
            if filter.keep(name.to_bytes(), &metadata, stat.st_dev) {
                if let Some(linked) = LinkedFile::new(&stat, metadata.kind)
                    && filter.wants_links()
                {
                    listing.linked.insert(name_at, linked);
                }
                listing.add((name_at, name_length), index, &metadata)?;
            }
        }
        drop(found);
        listing.names.shrink_to_fit();
        listing.entries.shrink_to_fit();
        listing.owners.places = HashMap::new();
        listing.sort();
        Ok(listing)
    }

    /// One file with this name, for what is no directory.
    pub(super) fn of_one(name: &[u8], metadata: &Metadata) -> Result<Self, Errno> {
        let length = u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        let mut listing = Self {
            names: name.to_vec(),
            ..Self::default()
        };
        listing.names.push(0);
        listing.add((0, length), 0, metadata)?;
        Ok(listing)
    }

    fn add(
        &mut self,
        (name_at, name_length): (u32, u16),
        order: usize,
        metadata: &Metadata,
    ) -> Result<(), Errno> {
        let kind = match metadata.kind {
            Kind::Directory => DIRECTORY,
            Kind::File => 0,
            Kind::Symlink => SYMLINK,
        };
        self.entries.push(Entry {
            name_at,
            name_length,
            kind_and_mode: kind | (metadata.mode & MODE),
            order: u32::try_from(order).map_err(|_| Errno::OVERFLOW)?,
            owner: self.owners.place((metadata.uid, metadata.gid))?,
            size: metadata.size,
            mtime: metadata.mtime,
        });
        Ok(())
    }

    /// Reads the names only; the result says inode, place and length of each.
    fn read_names(&mut self, directory: BorrowedFd<'_>) -> Result<Vec<(u64, u32, u16)>, Errno> {
        let mut buffer: Box<[MaybeUninit<u8>]> = Box::new_uninit_slice(DIRENT_BUFFER);
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let place = u32::try_from(self.names.len()).map_err(|_| Errno::OVERFLOW)?;
            let length = u16::try_from(name.to_bytes().len()).map_err(|_| Errno::NAMETOOLONG)?;
            self.names.extend_from_slice(name.to_bytes_with_nul());
            found.push((entry.ino(), place, length));
        }
        Ok(found)
    }

    fn sort(&mut self) {
        let names = &self.names;
        let key = |entry: &Entry| {
            let name = name(names, entry.name_at, entry.name_length);
            (entry.kind() != Kind::Directory, name)
        };
        self.entries.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        self.directories = self
            .entries
            .partition_point(|entry| entry.kind() == Kind::Directory);
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them are directories; those are the first.
    pub(super) fn directories(&self) -> usize {
        self.directories
    }

    /// The entries in order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What is known about an entry.
    pub(super) fn metadata(&self, entry: &Entry) -> Metadata {
        let owner = self.owners.all.get(entry.owner as usize);
        let (uid, gid) = owner.copied().unwrap_or_default();
        Metadata {
            kind: entry.kind(),
            mode: entry.kind_and_mode & MODE,
            uid,
            gid,
            size: entry.size,
            mtime: entry.mtime,
        }
    }

    /// The name of an entry.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        name(&self.names, entry.name_at, entry.name_length)
    }

    /// The name of an entry for a system call.
    pub(super) fn c_name(&self, entry: &Entry) -> &CStr {
        c_name(&self.names, entry.name_at, entry.name_length)
    }

    /// Which file an entry is a name of, if it has several and that matters.
    pub(super) fn linked(&self, entry: &Entry) -> Option<LinkedFile> {
        self.linked.get(&entry.name_at).copied()
    }

    /// Looks for an entry, by what it is and what it is called.
    pub(super) fn find(&self, directory: bool, wanted: &[u8]) -> Option<usize> {
        let (from, among) = if directory {
            (0, self.entries.get(..self.directories)?)
        } else {
            (self.directories, self.entries.get(self.directories..)?)
        };
        let found = among.binary_search_by(|entry| self.name(entry).cmp(wanted));
        found.ok().map(|index| from + index)
    }
}

fn name(names: &[u8], at: u32, length: u16) -> &[u8] {
    let from = at as usize;
    names.get(from..from + usize::from(length)).unwrap_or_default()
}

fn c_name(names: &[u8], at: u32, length: u16) -> &CStr {
    let from = at as usize;
    let bytes = names.get(from..=from + usize::from(length)).unwrap_or_default();
    // Names are kept as the kernel gave them, so there is a NUL and only one.
    CStr::from_bytes_with_nul(bytes).unwrap_or_default()
}

/// Opens a directory below another one, itself and not what a symbolic link points to.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(parent, name, flags, Mode::empty()))
}

/// Opens a regular file of a directory for reading. What took its place meanwhile (a pipe, a device, a link) is refused
/// without being waited for.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = retry(|| rustix::fs::openat(parent, name, flags, Mode::empty()))?;
    let stat = rustix::fs::fstat(file.as_fd())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((file, stat)),
        _ => Err(Errno::STALE),
    }
}

/// Repeats a system call that a signal interrupts (network file systems do that).
pub(super) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{lchown, symlink};

    use rustix::fs::statat;

    use super::*;

    struct All;

    impl Filter for All {
        fn keep(&mut self, name: &[u8], _: &Metadata, _: u64) -> bool {
            name != b"unwanted"
        }

        fn wants_links(&self) -> bool {
            true
        }

        fn stopped(&self) -> bool {
            false
        }
    }

    #[test]
    fn entries_come_in_the_order_of_the_format() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a.d", "unwanted", "\n", "é", "Z"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::write(folder.path().join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
        fs::create_dir(folder.path().join("zz")).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        symlink("nowhere", folder.path().join("link")).unwrap();
        // Only root may give files away.
        let _ = lchown(folder.path().join("a.d"), Some(1), Some(2));
        let _ = lchown(folder.path().join("zz"), Some(1), Some(3));
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();

        let directory = fs::File::open(folder.path()).unwrap();
        let listing = Listing::read(directory.as_fd(), &mut All).unwrap();
        let names: Vec<&[u8]> = listing.entries().iter().map(|e| listing.name(e)).collect();
        let expected: [&[u8]; 9] = [
            b"a",
            b"zz",
            b"\n",
            b"Z",
            b"a.d",
            b"b",
            b"link",
            "é".as_bytes(),
            b"\xff\xfe",
        ];
        assert_eq!(names, expected);
        assert_eq!((listing.len(), listing.directories()), (9, 2));
        assert_eq!(listing.special, [b"socket".to_vec()]);
        assert_eq!(listing.find(true, b"zz"), Some(1));
        assert_eq!(listing.find(false, b"zz"), None);
        assert_eq!(listing.find(false, b"a.d"), Some(4));
        let link = &listing.entries()[6];
        assert_eq!((link.kind(), link.size()), (Kind::Symlink, 7));
        assert_eq!(listing.entries()[0].size(), 0);
        for entry in listing.entries() {
            let stat = statat(&directory, listing.c_name(entry), AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert_eq!(Some(listing.metadata(entry)), Metadata::new(&stat));
        }
        assert_eq!(size_of::<Entry>(), 32);
        assert_eq!(listing.c_name(link).to_bytes(), b"link");
    }

    #[test]
    fn what_replaced_a_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/hostname", folder.path().join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let directory = fs::File::open(folder.path()).unwrap();
        assert_eq!(open_file(directory.as_fd(), c"link").err(), Some(Errno::LOOP));
        assert_eq!(open_file(directory.as_fd(), c"pipe").err(), Some(Errno::STALE));
        assert_eq!(
            open_directory(directory.as_fd(), c"link").err(),
            Some(Errno::NOTDIR)
        );
    }
}
