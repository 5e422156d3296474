//! What the agent shows while it works: `/progress`, `/metrics`, `/livez`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_runtime::admin::{Admin, Reply};
use holdfast_runtime::metrics::{Fed, Metrics};
use holdfast_runtime::readiness::Readiness;
use holdfast_walg::{Phase as WalgPhase, Progress};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::failure::Failure;
use super::report::{FailureReason, Phase, ProgressReport};

/// Where a run reads from and writes to; changes when it turns to the alternate host.
#[derive(Debug, Default)]
pub(super) struct Where(Mutex<Place>);

#[derive(Clone, Debug, Default)]
struct Place {
    bucket: Option<String>,
    path: Option<String>,
    host: Option<String>,
}

impl Where {
    pub(super) fn set(&self, bucket: &str, path: &str, host: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Place {
            bucket: Some(bucket.to_owned()),
            path: Some(path.to_owned()),
            host: Some(host.to_owned()),
        };
    }
}

/// What `GET /progress` answers.
pub(super) fn snapshot(progress: &Progress, place: &Where) -> ProgressReport {
    let place = place.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ProgressReport {
        phase: match progress.phase() {
            WalgPhase::Preparing => Phase::Preparing,
            WalgPhase::Checkpoint => Phase::Checkpoint,
            WalgPhase::Copying => Phase::Copying,
            WalgPhase::ArchivingWal => Phase::ArchivingWal,
            WalgPhase::Verifying => Phase::Verifying,
            WalgPhase::Finished => Phase::Finished,
        },
        bytes_done: progress.read(),
        total_bytes: progress.total(),
        bytes_uploaded: progress.stored(),
        wal_segments: progress.segments(),
        backup_name: progress.name(),
        bucket: place.bucket,
        path: place.path,
        host: place.host,
    }
}

/// The server; it stops when dropped.
#[derive(Debug)]
pub(super) struct Served {
    _task: AbortOnDropHandle<()>,
    _feeds: Vec<Fed>,
}

/// Begins to answer at `address`.
pub(super) async fn serve(
    address: SocketAddr,
    progress: &Arc<Progress>,
    place: &Arc<Where>,
    stop: &CancellationToken,
) -> Result<Served, Failure> {
    let metrics = Metrics::new();
    let feeds = feed(&metrics, progress).map_err(|error| {
        Failure::new(
            FailureReason::Internal,
            format!("cannot register metrics: {error}"),
        )
    })?;
    let admin = Admin::bind(address, &Readiness::new(), &metrics)
        .await
        .map_err(|error| {
            Failure::new(
                FailureReason::InvalidArguments,
                format!("cannot listen on {address}: {error}"),
            )
        })?;
    let (progress, place) = (Arc::clone(progress), Arc::clone(place));
    let admin = admin.route("/progress", move || {
        let report = serde_json::to_vec(&snapshot(&progress, &place)).unwrap_or_default();
        Box::pin(std::future::ready(Reply::json(report)))
    });
    let task = tokio::spawn(admin.serve(stop.child_token()));
    Ok(Served {
        _task: AbortOnDropHandle::new(task),
        _feeds: feeds,
    })
}

fn feed(
    metrics: &Metrics,
    progress: &Arc<Progress>,
) -> Result<Vec<Fed>, holdfast_runtime::metrics::MetricsError> {
    type Read = fn(&Progress) -> u64;
    let gauges: [(&'static str, &'static str, Read); 4] = [
        (
            "holdfast_agent_read_bytes",
            "Bytes read from the server so far.",
            Progress::read,
        ),
        (
            "holdfast_agent_expected_bytes",
            "Bytes the server expects to send; 0 while unknown.",
            Progress::total,
        ),
        (
            "holdfast_agent_stored_bytes",
            "Bytes stored so far, compressed.",
            Progress::stored,
        ),
        (
            "holdfast_agent_stored_segments",
            "WAL segments stored so far.",
            Progress::segments,
        ),
    ];
    gauges
        .into_iter()
        .map(|(name, help, read)| {
            let progress = Arc::clone(progress);
            #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
            let samples = move || vec![((), read(&progress) as f64)];
            Ok(metrics.scraped::<()>(name, help)?.feed(samples))
        })
        .collect()
}
