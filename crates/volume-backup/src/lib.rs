//! Backup and restore of volumes.
//!
//! So far there is the data plane's command line only, [`agent`]; it needs no API server.

pub mod agent;
pub mod cli;
