//! Epochs: which index blobs are valid.
