//! The table of all kinds, their fixtures, and what the tests of both tiers do with them.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail by panicking"
)]

pub mod json;
pub mod outline;

use std::path::PathBuf;
use std::sync::LazyLock;

use holdfast_api::{
    alauda_v1, crunchy_v1, dataprotection_v1alpha1, storage_v1alpha1, velero_v1, velero_v2alpha1,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One kind, with its Rust type reduced to what the tests need of it.
pub struct Kind {
    /// Name of the kind.
    pub name: &'static str,
    /// Decodes into the Rust type and encodes again.
    pub recode: fn(Value) -> Result<Value, serde_json::Error>,
    /// Where a state is kept that must survive when unknown.
    pub state: Option<&'static str>,
}

fn recode<K: DeserializeOwned + Serialize>(value: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<K>(value)?)
}

macro_rules! kinds {
    ($($group:ident::$name:ident $state:expr,)+) => {
        &[$(Kind { name: stringify!($name), recode: recode::<$group::$name>, state: $state },)+]
    };
}

/// Every kind of the workspace; a test compares this with `all_crds`.
pub const KINDS: &[Kind] = kinds![
    alauda_v1::PostgresBackup Some("/status/state"),
    crunchy_v1::Pgbackup Some("/status/state"),
    crunchy_v1::Pgcluster Some("/status/state"),
    crunchy_v1::Pgpolicy Some("/status/state"),
    crunchy_v1::Pgreplica Some("/status/state"),
    crunchy_v1::Pgtask Some("/status/state"),
    dataprotection_v1alpha1::Backup Some("/status/phase"),
    dataprotection_v1alpha1::BackupPolicy Some("/status/phase"),
    dataprotection_v1alpha1::BackupRepo Some("/status/phase"),
    dataprotection_v1alpha1::BackupTool None,
    dataprotection_v1alpha1::RestoreJob Some("/status/phase"),
    storage_v1alpha1::StorageProvider Some("/status/phase"),
    velero_v1::BackupRepository Some("/status/phase"),
    velero_v1::BackupStorageLocation Some("/status/phase"),
    velero_v1::PodVolumeBackup Some("/status/phase"),
    velero_v1::PodVolumeRestore Some("/status/phase"),
    velero_v2alpha1::DataDownload Some("/status/phase"),
    velero_v2alpha1::DataUpload Some("/status/phase"),
];

/// One line of `<kind>-bad.yaml`: a change to the full object, and the words of the refusal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bad {
    /// What is wrong, in words.
    pub what: String,
    /// JSON pointer of the place to change.
    pub at: String,
    /// The bad value; without it the place is removed.
    pub value: Option<Value>,
    /// What the refusal must contain; it names the field.
    pub refused: String,
}

impl Bad {
    /// The full object with the change made.
    pub fn apply(&self, kind: &Kind) -> Value {
        let mut object = kind.full();
        match &self.value {
            Some(value) => json::set(&mut object, &self.at, value.clone()),
            None => json::remove(&mut object, &self.at),
        }
        object
    }
}

impl Kind {
    /// The kind's definition.
    pub fn crd(&self) -> CustomResourceDefinition {
        static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(holdfast_api::all_crds);
        let crd = CRDS.iter().find(|crd| crd.spec.names.kind == self.name);
        crd.cloned()
            .unwrap_or_else(|| panic!("{} is in KINDS and not in all_crds()", self.name))
    }

    /// The version that is stored.
    pub fn version(&self) -> CustomResourceDefinitionVersion {
        self.crd()
            .spec
            .versions
            .into_iter()
            .find(|version| version.storage)
            .expect("a stored version")
    }

    /// The schema as JSON.
    pub fn schema(&self) -> Value {
        let schema = self
            .version()
            .schema
            .and_then(|schema| schema.open_api_v3_schema)
            .expect("a schema");
        serde_json::to_value(schema).expect("a schema is JSON")
    }

    /// Whether `/status` is a resource of its own.
    pub fn has_status_resource(&self) -> bool {
        self.version()
            .subresources
            .is_some_and(|subresources| subresources.status.is_some())
    }

    /// An object with every field.
    pub fn full(&self) -> Value {
        self.fixture("full")
            .unwrap_or_else(|| panic!("no fixture {}", self.path("full").display()))
    }

    /// An object with the required fields only.
    pub fn minimal(&self) -> Value {
        self.fixture("minimal")
            .unwrap_or_else(|| panic!("no fixture {}", self.path("minimal").display()))
    }

    /// The minimal object as the API server stores it; the same where the definition has no defaults.
    pub fn minimal_stored(&self) -> Value {
        self.fixture("minimal-stored").unwrap_or_else(|| self.minimal())
    }

    /// Changes that the API server must refuse.
    pub fn bad(&self) -> Vec<Bad> {
        let path = self.path("bad");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn fixture(&self, which: &str) -> Option<Value> {
        let path = self.path(which);
        let text = std::fs::read_to_string(&path).ok()?;
        Some(serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn path(&self, which: &str) -> PathBuf {
        fixtures().join(format!("{}-{which}.yaml", self.name.to_lowercase()))
    }
}

/// The folder of the fixtures.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
