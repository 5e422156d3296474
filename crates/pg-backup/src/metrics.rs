//! The metrics of this controller, besides those that every controller has.

use holdfast_api::alauda_v1::{BackupState, PostgresBackup};
use holdfast_runtime::metrics::{Counter, Fed, Histogram, Label, Metrics as Registry, MetricsError, Scraped};
use jiff::SignedDuration;
use kube::runtime::reflector::Store;
use strum::VariantArray;

use crate::build::job::Operation;
use crate::observe::stage;

/// Bounds of the histogram of durations: from a small database to one that takes a day, in seconds.
const DURATIONS: &[f64] = &[
    10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0,
];

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Ending {
    /// As wished.
    Succeeded,
    /// Not as wished.
    Failed,
}

impl Label for Ending {
    const NAME: &'static str = "outcome";

    fn all() -> &'static [Self] {
        Self::VARIANTS
    }

    fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Label for Operation {
    const NAME: &'static str = "operation";

    fn all() -> &'static [Self] {
        Self::VARIANTS
    }

    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A state as a label; `accepted` where the object has the empty word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "camelCase")]
pub enum StateLabel {
    /// Not started.
    Accepted,
    /// The job exists.
    Running,
    /// No backup came of it.
    Failed,
    /// Read back and found whole.
    Succeeded,
    /// The data could not be removed yet.
    DeleteFailed,
    /// A word of a newer release.
    Unknown,
}

impl Label for StateLabel {
    const NAME: &'static str = "state";

    fn all() -> &'static [Self] {
        Self::VARIANTS
    }

    fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<&BackupState> for StateLabel {
    fn from(state: &BackupState) -> Self {
        match state {
            BackupState::Accepted => Self::Accepted,
            BackupState::Running => Self::Running,
            BackupState::Failed => Self::Failed,
            BackupState::Succeeded => Self::Succeeded,
            BackupState::DeleteFailed => Self::DeleteFailed,
            BackupState::Unknown(_) => Self::Unknown,
        }
    }
}

/// Handles of the families.
#[derive(Debug)]
pub struct Metrics {
    operations: Counter<(Operation, Ending)>,
    durations: Histogram<(Operation,)>,
    stored: Counter<()>,
    read: Counter<()>,
    backups: Scraped<(StateLabel,)>,
}

impl Metrics {
    /// Registers the families.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        Ok(Self {
            operations: registry.counter(
                "holdfast_operations_total",
                "Backups taken and backups removed from the storage, by how that ended.",
            )?,
            durations: registry.histogram(
                "holdfast_operation_duration_seconds",
                "How long operations took that ended well.",
                DURATIONS,
            )?,
            stored: registry.counter(
                "holdfast_stored_bytes_total",
                "Bytes of succeeded backups as stored.",
            )?,
            read: registry.counter(
                "holdfast_read_bytes_total",
                "Bytes of succeeded backups before compression.",
            )?,
            backups: registry.scraped("holdfast_backups", "PostgresBackups that exist, by state.")?,
        })
    }

    /// Counts the objects of `store` at each scrape, so that a restart or a deletion leaves no wrong value, until the
    /// answer is dropped.
    pub fn count_backups(&self, store: Store<PostgresBackup>) -> Fed {
        self.backups.feed(move || {
            let states: Vec<StateLabel> = store
                .state()
                .iter()
                .map(|backup| (&stage(backup)).into())
                .collect();
            let count = |label: StateLabel| states.iter().filter(|state| **state == label).count();
            StateLabel::VARIANTS
                .iter()
                // Far below 2^52 objects fit into a cluster.
                .map(|label| {
                    (
                        (*label,),
                        f64::from(u32::try_from(count(*label)).unwrap_or(u32::MAX)),
                    )
                })
                .collect()
        })
    }

    /// An operation ended badly.
    pub fn failed(&self, operation: Operation) {
        self.operations.inc((operation, Ending::Failed));
    }

    /// An operation ended well, after this time.
    pub fn succeeded(&self, operation: Operation, took: SignedDuration) {
        self.operations.inc((operation, Ending::Succeeded));
        self.durations.observe((operation,), took.as_secs_f64());
    }

    /// This much was read and stored.
    pub fn moved(&self, read: u64, stored: u64) {
        self.read.add((), read);
        self.stored.add((), stored);
    }
}
