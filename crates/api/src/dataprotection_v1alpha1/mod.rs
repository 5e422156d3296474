//! `dataprotection.kubeblocks.io/v1alpha1`: Backup, BackupPolicy, BackupRepo, BackupTool and RestoreJob.
//!
//! The definitions are those of KubeBlocks between v0.6 and v0.7, a superset of v0.6: manifests of v0.6 are valid. Of
//! later releases it takes the fields of BackupRepo that do not change what an older object means. Fields that only
//! Holdfast has are marked; all are optional, and a controller works without them where an installed definition prunes
//! them.
//!
//! Stricter than upstream in one point: an object without `spec` is refused, as it could never do anything.

mod backup;
mod backup_manifests;
mod backup_policy;
mod backup_repo;
mod backup_tool;
mod embedded;
mod policy_volume;
mod restore_job;
mod secret_reference;
mod target;

pub use backup::{Backup, BackupPhase, BackupSpec, BackupStatus, BackupType};
pub use backup_manifests::{
    BackupLogStatus, BackupSnapshotStatus, BackupToolManifestsStatus, ManifestsStatus,
};
pub use backup_policy::{
    BackupPolicy, BackupPolicyHook, BackupPolicyPhase, BackupPolicySpec, BackupPolicyStatus,
    BackupStatusUpdate, BackupStatusUpdateStage, BasePolicy, CommonBackupPolicy, RetentionSpec, Schedule,
    SchedulePolicy, SnapshotPolicy,
};
pub use backup_repo::{
    BackupRepo, BackupRepoPhase, BackupRepoSpec, BackupRepoStatus, PersistentVolumeReclaimPolicy,
    RepoAccessMethod,
};
pub use backup_tool::{
    BackupTool, BackupToolRestoreCommand, BackupToolSpec, BackupToolStatus, BackupToolType, DeployKind,
    LogicalConfig, PhysicalConfig, PodRestoreScope,
};
pub use policy_volume::{CreatePvcPolicy, PersistentVolumeClaim, PersistentVolumeConfigMap};
pub use restore_job::{RestoreJob, RestoreJobPhase, RestoreJobSpec, RestoreJobStatus};
pub use secret_reference::SecretReference;
pub use target::{BackupPolicySecret, TargetCluster};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::schema::{Shape, crd};

/// A name of an object of the cluster, as the group's definitions check it.
const NAME_PATTERN: &str = r"^[a-z0-9]([a-z0-9\.\-]*[a-z0-9])?$";
/// A quantity: a number with an optional suffix.
const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

const SHAPE: Shape = Shape {
    status_subresource: true,
    spec_required: true,
};

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        crd::<Backup>(SHAPE),
        crd::<BackupPolicy>(SHAPE),
        crd::<BackupRepo>(SHAPE),
        crd::<BackupTool>(SHAPE),
        crd::<RestoreJob>(SHAPE),
    ]
}

#[cfg(test)]
mod tests;
