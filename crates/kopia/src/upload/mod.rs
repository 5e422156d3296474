//! Backup of a directory tree or a block device.
