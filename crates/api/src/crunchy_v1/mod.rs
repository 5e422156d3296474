//! `crunchydata.com/v1`: the kinds of Crunchy's PostgreSQL Operator 4 (Pgcluster, Pgreplica, Pgpolicy, Pgtask, Pgbackup).
//!
//! What is odd about this group, and kept because existing objects and the `pgo` client rely on it:
//! - Five keys of a Pgcluster are in upper case (`PrimaryStorage`, ...), because the tags of their Go fields lack quotes;
//!   the anti-affinity rule is called `podPodAntiAffinity`. Go decodes keys in any case, so the lower-case spelling is
//!   understood too, and the definitions keep fields that they do not list.
//! - Numbers are strings. An empty string means the same as an absent key; Go writes the empty one.
//! - There is no status subresource: the status is written with the object, and so counts into `metadata.generation`.
//!
//! Stricter than upstream, whose definitions checked next to nothing: an object needs a `spec`, and the two closed
//! lists (storage type, anti-affinity) are enforced, as a misspelt word there silently meant the default.

mod pgbackup;
mod pgcluster;
mod pgpolicy;
mod pgreplica;
mod pgtask;
mod shared;

pub use pgbackup::{BackupJobStatus, Pgbackup, PgbackupSpec, PgbackupState, PgbackupStatus};
pub use pgcluster::{Pgcluster, PgclusterSpec, PgclusterState, PgclusterStatus, PodAntiAffinityType};
pub use pgpolicy::{Pgpolicy, PgpolicySpec, PgpolicyState, PgpolicyStatus};
pub use pgreplica::{Pgreplica, PgreplicaSpec, PgreplicaState, PgreplicaStatus};
pub use pgtask::{Pgtask, PgtaskSpec, PgtaskState, PgtaskStatus, TaskType};
pub use shared::{PgContainerResources, PgStorageSpec, StorageType, WorkStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::schema::{Shape, crd};

const SHAPE: Shape = Shape {
    status_subresource: false,
    spec_required: true,
};

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        crd::<Pgcluster>(SHAPE),
        crd::<Pgreplica>(SHAPE),
        crd::<Pgpolicy>(SHAPE),
        crd::<Pgtask>(SHAPE),
        crd::<Pgbackup>(SHAPE),
    ]
}

#[cfg(test)]
mod tests;
