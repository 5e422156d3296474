//! The policies of a source and of the directories below it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use jiff::Timestamp;

use super::document::Policy;
use crate::error::KopiaResult;
use crate::manifest::{Labels, ManifestId, Manifests};
use crate::snapshot::SourceInfo;

/// The policies that a backup of a source goes by.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTree {
    root: Policy,
    /// Of directories below, by their path from the root without a leading slash. They are not merged with anything:
    /// kopia does not either.
    below: BTreeMap<String, Policy>,
}

/// The policy of one directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodePolicy<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Whether it is of this very directory, not of one above it.
    pub defined: bool,
}

impl Default for PolicyTree {
    /// kopia's defaults.
    fn default() -> Self {
        Self {
            root: Policy::merged([]),
            below: BTreeMap::new(),
        }
    }
}

impl PolicyTree {
    /// The policy of the source itself.
    pub const fn root(&self) -> &Policy {
        &self.root
    }

    /// The policy of a directory by its path from the root, without a leading slash; empty for the root.
    pub fn directory(&self, path: &str) -> NodePolicy<'_> {
        if path.is_empty() {
            return NodePolicy {
                policy: &self.root,
                defined: true,
            };
        }
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let above = ends.collect::<Vec<_>>();
        let nearest = above.iter().rev().find_map(|end| {
            let policy = self.below.get(&path[..*end])?;
            let defined = *end == path.len();
            Some(NodePolicy { policy, defined })
        });
        nearest.unwrap_or(NodePolicy {
            policy: &self.root,
            defined: false,
        })
    }
}

impl Policy {
    /// Name of the compression of a file's data; none if it is not compressed.
    ///
    /// Like kopia, this compresses files whose extension is not among those to compress only.
    pub fn compressor(&self, name: &OsStr, size: u64) -> Option<&str> {
        let compression = &self.compression;
        let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
        let too_short = limit(compression.min_size).is_some_and(|min| size < min);
        let too_long = limit(compression.max_size).is_some_and(|max| size > max);
        if too_short || too_long {
            return None;
        }
        let extension = extension(name);
        let among = |extensions: &[String]| extensions.iter().any(|other| other.as_bytes() == extension);
        if !among(&compression.only_compress) && among(&compression.never_compress) {
            return None;
        }
        named(&compression.compressor_name)
    }

    /// Name of the compression of directories and lists; none if they are not compressed.
    pub fn metadata_compressor(&self) -> Option<&str> {
        named(&self.metadata_compression.compressor_name)
    }

    /// From how many bytes on files are read in parts, and how long the parts are; none if files are not.
    pub fn part_size(&self) -> Option<u64> {
        let size = self.upload.parallel_upload_above_size.unwrap_or(-1);
        u64::try_from(size).ok().filter(|size| *size > 0)
    }
}

fn named(name: &str) -> Option<&str> {
    (!matches!(name, "" | "none")).then_some(name)
}

/// From the last dot on, as Go has it: that of `.profile` is the whole name.
fn extension(name: &OsStr) -> &[u8] {
    let name = name.as_encoded_bytes();
    name.iter()
        .rposition(|byte| *byte == b'.')
        .map_or(&[], |dot| &name[dot..])
}

/// The labels of a source's policy; of a user's, a host's or everybody's, if its path, user and host are empty.
pub fn policy_labels(source: &SourceInfo) -> Labels {
    let SourceInfo {
        host,
        user_name,
        path,
    } = source;
    let (kind, labels): (_, &[(&str, &str)]) = match (host.as_str(), user_name.as_str(), path.as_str()) {
        ("", "", "") => ("global", &[]),
        (host, "", "") => ("host", &[("hostname", host)]),
        (host, user, "") => ("user", &[("hostname", host), ("username", user)]),
        (host, user, path) => ("path", &[("hostname", host), ("username", user), ("path", path)]),
    };
    let fixed = [("type", "policy"), ("policyType", kind)];
    let all = fixed.iter().chain(labels);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The policies that apply to a source: those of its path and the paths above it, of its user, its host and everybody,
/// merged; and those of directories below it.
pub async fn effective_policy(manifests: &Manifests, source: &SourceInfo) -> KopiaResult<PolicyTree> {
    let mut applicable = Vec::new();
    for target in targets(source) {
        for found in manifests.find(&policy_labels(&target)) {
            applicable.push(manifests.get::<Policy>(&found.id).await?);
        }
    }
    let mut below = BTreeMap::new();
    let mut any_path = policy_labels(source);
    any_path.remove("path");
    let within = format!("{}/", source.path.trim_end_matches('/'));
    if !source.path.is_empty() {
        for found in manifests.find(&any_path) {
            let path = found
                .labels
                .get("path")
                .and_then(|path| path.strip_prefix(&within));
            if let Some(path) = path.filter(|path| !path.is_empty()) {
                below.insert(path.to_owned(), manifests.get(&found.id).await?);
            }
        }
    }
    Ok(PolicyTree {
        root: Policy::merged(&applicable),
        below,
    })
}

/// Whose policies apply to a source, the most specific first.
fn targets(source: &SourceInfo) -> Vec<SourceInfo> {
    let path = |path: &str| SourceInfo {
        path: path.to_owned(),
        ..source.clone()
    };
    let mut targets = Vec::new();
    if !source.path.is_empty() {
        let above = Path::new(&source.path).ancestors().filter_map(Path::to_str);
        targets.extend(above.filter(|above| !above.is_empty()).map(path));
    }
    let host = SourceInfo {
        host: source.host.clone(),
        ..SourceInfo::default()
    };
    targets.extend([path(""), host, SourceInfo::default()]);
    targets.dedup();
    targets
}

/// The policy of a source itself, if it has one.
pub async fn defined_policy(manifests: &Manifests, source: &SourceInfo) -> KopiaResult<Option<Policy>> {
    match manifests.find(&policy_labels(source)).last() {
        None => Ok(None),
        Some(found) => manifests.get(&found.id).await.map(Some),
    }
}

/// Puts a source's policy in the place of the one it has, to be written when the manifests are flushed.
pub fn set_policy(
    manifests: &mut Manifests,
    source: &SourceInfo,
    policy: &Policy,
    now: Timestamp,
) -> KopiaResult<ManifestId> {
    manifests.replace(policy_labels(source), policy, now)
}
