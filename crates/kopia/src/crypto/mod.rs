//! Hashing and encryption of contents.
