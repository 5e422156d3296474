//! What scenarios on a real cluster have in common: a PostgreSQL cluster of Spilo's kind, its data and their checksums, a bucket,
//! backups, restored instances, and an account of everything when something fails.
//!
//! The cluster is the one of `cargo xtask cluster up`, or the one that `HOLDFAST_KUBECONFIG` names. Errors are [`anyhow::Error`].

pub mod backup;
pub mod bucket;
pub mod cluster;
pub mod controller;
pub mod data;
mod diagnostics;
pub mod kubectl;
pub mod memory;
pub mod postgres;
pub mod restore;
pub mod scenario;
pub mod wait;
pub mod zalando;

pub use cluster::Cluster;
pub use kubectl::Kubectl;
pub use postgres::{PostgresCluster, Version};
pub use scenario::{Access, Scenario, scenario};
