//! The driver: which objects are watched, and the steps of a pass in their order.

use std::sync::Arc;
use std::time::Instant;

use holdfast_api::alauda_v1::PostgresBackup;
use holdfast_runtime::events::{Events, Note};
use holdfast_runtime::runner::{Next, Runner};
use holdfast_runtime::{Term, clock};
use holdfast_status::{FieldManager, Outcome, ProgressWriter, SchemaFacts, Settings, Writer};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};

use crate::act::act;
use crate::build::job::{OPERATION_LABEL, Operation};
use crate::config::Config;
use crate::error::{Error, call};
use crate::metrics::Metrics;
use crate::observe::{observe, stage};
use crate::outcome::{self, Contract, outcome};
use crate::plan::{self, Step, Verdict, plan};
use crate::reason::Reason;

/// The controller's name in metrics, logs, Events and field managers.
pub const NAME: &str = "pg-backup";

const STATUS_MANAGER: FieldManager = FieldManager::new(NAME, "status");
const PROGRESS_MANAGER: FieldManager = FieldManager::new(NAME, "progress");

/// Name of the controller's container, whose image the jobs run.
const CONTAINER: &str = "controller";

struct Context {
    client: Client,
    config: Config,
    image: String,
    status: Writer<Contract>,
    progress: ProgressWriter<Contract>,
    events: Events,
    metrics: Arc<Metrics>,
    /// Held while a pass may start a backup: two passes that do not see each other's backup must not both start.
    starting: tokio::sync::Mutex<()>,
}

/// Reconciles PostgresBackups until the term ends.
pub async fn run(term: Term, config: Config, metrics: Arc<Metrics>) -> Result<(), Error> {
    let settings = Settings::default();
    let facts = SchemaFacts::read_for::<Contract>(&term.client, settings.deadline)
        .await
        .map_err(Error::Definition)?;
    let observer = Some(Arc::new(term.standard.status_observer()) as Arc<_>);
    let status = Writer::with(
        term.client.clone(),
        STATUS_MANAGER,
        Settings {
            facts,
            observer,
            ..settings
        },
    );
    let context = Arc::new(Context {
        image: agent_image(&term.client, &config).await?,
        progress: status.progress(PROGRESS_MANAGER),
        status,
        events: term.events.clone(),
        metrics: metrics.clone(),
        starting: tokio::sync::Mutex::default(),
        client: term.client.clone(),
        config,
    });
    let jobs = watcher::Config::default().labels(OPERATION_LABEL);
    let runner = Runner::<PostgresBackup>::new(NAME, &term).owns::<Job>(&jobs);
    let _counted = metrics.count_backups(runner.store());
    runner.run(reconcile, context).await;
    Ok(())
}

/// The image that an administrator chose, else that of this very pod: an upgrade then moves both together.
async fn agent_image(client: &Client, config: &Config) -> Result<String, Error> {
    let (image, pod, namespace) = (&config.agent_image, &config.pod_name, &config.pod_namespace);
    if let Some(image) = image {
        return Ok(image.clone());
    }
    let (Some(pod), Some(namespace)) = (pod, namespace) else {
        return Err(Error::ImageUnknown);
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let own = call("get", "Pod", namespace, pod, pods.get(pod)).await?;
    let containers = own.spec.map(|spec| spec.containers).unwrap_or_default();
    containers
        .into_iter()
        .find(|c| c.name == CONTAINER)
        .and_then(|c| c.image)
        .ok_or(Error::ImageUnknown)
}

async fn reconcile(backup: Arc<PostgresBackup>, context: Arc<Context>) -> Result<Next, Error> {
    let now = clock::now();
    let _turn = if plan::may_start(&backup) {
        Some(context.starting.lock().await)
    } else {
        None
    };
    let seen = observe(&context.client, &context.config, &backup).await?; // reads
    let plan = plan(&backup, &seen, &context.config, &context.image, now); // pure
    let done = act(&context.client, &backup, &plan.steps).await?; // writes
    let verdict = plan.verdict.or_refused(done.refused, &backup); // pure
    let retries = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::DeleteJob { .. }));
    tell(
        &context,
        done.object.as_ref().unwrap_or(&backup),
        &verdict,
        retries,
        now,
    )
    .await?; // one status write
    Ok(plan
        .again
        .and_then(|time| time.try_into().ok())
        .map_or(Next::AwaitChange, Next::After))
}

/// Writes the status, and where that changed it, or an attempt is followed by another, an Event and the metrics.
async fn tell(
    context: &Context,
    backup: &PostgresBackup,
    verdict: &Verdict,
    retries: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let secret = plan::storage_secret(backup, &context.config).unwrap_or_default();
    let Some(wanted) = outcome(backup, &secret, verdict, now) else {
        if let Verdict::Released(reason, message) = verdict {
            announce(context, backup, *reason, message, false);
            if *reason == Reason::Deleted && plan::had_data(backup) {
                let since = backup
                    .metadata
                    .deletion_timestamp
                    .as_ref()
                    .map_or(now, |time| time.0);
                context
                    .metrics
                    .succeeded(Operation::Delete, now.duration_since(since));
            }
        }
        return Ok(());
    };
    let written = context
        .status
        .write(backup, &wanted, now)
        .await
        .map_err(Error::Status)?;
    if let Verdict::Running(Some(report)) = verdict {
        let live = if let Outcome::Written { object, .. } = &written {
            object
        } else {
            backup
        };
        let progress = outcome::progress(report);
        // Progress is for people: the next report makes up for one that could not be written.
        if let Err(error) = context.progress.report(live, &progress, Instant::now()).await {
            tracing::info!(%error, "progress not written");
        }
    }
    if !written.is_written() && !retries {
        return Ok(());
    }
    match verdict {
        Verdict::Waiting(reason, message) => announce(context, backup, *reason, message, false),
        Verdict::Started { member, .. } => {
            announce(
                context,
                backup,
                Reason::BackupRunning,
                &format!("taking the backup from {member}"),
                false,
            );
        }
        Verdict::Succeeded(report) => {
            let message = format!("{} is stored in bucket {}", report.backup_name, report.bucket);
            announce(context, backup, Reason::BackupSucceeded, &message, false);
            let seconds = i64::try_from(report.duration_seconds).unwrap_or(i64::MAX);
            context
                .metrics
                .succeeded(Operation::Backup, jiff::SignedDuration::from_secs(seconds));
            context
                .metrics
                .moved(report.uncompressed_size, report.compressed_size);
        }
        Verdict::Failed(reason, message) => {
            announce(context, backup, *reason, message, true);
            context.metrics.failed(Operation::Backup);
        }
        Verdict::Deleting => announce(
            context,
            backup,
            Reason::Deleting,
            "removing the data from the storage",
            false,
        ),
        Verdict::DeleteFailed(reason, message) => {
            announce(context, backup, *reason, message, true);
            context.metrics.failed(Operation::Delete);
        }
        Verdict::Nothing | Verdict::Running(_) | Verdict::Released(..) => {}
    }
    tracing::info!(state = %stage(backup), verdict = <&str>::from(verdict), "status changed");
    Ok(())
}

fn announce(context: &Context, backup: &PostgresBackup, reason: Reason, message: &str, bad: bool) {
    let note = if bad { Note::warning } else { Note::normal };
    context.events.publish(
        &backup.object_ref(&()),
        note(reason.as_str(), "Reconcile", message),
    );
}
