//! The bucket layout of wal-g, read and written natively, and the PostgreSQL side of it: base backups and WAL over
//! the replication protocol.

pub mod lsn;
pub mod replication;
