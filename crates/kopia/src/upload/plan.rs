//! What is decided before a backup starts.

use std::path::PathBuf;

use super::ErrorPolicy;
use crate::compression::HeaderId;
use crate::splitter::Splitter;

/// How a backup is to be made.
pub(super) struct Plan {
    /// The directory or device, for messages.
    pub(super) root: PathBuf,
    /// Threads that list, read and hash.
    pub(super) readers: usize,
    /// How many of them may read large files at the same time.
    pub(super) large_readers: usize,
    /// Bytes that all of them may hold.
    pub(super) read_budget: u64,
    /// Where directories and lists are cut.
    pub(super) splitter: Splitter,
    /// Where files are cut.
    pub(super) file_splitter: Splitter,
    /// Length of the pieces that zeros are cut into.
    pub(super) zero_piece: usize,
    /// Files of up to so many bytes are never cut.
    pub(super) small: u64,
    /// Files longer than this are read in sections of this length.
    pub(super) parallel_above: Option<u64>,
    /// Compression of directories and lists of parts.
    pub(super) metadata_compression: HeaderId,
    /// What happens to entries that cannot be read.
    pub(super) errors: ErrorPolicy,
    /// How many of them are named in the report.
    pub(super) named_errors: usize,
    /// Whether what is taken from an older snapshot is looked up in the index.
    pub(super) verify_reused: bool,
    /// Whether extended attributes are kept, and which names are one file.
    pub(super) extended_attributes: bool,
    /// Bytes that their values may take.
    pub(super) attribute_budget: u64,
    /// Which errors are ignored whatever `errors` says.
    pub(super) ignored: IgnoredErrors,
}

/// Errors that the policy ignores.
#[derive(Clone, Copy, Debug)]
pub(super) struct IgnoredErrors {
    /// Those with files.
    pub(super) files: bool,
    /// Those with directories.
    pub(super) directories: bool,
    /// Devices, sockets and pipes.
    pub(super) unknown_types: bool,
}
