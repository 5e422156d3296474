//! Snapshots: directories as objects, and the manifests that name their roots.

mod attributes;
mod builder;
mod entry;
mod entry_json;
mod find;
mod manifest;
mod name;
mod permissions;
mod reader;
mod source;
mod summary;
#[cfg(test)]
mod tests;
mod time;

pub use attributes::{ExtendedAttributes, HardLink, MAX_ATTRIBUTE_BYTES, is_kept};
pub(crate) use attributes::{field_json, values_json};
pub use builder::{Directory, DirectoryBuilder, DirectoryWriter};
pub use entry::{DirEntry, EntryKind};
pub use find::{ParentFilter, list_snapshots, load_snapshot, parent_snapshots, save_snapshot};
pub use manifest::{SnapshotManifest, SnapshotStats};
pub use name::EntryName;
pub use permissions::Permissions;
pub use reader::{DirectoryParser, DirectoryStream};
pub use source::SourceInfo;
pub use summary::{FailedEntry, Summary};
pub use time::UtcTime;
