//! `velero.io/v1`: volume backups and restores, and the locations and repositories they use.
//!
//! Source of the contract: the definitions that Velero 1.18 installs. Velero has no `/status` resource; a status is
//! written with its object. Fields of 1.17 and 1.18 are optional, for older servers leave them out and prune them.

mod backup_repository;
mod backup_storage_location;
mod pod_volume_backup;
mod pod_volume_restore;

pub use backup_repository::{
    BackupRepository, BackupRepositorySpec, BackupRepositoryStatus, MaintenanceResult, RecentMaintenance,
    RepositoryPhase, RepositoryType,
};
pub use backup_storage_location::{
    AccessMode, BackupStorageLocation, BackupStorageLocationSpec, BackupStorageLocationStatus, LocationPhase,
    ObjectStorageLocation,
};
pub use pod_volume_backup::{PodVolumeBackup, PodVolumeBackupSpec, PodVolumeBackupStatus};
pub use pod_volume_restore::{PodVolumeRestore, PodVolumeRestoreSpec, PodVolumeRestoreStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{Shape, crd};

crate::open_enum! {
    /// Where the transfer of a volume stands; the same words for all four kinds of transfer.
    ///
    /// Up to Velero 1.16 the pod volume kinds knew only New, InProgress, Completed and Failed.
    #[derive(Default)]
    pub enum TransferPhase: enum {
        /// Not looked at yet; an absent phase means the same.
        #[default]
        New = "New",
        /// A node has taken the work and prepares access to the volume.
        Accepted = "Accepted",
        /// The volume can be reached, the transfer has not begun.
        Prepared = "Prepared",
        /// Data is moving.
        InProgress = "InProgress",
        /// Asked to stop, not stopped yet.
        Canceling = "Canceling",
        /// Stopped on request.
        Canceled = "Canceled",
        /// Finished, successfully.
        Completed = "Completed",
        /// Finished, unsuccessfully; the message says why.
        Failed = "Failed",
    }
}

crate::open_enum! {
    /// What reads and writes the data.
    pub enum UploaderType: enum {
        /// The kopia format.
        Kopia = "kopia",
        /// The restic format; restore only since Velero 1.17.
        Restic = "restic",
        /// Not said: objects from before there was a choice, which means restic.
        Unset = "",
    }
}

/// How far a transfer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferProgress {
    /// Bytes handled so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes to handle, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
}

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        crd::<BackupRepository>(Shape::NO_STATUS_RESOURCE),
        crd::<BackupStorageLocation>(Shape::NO_STATUS_RESOURCE),
        crd::<PodVolumeBackup>(Shape::NO_STATUS_RESOURCE),
        crd::<PodVolumeRestore>(Shape::NO_STATUS_RESOURCE),
    ]
}
