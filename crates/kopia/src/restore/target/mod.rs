//! The directory that a snapshot is restored to.
//!
//! Names come from the repository and the directory may belong to somebody who changes it meanwhile, so nothing is
//! reached by a path: an entry is created by its one name in a directory that is held open, symlinks are never followed,
//! and a directory that had to be closed is opened again strictly beneath the root (`openat2`, or step by step where the
//! kernel or a seccomp profile lacks it) and must be the same as before.
//!
//! What is there already is treated as kopia's `FilesystemOutput` does (its source: `snapshot/restore` of kopia 0.21.1):
//! existing files are overwritten in place, existing directories are kept with what else is in them, existing symlinks
//! are replaced, anything of another type is an error. Where kopia would follow a symlink, this replaces it; where a file
//! has further hard links, it gets a new inode, because the other names may be outside.

mod attributes;
mod descriptors;
mod device;
mod directory;
mod extended;
mod file;
mod hard_link;
mod link;
mod name;
mod sparse;
#[cfg(test)]
mod tests;

pub(crate) use attributes::{AttributePolicy, Attributes};
pub(crate) use descriptors::{DescriptorSlot, Descriptors};
pub(crate) use device::Device;
pub(crate) use directory::{Directory, MAX_DEPTH, Target, TargetOptions};
pub(crate) use extended::Values;
pub(crate) use file::{FileIdentity, write_at};
pub(crate) use name::EntryName;
