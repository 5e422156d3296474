//! Snapshots and directories.
