//! The families that every controller exports under the same names.

use holdfast_status::{FieldManager, Observer, WriteResult};

use super::{
    ControllerName, Counter, Gauge, Histogram, Label, Metrics, MetricsError, SECONDS, Version, process,
};

/// Implements [`Label`] for an enum whose strum names are the exported values.
macro_rules! label {
    ($type:ty, $name:literal) => {
        impl Label for $type {
            const NAME: &'static str = $name;
            fn all() -> &'static [Self] {
                <Self as strum::VariantArray>::VARIANTS
            }
            fn as_str(self) -> &'static str {
                self.into()
            }
        }
    };
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// Nothing is left to do until the object changes.
    Completed,
    /// The pass waits for something and comes back.
    Waiting,
    /// The object is wrong; the pass comes back when it changes.
    Invalid,
    /// Rights or credentials are missing.
    Denied,
    /// Somebody else wrote first.
    Conflict,
    /// The other side is slow, down or overloaded.
    Transient,
    /// The pass ran into its deadline.
    TimedOut,
    /// The pass panicked: a defect.
    Panicked,
}

/// Why a watch had to be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum WatchError {
    /// The list or the start of the watch failed, or the stream broke.
    Failed,
    /// The API server had forgotten the version (410); the watch lists again.
    Expired,
    /// Rights are missing.
    Denied,
}

/// What became of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum EventResult {
    /// Stored.
    Published,
    /// The API server refused it or did not answer.
    Failed,
    /// Too many were waiting.
    Dropped,
}

label!(Outcome, "outcome");
label!(WatchError, "cause");
label!(EventResult, "result");

impl Label for WriteResult {
    const NAME: &'static str = "result";
    fn all() -> &'static [Self] {
        use WriteResult::{Conflict, Failed, Gone, Refused, Timeout, Unchanged, Written};
        &[Written, Unchanged, Conflict, Refused, Gone, Timeout, Failed]
    }
    fn as_str(self) -> &'static str {
        WriteResult::as_str(self)
    }
}

/// Handles of the families that the runtime itself feeds.
#[derive(Clone, Debug)]
pub struct Standard {
    /// `holdfast_reconciliations_total`.
    pub reconciliations: Counter<(ControllerName, Outcome)>,
    /// `holdfast_reconciliation_duration_seconds`.
    pub duration: Histogram<(ControllerName,)>,
    /// `holdfast_status_writes_total`.
    pub status_writes: Counter<(ControllerName, WriteResult)>,
    /// `holdfast_watch_errors_total`.
    pub watch_errors: Counter<(ControllerName, WatchError)>,
    /// `holdfast_malformed_objects_total`.
    pub malformed: Counter<(ControllerName,)>,
    /// `holdfast_events_total`.
    pub events: Counter<(EventResult,)>,
    /// `holdfast_leader`.
    pub leader: Gauge<()>,
}

impl Standard {
    /// Registers the families, `holdfast_build_info` and the process's own.
    pub fn register(metrics: &Metrics, version: &'static str) -> Result<Self, MetricsError> {
        let build = metrics.gauge::<(Version,)>(
            "holdfast_build_info",
            "Always 1; the label is the version that runs.",
        )?;
        build.set((Version(version),), 1.0);
        let (descriptions, collector) = process::collector();
        metrics.collector(descriptions, collector)?;
        Ok(Self {
            reconciliations: metrics.counter(
                "holdfast_reconciliations_total",
                "Reconcile passes, by how they ended.",
            )?,
            duration: metrics.histogram(
                "holdfast_reconciliation_duration_seconds",
                "How long reconcile passes took.",
                SECONDS,
            )?,
            status_writes: metrics.counter(
                "holdfast_status_writes_total",
                "Status writes, by what became of them.",
            )?,
            watch_errors: metrics
                .counter("holdfast_watch_errors_total", "Watches that had to start again.")?,
            malformed: metrics.counter(
                "holdfast_malformed_objects_total",
                "Objects seen that do not have the form of their kind; the log and an Event name each.",
            )?,
            events: metrics.counter("holdfast_events_total", "Events, by what became of them.")?,
            leader: metrics.gauge("holdfast_leader", "1 while this replica does the work, else 0.")?,
        })
    }

    /// Counts what `holdfast_status` writes, under the controller that the field manager names.
    pub fn status_observer(&self) -> impl Observer + Clone + use<> {
        let writes = self.status_writes.clone();
        move |manager: FieldManager, result| writes.inc((ControllerName(manager.controller()), result))
    }

    /// Makes all series of a controller visible at zero.
    pub fn announce(&self, controller: ControllerName) {
        for outcome in Outcome::all() {
            self.reconciliations.add((controller, *outcome), 0);
        }
        for result in WriteResult::all() {
            self.status_writes.add((controller, *result), 0);
        }
        for cause in WatchError::all() {
            self.watch_errors.add((controller, *cause), 0);
        }
        self.malformed.add((controller,), 0);
    }
}
