//! Splitters: where a file is cut into contents.
