//! Indexes: which content is in which pack.
