//! Object storage for the data planes: S3 and directories behind one client that retries with back-off and deadlines,
//! bounds what it holds in memory, and says in its errors which object of which bucket is meant.
//!
//! The configuration is wal-g's, a map of the environment variables that wal-g reads ([`StoreConfig::from_variables`]),
//! or is put together ([`S3Config::new`], [`StoreConfig::new`]). Keys that are in a file are read again whenever the
//! file changes ([`CredentialsFile`]).
//!
//! The server checks the body of every PUT: by CRC32C where it can and TLS protects the request, else by the SHA-256
//! in the signature. An object can be kept from being deleted ([`ObjectLock`]).
//!
//! ```
//! # use std::collections::BTreeMap;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use holdfast_store::{RetryPolicy, Store, StoreConfig};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().to_str().unwrap().to_owned();
//! let variables = BTreeMap::from([("WALG_FILE_PREFIX".to_owned(), folder)]);
//! let store = Store::open(&StoreConfig::from_variables(&variables)?, RetryPolicy::default())?.within("spilo/demo")?;
//! store.put("greeting", "hello".into()).await?;
//! assert_eq!(store.get("greeting", 1024).await?, "hello");
//! # Ok(()) }
//! ```
//!
//! TLS is rustls with ring. When the process has installed no provider yet, opening an S3 store installs ring's, so
//! that a library test or a small tool need not know about it; a binary that installs it first keeps its own.

mod budget;
mod classify;
mod client;
mod config;
mod credentials;
mod error;
mod integrity;
mod list;
mod pace;
mod put;
mod reader;
mod retry;
mod s3;
mod upload;
mod wire;

pub use budget::{Buffer, ByteBudget, Reservation};
pub use client::{Absent, ObjectInfo, Store};
pub use config::{Limits, Place, S3Config, Secret, StoreConfig};
pub use credentials::CredentialsFile;
pub use error::{StoreError, StoreResult};
pub use integrity::{LockMode, ObjectLock};
pub use reader::ObjectReader;
pub use retry::RetryPolicy;
pub use upload::{PART_BYTES, Stored, Upload};
