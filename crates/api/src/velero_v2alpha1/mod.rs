//! `velero.io/v2alpha1`: moving the data of CSI snapshots into a repository and back.
//!
//! Source of the contract: the definitions that Velero 1.18 installs. As in `v1` there is no `/status` resource.

mod data_download;
mod data_upload;

pub use data_download::{DataDownload, DataDownloadSpec, DataDownloadStatus, TargetVolume};
pub use data_upload::{CsiSnapshot, DataUpload, DataUploadSpec, DataUploadStatus, SnapshotType};

pub use crate::velero_v1::{TransferPhase, TransferProgress};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::schema::{Shape, crd};

crate::open_enum! {
    /// Operating system of a node.
    pub enum NodeOs: enum {
        /// Whatever the chosen node runs.
        Auto = "auto",
        /// Linux; an absent value means the same.
        Linux = "linux",
        /// Windows.
        Windows = "windows",
    }
}

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        crd::<DataDownload>(Shape::NO_STATUS_RESOURCE),
        crd::<DataUpload>(Shape::NO_STATUS_RESOURCE),
    ]
}
