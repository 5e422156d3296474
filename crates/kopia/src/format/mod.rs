//! The description of a repository: the blobs `kopia.repository` and `kopia.blobcfg`.
