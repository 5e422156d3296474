//! The types of the backup APIs that Holdfast serves, one module for each group and version.
//!
//! The crate holds no behaviour and does no I/O: it says what an object looks like in Rust, in JSON and in the
//! installed definition (CRD). Names, optionality, enums, defaults and bounds are those of the projects that own the
//! groups, so existing manifests and clients work; the descriptions are ours.
//!
//! # The pattern of a group
//!
//! ```
//! use kube::CustomResource;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! holdfast_api::open_enum! {
//!     /// Where the thing stands.
//!     pub enum ThingPhase: enum {
//!         /// Not looked at yet.
//!         New = "New",
//!         /// Finished, successfully.
//!         Completed = "Completed",
//!     }
//! }
//!
//! /// What a Thing asks for.
//! #[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
//! #[serde(rename_all = "camelCase")]
//! #[kube(
//!     group = "example.org", version = "v1", kind = "Thing", plural = "things", namespaced,
//!     doc = "A thing.",
//!     status = "ThingStatus", derive = "PartialEq",
//!     printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
//!     printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
//! )]
//! pub struct ThingSpec {
//!     /// Required in the definition, because it is neither an `Option` nor has it a default.
//!     pub volume: String,
//!     /// Optional. Never nullable unless the field says so.
//!     #[serde(skip_serializing_if = "Option::is_none")]
//!     #[schemars(length(max = 63), regex(pattern = r"^[a-z]+$"))]
//!     pub note: Option<String>,
//!     /// Optional, and an explicit null is kept: only where the owner of the group has it so.
//!     #[serde(skip_serializing_if = "Option::is_none")]
//!     #[schemars(extend("nullable" = true))]
//!     pub settings: Option<std::collections::BTreeMap<String, String>>,
//!     /// Optional with a default that the API server fills in: only where the owner of the group has one.
//!     #[serde(skip_serializing_if = "Option::is_none")]
//!     #[schemars(extend("default" = 3))]
//!     pub retries: Option<i32>,
//! }
//!
//! /// What was observed of a Thing.
//! #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
//! #[serde(rename_all = "camelCase")]
//! pub struct ThingStatus {
//!     /// Where it stands.
//!     #[serde(skip_serializing_if = "Option::is_none")]
//!     pub phase: Option<ThingPhase>,
//!     /// A list merged by type; any other list says `extend("x-kubernetes-list-type" = ..)` itself.
//!     #[serde(default, skip_serializing_if = "Option::is_none")]
//!     #[schemars(schema_with = "holdfast_api::schema::conditions")]
//!     pub conditions: Option<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>>,
//! }
//!
//! // Every group has `pub fn crds()`, and `all_crds` collects them.
//! let crd = holdfast_api::schema::crd::<Thing>(holdfast_api::schema::Shape::SPEC_AND_STATUS);
//! assert_eq!(crd.metadata.name.as_deref(), Some("things.example.org"));
//! assert!(ThingPhase::from("Later") == ThingPhase::Unknown("Later".to_owned()));
//! ```
//!
//! Rules that the tests hold every group to:
//! - Take the definition from [`schema::crd`], not from the derive's own `Kind::crd()`: the latter makes every `Option`
//!   nullable and cannot leave out the status subresource.
//! - Optional fields are `Option<_>` with `skip_serializing_if`, also maps and lists. `#[serde(default)]` on anything
//!   but an `Option` writes a `default` into the definition and thereby into stored objects.
//! - Integers are `i32` or `i64`; the API server knows no other format.
//! - States and other words are [`open_enum!`]: with `: enum` where the definition lists the values, without where it
//!   does not.
//! - Fields whose content is not ours (a pod template, say) are [`AnyObject`]; references are [`ObjectReference`] and
//!   [`SecretKeySelector`]; durations are [`GoDuration`].
//! - Field docs become `kubectl explain`: no links to Rust items there.

#![allow(
    clippy::duplicated_attributes,
    reason = "the lint takes the parts of #[kube(printcolumn(..), printcolumn(..))] for one list"
)]

mod any;
mod conditions;
mod duration;
mod open_enum;
mod reference;
pub mod schema;

pub mod alauda_v1;
pub mod crunchy_v1;
pub mod dataprotection_v1alpha1;
pub mod storage_v1alpha1;
pub mod velero_v1;
pub mod velero_v2alpha1;

pub use any::{AnyObject, AnyValue, IntOrString};
pub use duration::{DurationError, GoDuration};
pub use reference::{ObjectReference, SecretKeySelector};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

#[doc(hidden)]
pub mod __private {
    //! What [`open_enum!`](crate::open_enum) expands to needs these by name.
    pub use schemars;
    pub use serde;
}

/// The definitions of all kinds, sorted by name, as `cargo xtask crds` writes them.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut crds = [
        vec![schema::crd::<alauda_v1::PostgresBackup>(
            schema::Shape::SPEC_AND_STATUS,
        )],
        crunchy_v1::crds(),
        dataprotection_v1alpha1::crds(),
        storage_v1alpha1::crds(),
        velero_v1::crds(),
        velero_v2alpha1::crds(),
    ]
    .concat();
    crds.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    crds
}
