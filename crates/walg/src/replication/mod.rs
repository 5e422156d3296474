//! A client of PostgreSQL's physical replication protocol: base backups and WAL from a walsender.
//!
//! It speaks to PostgreSQL 15 and later (older servers have another `BASE_BACKUP` protocol and are refused by name) as
//! a user with the `REPLICATION` attribute, and needs no access to the server's files. One [`Connection`] does one
//! thing at a time; a backup that also collects its WAL uses two:
//!
//! ```no_run
//! # async fn example(options: holdfast_walg::replication::ConnectOptions)
//! # -> Result<(), holdfast_walg::replication::ReplicationError> {
//! use holdfast_walg::replication::{BackupEvent, BaseBackupOptions, Connection};
//!
//! let mut wal = Connection::connect(&options).await?;
//! wal.create_temporary_slot("holdfast_example").await?; // keeps the WAL until it has been streamed
//! let connection = Connection::connect(&options).await?;
//! let mut backup = connection.base_backup(&BaseBackupOptions::default()).await?;
//! let mut stream = wal.start_physical(Some("holdfast_example"), backup.start_lsn(), backup.timeline()).await?;
//! while let Some(event) = backup.next().await? {
//!     match event {
//!         BackupEvent::Archive { name, .. } => println!("{name} begins"),
//!         BackupEvent::Data(bytes) => println!("{} bytes of tar or manifest", bytes.len()),
//!         _ => {}
//!     }
//! }
//! let chunk = stream.next().await?;
//! # drop(chunk);
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//! A connection holds one read buffer of [`READ_BUFFER`] bytes; data are handed out as slices of it without copying.
//! A slice keeps the whole buffer it lies in alive, so do not collect small slices: copy them or let them go.
//! A [`WalStream`] reads ahead at most [`WAL_READ_AHEAD`] chunks of at most 128 KiB each.
//!
//! # Deadlines and cancellation
//! [`ConnectOptions::connect_timeout`] bounds the whole of connecting, TLS and authentication.
//! [`ConnectOptions::idle_timeout`] bounds each wait for a byte. Dropping a value cancels what it does and closes the
//! connection; `next()` loses nothing when its future is dropped.

mod auth;
mod base_backup;
mod connection;
mod error;
mod options;
mod segments;
#[cfg(test)]
mod tests;
mod tls;
mod wal_stream;
mod wire;

pub use base_backup::{BackupEnd, BackupEvent, BaseBackup, BaseBackupOptions, ManifestChecksums, Tablespace};
pub use connection::{Connection, SystemIdentity, TimelineHistory};
pub use error::{Peer, ReplicationError, ServerError};
pub use options::{ConnectOptions, Password, SslMode};
pub use segments::{SegmentError, SegmentEvent, WalSegments};
pub use wal_stream::{NextTimeline, WAL_READ_AHEAD, WalChunk, WalStream};
pub use wire::READ_BUFFER;
