//! The data-plane agent: what the Job of a `PostgresBackup` runs, and what people run by hand.
//!
//! It knows no API server. It gets its work by arguments, environment and mounted files, and answers by one JSON
//! document ([`report::Report`]) in its termination message.

pub mod report;
