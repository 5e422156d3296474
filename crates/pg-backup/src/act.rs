//! The writes of a pass, except the status: each does what a step of the plan says and decides nothing.

use holdfast_api::alauda_v1::PostgresBackup;
use holdfast_fault::{Class, Fault};
use holdfast_status::FieldManager;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::error::{Error, call};
use crate::plan::{FINALIZER, Step};
use crate::reason::Reason;

const FINALIZER_MANAGER: FieldManager = FieldManager::new("pg-backup", "finalizer");
const JOB_MANAGER: FieldManager = FieldManager::new("pg-backup", "job");

/// What came of the steps.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The object as the last write to it left it.
    pub object: Option<PostgresBackup>,
    /// What the API server refuses for good: a job that it does not admit, or a name that is taken.
    pub refused: Option<(Reason, String)>,
}

/// Takes the steps in their order. Any of them may be repeated: a pass that ended halfway is simply run again.
pub async fn act(client: &Client, backup: &PostgresBackup, steps: &[Step]) -> Result<Done, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let backups: Api<PostgresBackup> = Api::namespaced(client.clone(), &namespace);
    let mut done = Done::default();
    for step in steps {
        match step {
            Step::AddFinalizer => {
                if !backup.finalizers().iter().any(|name| name == FINALIZER) {
                    let finalizers = backup
                        .finalizers()
                        .iter()
                        .cloned()
                        .chain([FINALIZER.to_owned()])
                        .collect();
                    done.object = Some(set_finalizers(&backups, backup, finalizers).await?);
                }
            }
            Step::DropFinalizer => {
                let finalizers = backup
                    .finalizers()
                    .iter()
                    .filter(|name| *name != FINALIZER)
                    .cloned()
                    .collect();
                match set_finalizers(&backups, backup, finalizers).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            Step::CreateJob(job) => done.refused = create_job(&jobs, backup, job).await?,
            Step::DeleteJob { name, uid } => delete_job(&jobs, &namespace, name, uid).await?,
        }
    }
    Ok(done)
}

/// A merge patch that carries the resourceVersion: two writers cannot drop each other's finalizers.
async fn set_finalizers(
    api: &Api<PostgresBackup>,
    backup: &PostgresBackup,
    finalizers: Vec<String>,
) -> Result<PostgresBackup, Error> {
    let name = backup.name_any();
    let metadata = json!({ "resourceVersion": backup.resource_version(), "finalizers": finalizers });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let params = PatchParams {
        field_manager: Some(FINALIZER_MANAGER.to_string()),
        ..PatchParams::default()
    };
    call(
        "patch",
        "PostgresBackup",
        &backup.namespace().unwrap_or_default(),
        &name,
        api.patch(&name, &params, &patch),
    )
    .await
}

async fn create_job(
    jobs: &Api<Job>,
    backup: &PostgresBackup,
    job: &Job,
) -> Result<Option<(Reason, String)>, Error> {
    let (namespace, name) = (backup.namespace().unwrap_or_default(), job.name_any());
    let params = PostParams {
        field_manager: Some(JOB_MANAGER.to_string()),
        ..PostParams::default()
    };
    let Err(error) = call("create", "Job", &namespace, &name, jobs.create(&params, job)).await else {
        return Ok(None);
    };
    // A pass before this one, or a retried request whose first answer was lost, may have created it.
    if error.class() == Class::Conflict {
        let found = call("get", "Job", &namespace, &name, jobs.get(&name)).await?;
        let ours = found
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == backup.uid().as_ref());
        let taken = || {
            (
                Reason::JobNameTaken,
                format!("job {name} exists and belongs to another object"),
            )
        };
        return Ok((!ours).then(taken));
    }
    match error.refusal() {
        Some(message) => Ok(Some((
            Reason::JobRefused,
            format!("job {name} was refused: {message}"),
        ))),
        None => Err(error),
    }
}

async fn delete_job(jobs: &Api<Job>, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
    let params = DeleteParams {
        // Foreground: the job is there until its pods are gone, so that nothing writes any more once it is not found.
        propagation_policy: Some(PropagationPolicy::Foreground),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match call("delete", "Job", namespace, name, jobs.delete(name, &params)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.class() == Class::Conflict => Ok(()),
        Err(error) => Err(error),
    }
}
