//! Policies as documents.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A policy: of a source, a user, a host or all. What is not set is inherited.
///
/// Only what affects a backup has fields here; the rest is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    /// How long snapshots are kept; kept as it is.
    pub retention: Map<String, Value>,
    /// Which files are backed up.
    pub files: FilesPolicy,
    /// What is an error.
    pub error_handling: ErrorHandlingPolicy,
    /// When kopia's own server makes snapshots.
    pub scheduling: SchedulingPolicy,
    /// How data is compressed.
    pub compression: CompressionPolicy,
    /// How directories and lists are compressed.
    pub metadata_compression: MetadataCompressionPolicy,
    /// How data is cut.
    pub splitter: SplitterPolicy,
    /// How data is uploaded.
    pub upload: UploadPolicy,
    /// Whether nothing is inherited, not even the defaults.
    #[serde(skip_serializing_if = "is_false")]
    pub no_parent: bool,
    /// Fields that this version does not know, to be kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which files are backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilesPolicy {
    /// Patterns of files that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Whether patterns are not inherited. kopia has the field but heeds it nowhere.
    #[serde(rename = "noParentIgnore", skip_serializing_if = "is_false")]
    pub no_parent_ignore: bool,
    /// Names of files that hold more patterns.
    #[serde(rename = "ignoreDotFiles", skip_serializing_if = "Vec::is_empty")]
    pub ignore_dot_files: Vec<String>,
    /// Whether those names are not inherited by the directories below.
    #[serde(rename = "noParentDotFiles", skip_serializing_if = "is_false")]
    pub no_parent_dot_files: bool,
    /// Whether directories with a `CACHEDIR.TAG` are taken for empty (default yes).
    #[serde(rename = "ignoreCacheDirs", skip_serializing_if = "Option::is_none")]
    pub ignore_cache_dirs: Option<bool>,
    /// Files longer than so many bytes are left out; 0 is no limit.
    #[serde(rename = "maxFileSize", skip_serializing_if = "is_zero")]
    pub max_file_size: i64,
    /// Whether other filesystems mounted below are left out (default no).
    #[serde(rename = "oneFileSystem", skip_serializing_if = "Option::is_none")]
    pub one_file_system: Option<bool>,
}

/// What is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ErrorHandlingPolicy {
    /// Whether files that cannot be read are left out (default no: the backup fails).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_file_errors: Option<bool>,
    /// Whether directories that cannot be read are left out (default no).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_directory_errors: Option<bool>,
    /// Whether devices, pipes and sockets are left out (default yes).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_unknown_types: Option<bool>,
}

/// When kopia's own server makes snapshots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulingPolicy {
    /// Only when somebody asks for them.
    #[serde(skip_serializing_if = "is_false")]
    pub manual: bool,
    /// The rest, which is kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How data is compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CompressionPolicy {
    /// Name of the compression; `none` and empty are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compressor_name: String,
    /// Extensions, with their dot, of files to compress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_compress: Vec<String>,
    /// Whether those extensions are not inherited.
    #[serde(skip_serializing_if = "is_false")]
    pub no_parent_only_compress: bool,
    /// Extensions, with their dot, of files not to compress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_compress: Vec<String>,
    /// Whether those extensions are not inherited.
    #[serde(skip_serializing_if = "is_false")]
    pub no_parent_never_compress: bool,
    /// Files shorter than so many bytes are not compressed; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_size: i64,
    /// Files longer than so many bytes are not compressed; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_size: i64,
}

/// How directories and lists are compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetadataCompressionPolicy {
    /// Name of the compression; `none` and empty are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compressor_name: String,
}

/// How data is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitterPolicy {
    /// Name of the splitter of file data; empty is the repository's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
}

/// How data is uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UploadPolicy {
    /// How many snapshots are made at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_snapshots: Option<i64>,
    /// How many files are read at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_file_reads: Option<i64>,
    /// Files longer than so many bytes are read in parts of so many bytes at the same time; negative is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_upload_above_size: Option<i64>,
}

impl Policy {
    /// The policy that Velero writes for a source before it uploads: snapshots are kept (Velero deletes them itself),
    /// made by hand, and not compressed. `reads` is how many files are read at a time, `part_size` the length of parts
    /// of long files, in bytes.
    pub fn velero(reads: u32, part_size: i64) -> Self {
        let keep = [
            "keepLatest",
            "keepHourly",
            "keepDaily",
            "keepWeekly",
            "keepMonthly",
            "keepAnnual",
        ];
        let mut policy = Self {
            retention: keep
                .map(|name| (name.to_owned(), json!(i32::MAX)))
                .into_iter()
                .collect(),
            ..Self::default()
        };
        "none".clone_into(&mut policy.compression.compressor_name);
        policy.upload.max_parallel_file_reads = Some(reads.into());
        policy.upload.parallel_upload_above_size = Some(part_size);
        policy.scheduling.manual = true;
        policy.error_handling.ignore_unknown_types = Some(true);
        policy
    }

    /// What kopia does where no policy says anything.
    pub(super) fn defaults() -> Self {
        let mut policy = Self::default();
        policy.files.ignore_dot_files = vec![".kopiaignore".to_owned()];
        policy.error_handling = ErrorHandlingPolicy {
            ignore_file_errors: Some(false),
            ignore_directory_errors: Some(false),
            ignore_unknown_types: Some(true),
        };
        "none".clone_into(&mut policy.compression.compressor_name);
        "zstd-fastest".clone_into(&mut policy.metadata_compression.compressor_name);
        policy.upload.max_parallel_snapshots = Some(1);
        policy.upload.parallel_upload_above_size = Some(2 << 30);
        policy
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}
