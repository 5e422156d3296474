//! Backup of a directory tree or a block device.
//!
//! Threads walk the tree, read, hash and encrypt; each piece of work stays on the thread that read the bytes. What is
//! written is what kopia would write for the same tree: the same pieces, the same directories, the same object ids.
//!
//! # Memory
//!
//! Data of files is bounded by [`BackupOptions::read_budget`], packs by the writer of contents. Besides, the listings of
//! open directories are held: those on the way from the root to where the threads work. Each entry takes 52 bytes and its
//! name, a directory 40 more, a small file that is still to be read 4 more and a large one 24. (The 52 are 88 if the
//! repository's hash is not one of 16 bytes.) A directory of 200,000 files takes 14 MiB while it is open, one of a million
//! 70 MiB; the number of files in the tree does not matter. Extended attributes, if they are asked for, take some 50 bytes more for each entry that has any, as much for
//! each that has other names, and [`BackupOptions::attribute_budget`] for the values.

mod attributes;
mod budget;
mod checkpoint;
mod chunker;
mod directory;
mod engine;
mod extents;
mod large;
mod limits;
mod list;
mod names;
mod options;
mod plan;
mod previous;
mod progress;
mod publish;
mod read;
mod repository;
mod rules;
mod run;
mod scheduler;
mod slots;
mod small;
mod summaries;
#[cfg(test)]
mod tests;

mod threads;
mod tree;
mod xattrs;

pub use limits::raise_open_files_limit;
pub use options::{BackupOptions, BackupReport, BackupSource, ErrorPolicy, SkippedEntry};
pub use progress::{Progress, ProgressNumbers};
pub use run::{Backup, BackupTarget};
