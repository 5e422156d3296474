//! The bucket layout of wal-g, read and written natively, and the PostgreSQL side of it: base backups and WAL over
//! the replication protocol.
//!
//! - [`take`] takes a full backup of PostgreSQL 15 or later, with the WAL it needs, and reads it back;
//! - [`restore`] puts one into an empty directory, so that PostgreSQL starts on it without a `restore_command`;
//! - [`verify`] looks whether one is whole, [`list`] and [`delete`] do what their names say.
//!
//! # Memory
//! A backup holds at most [`BackupOptions::memory`] bytes of buffers (64 MiB unless told otherwise), enforced by a
//! semaphore in bytes: units of 1 MiB on their way through compression count with their result, what is compressed
//! counts until the storage has it. Beside that there are the read buffers of two connections, at most
//! [`BackupOptions::files_metadata_bytes`] of JSON and 24 bytes for each file of the database.
//!
//! # What is stored beside wal-g's own objects
//! Below the folder of the backup, where wal-g does not look and where its deletion removes them as well:
//! `backup_manifest.json` is the server's manifest with a CRC-32C of each file, compared while the backup is taken and
//! again when it is restored; `holdfast.json` lists all objects with their sizes; `wal/<segment>.partial.<ext>` is the
//! beginning of the last WAL segment, padded with zeros, when a standby got no more WAL to complete it in time.
//! Restoring such a backup with wal-g needs the complete segment in `wal_005`, where the archiver will put it.

mod backup;
mod catalog;
mod commit;
pub mod compress;
mod copy;
mod error;
pub mod layout;
pub mod lsn;
mod manifest;
pub mod metadata;
mod progress;
pub mod replication;
mod restore;
#[cfg(test)]
mod roundtrip;
mod start;
mod tarball;
mod unpack;
mod verify;
mod wal;
mod writer;

pub use backup::{BackupOptions, BackupRequest, Completed, take};
pub use catalog::{Listed, delete, describe, list, resolve};
pub use error::{WalgError, WalgResult};
pub use progress::{Phase, Progress};
pub use restore::{RestoreOptions, RestoreRequest, Restored, restore};
pub use verify::{Verified, verify};
pub use writer::LEAST_BUDGET;
