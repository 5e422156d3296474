//! How a backup is made.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::progress::ProgressNumbers;
use crate::compression::HeaderId;
use crate::snapshot::SnapshotManifest;

/// What is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupSource {
    /// A directory and all below it.
    Directory(PathBuf),
    /// The data of a block device (or of a file that holds a volume). In the snapshot it is a directory with one file
    /// that has the device's path as its name, as Velero has it.
    Device(PathBuf),
}

/// What happens to entries that cannot be read: unreadable or vanished ones, those that are not what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The first one ends the backup, as Velero has it.
    #[default]
    FailFast,
    /// They are left out, counted as ignored errors in the snapshot, and listed in the report. If the process or the
    /// machine has run out of descriptors, the backup ends all the same.
    Skip,
}

/// How a backup is made. [`Default`] is what Velero does, with checkpoints more often.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What happens to entries that cannot be read.
    pub errors: ErrorPolicy,
    /// How many of them the report names.
    pub named_errors: usize,
    /// Threads that read, hash and encrypt. 0 is two for each core and at least 16, because so many small files have to be
    /// asked for at a time to keep a cold disk busy.
    pub readers: usize,
    /// Bytes that all of them may hold; less than one piece of a file (8.5 MiB) lets one read after the other.
    pub read_budget: u64,
    /// How often a checkpoint is saved, from which a run that is killed is resumed. At most 45 minutes, as kopia:
    /// what no snapshot refers to may be deleted after a day.
    pub checkpoint_interval: Duration,
    /// Files longer than this are read in sections of this length by several threads, which gives an object of several
    /// (`parallelUploadAboveSize` of kopia's upload policy). None is as the repository's policy says.
    pub parallel_above: Option<u64>,
    /// Whether files that did not change are looked up in the index, and read anew if something is missing there.
    pub verify_reused: bool,
    /// Whether extended attributes (access control lists are such) are kept, and which names are one file. kopia leaves
    /// them alone; [`RestoreOptions::extended_attributes`](crate::restore::RestoreOptions::extended_attributes) brings
    /// them back. Directories that have none are the same objects with and without.
    pub extended_attributes: bool,
    /// Bytes that their values may take until their directories are written, each once for each directory. What exceeds it is
    /// read again when the directory is written.
    pub attribute_budget: u64,
    /// How directories and lists of parts are compressed; none is as the repository's policy says, by default zstd.
    pub metadata_compression: Option<HeaderId>,
    /// Tags of the snapshot.
    pub tags: BTreeMap<String, String>,
    /// Pins of the snapshot.
    pub pins: Vec<String>,
    /// What the snapshot says of itself.
    pub description: String,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            errors: ErrorPolicy::default(),
            named_errors: 100,
            readers: 0,
            read_budget: 16 << 20,
            checkpoint_interval: Duration::from_mins(15),
            parallel_above: None,
            verify_reused: true,
            extended_attributes: false,
            attribute_budget: 8 << 20,
            metadata_compression: None,
            tags: BTreeMap::new(),
            pins: Vec::new(),
            description: String::new(),
        }
    }
}

/// An entry that was left out because it could not be read.
#[derive(Debug)]
pub struct SkippedEntry {
    /// Its path below the root.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// The answer of the operating system.
    pub error: io::Error,
}

/// What a backup did.
#[derive(Debug)]
pub struct BackupReport {
    /// The snapshot, with its id.
    pub snapshot: SnapshotManifest,
    /// The first entries that were left out; [`ProgressNumbers::errors`] says how many there are.
    pub skipped: Vec<SkippedEntry>,
    /// The numbers at the end.
    pub numbers: ProgressNumbers,
    /// How many checkpoints were saved on the way.
    pub checkpoints: u32,
}
