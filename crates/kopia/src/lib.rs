//! The [kopia](https://kopia.io) repository format, read and written natively.
//!
//! Velero keeps the files of volumes in kopia repositories, one for each namespace. This crate opens such a repository
//! (or creates one), adds snapshots that `kopia` itself reads, restores what `kopia` wrote, and verifies both. It knows
//! nothing of Kubernetes.
//!
//! # Words of the format
//!
//! - **blob**: an object of the storage, by name: packs, indexes, session markers, the format description.
//! - **content**: a piece of data named by its keyed hash ([`ContentId`]), compressed, encrypted, and kept in a *pack*.
//! - **index**: says in which pack a content is. Index blobs belong to *epochs*.
//! - **object**: a content, or a list of contents (an *indirect* object), named by an [`ObjectId`]. A file is an object,
//!   a directory too.
//! - **manifest**: a small JSON document with labels: snapshots, policies.
//!
//! Source of the format: the behaviour and source of kopia 0.21.1. The code is not derived from it.
//!
//! # Memory
//!
//! What is in flight is bounded by a byte budget; indexes are looked up in files, not in a map of all contents.
//!
//! # Disk
//!
//! Nothing but the files for indexes, which are gone with the process, unless a [cache](CacheOptions) is asked for.

pub mod blob;
pub mod compression;
pub mod content;
pub mod crypto;
mod disk_cache;
pub mod epoch;
mod error;
pub mod format;
#[cfg(test)]
mod hostile;
pub mod index;
mod json;
pub mod manifest;
pub mod object;
pub mod policy;
mod repository;
pub mod restore;
pub mod snapshot;
pub mod splitter;
mod tree;
pub mod upload;
pub mod verify;

pub use blob::{BlobId, BlobMetadata, BlobStorage};
pub use content::{ContentId, ContentInfo, ContentReader, ContentWriter, WriterOptions, WriterStats};
pub use disk_cache::CacheOptions;
pub use error::{KopiaError, KopiaResult};
pub use object::ObjectId;
pub use repository::{ConnectOptions, MEMORY, MemoryLimits, Repository, RepositoryWriter, system_clock};
