//! What a snapshot is of.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Label: what a manifest is.
pub(crate) const TYPE: &str = "type";
/// A snapshot's [`TYPE`].
pub(crate) const TYPE_SNAPSHOT: &str = "snapshot";
/// Label: the host of a source.
pub(crate) const HOST: &str = "hostname";
/// Label: the user of a source.
pub(crate) const USER: &str = "username";
/// Label: the path of a source.
pub(crate) const PATH: &str = "path";

/// The source of snapshots: a directory of a user at a host. Velero's are `default` at `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceInfo {
    /// The host's name.
    pub host: String,
    /// The user's name.
    #[serde(rename = "userName")]
    pub user_name: String,
    /// The directory.
    pub path: String,
}

impl SourceInfo {
    /// The labels of its snapshots' manifests. An empty user or path is no label, so it matches any.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (TYPE.to_owned(), TYPE_SNAPSHOT.to_owned()),
            (HOST.to_owned(), self.host.clone()),
        ]);
        for (label, value) in [(USER, &self.user_name), (PATH, &self.path)] {
            if !value.is_empty() {
                labels.insert(label.to_owned(), value.clone());
            }
        }
        labels
    }
}

impl fmt::Display for SourceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            user_name,
            path,
        } = self;
        match (host.as_str(), user_name.as_str(), path.as_str()) {
            ("", "", "") => f.write_str("(global)"),
            (_, _, "") => write!(f, "{user_name}@{host}"),
            _ => write!(f, "{user_name}@{host}:{path}"),
        }
    }
}
