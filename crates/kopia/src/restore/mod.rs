//! Restore of a snapshot.
