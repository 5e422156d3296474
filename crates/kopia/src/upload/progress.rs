//! Numbers of a backup that is under way.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts while a backup runs; reading it costs next to nothing, so it can be asked at any time from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    found_files: AtomicU64,
    found_bytes: AtomicU64,
    hashed_files: AtomicU64,
    stored_bytes: AtomicU64,
    hashed_bytes: AtomicU64,
    read_bytes: AtomicU64,
    cached_files: AtomicU64,
    cached_bytes: AtomicU64,
    directories: AtomicU64,
    excluded_files: AtomicU64,
    excluded_directories: AtomicU64,
    excluded_bytes: AtomicU64,
    errors: AtomicU64,
    opened_files: AtomicU64,
    with_attributes: AtomicU64,
}

/// The numbers of a [`Progress`] at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressNumbers {
    /// Files and links found so far. When the backup ends, this is all of them.
    pub found_files: u64,
    /// Their bytes, as their metadata says.
    pub found_bytes: u64,
    /// Files that were read and stored (links are not counted, as kopia does).
    pub hashed_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Bytes of data that went through the hash or was known to be zeros, of files and links, unfinished ones included.
    pub hashed_bytes: u64,
    /// Of these, bytes that were read; the rest were holes.
    pub read_bytes: u64,
    /// Files and links taken from an older snapshot without opening them.
    pub cached_files: u64,
    /// Their bytes.
    pub cached_bytes: u64,
    /// Directories listed so far.
    pub directories: u64,
    /// Files left out because rules say so.
    pub excluded_files: u64,
    /// Directories left out because rules say so.
    pub excluded_directories: u64,
    /// Bytes of the files left out.
    pub excluded_bytes: u64,
    /// Entries that could not be read.
    pub errors: u64,
    /// Files that were opened.
    pub opened_files: u64,
    /// Files, links and directories of which extended attributes, or that they are names of one file, were kept.
    pub with_attributes: u64,
}

macro_rules! count {
    ($($(#[$doc:meta])* $name:ident: $($field:ident += $amount:ident),+;)+) => {
        impl Progress {
            $($(#[$doc])*
            pub(super) fn $name(&self $(, $amount: u64)+) {
                $(self.$field.fetch_add($amount, Ordering::Relaxed);)+
            })+
        }
    };
}

count! {
    /// Files were found.
    found: found_files += files, found_bytes += bytes;
    /// Files were taken from an older snapshot.
    cached: cached_files += files, cached_bytes += bytes;
    /// Files were stored.
    stored: hashed_files += files, stored_bytes += bytes;
    /// Data was hashed.
    hashed: hashed_bytes += bytes;
    /// Data was read.
    read: read_bytes += bytes;
    /// Directories were listed.
    listed: directories += count;
    /// Files were left out.
    excluded: excluded_files += files, excluded_bytes += bytes;
    /// Directories were left out.
    excluded_directory: excluded_directories += count;
    /// Entries could not be read.
    failed: errors += count;
    /// Files were opened.
    opened: opened_files += count;
    /// What kopia does not keep was kept of an entry.
    attributes_kept: with_attributes += count;
}

impl Progress {
    /// The numbers now. They are read one after the other, so while threads work they may be off against each other.
    pub fn numbers(&self) -> ProgressNumbers {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressNumbers {
            found_files: get(&self.found_files),
            found_bytes: get(&self.found_bytes),
            hashed_files: get(&self.hashed_files),
            stored_bytes: get(&self.stored_bytes),
            hashed_bytes: get(&self.hashed_bytes),
            read_bytes: get(&self.read_bytes),
            cached_files: get(&self.cached_files),
            cached_bytes: get(&self.cached_bytes),
            directories: get(&self.directories),
            excluded_files: get(&self.excluded_files),
            excluded_directories: get(&self.excluded_directories),
            excluded_bytes: get(&self.excluded_bytes),
            errors: get(&self.errors),
            opened_files: get(&self.opened_files),
            with_attributes: get(&self.with_attributes),
        }
    }
}
