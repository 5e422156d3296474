//! Metrics whose labels come from closed sets.
//!
//! One [`Metrics`] per process, handed on by clones. A family is typed by its labels: only a type that implements [`Label`],
//! which can answer nothing but `&'static str`, can be one, so the name of an object cannot become a label by mistake.
//! Values that mirror the cluster are computed at scrape time ([`Metrics::scraped`]): a gauge that is set and
//! forgotten outlives the object it speaks of.

mod family;
mod label;
mod process;
mod standard;

pub use family::{Counter, Fed, Gauge, Histogram, Scraped};
pub use label::{ControllerName, Label, LabelSet, Version};
pub use standard::{EventResult, Outcome, Standard, WatchError};

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{Registry, TextEncoder};

/// Buckets in seconds for passes and calls: 5 ms to 2 min.
pub const SECONDS: &[f64] = &[
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// A metric cannot be registered or read.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The name breaks the rules.
    #[error("metric {name} {rule}")]
    Name {
        /// The name given.
        name: &'static str,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The name is taken by a family of another type.
    #[error("metric {name} exists with another type or other labels")]
    Taken {
        /// The name given.
        name: &'static str,
    },
    /// The prometheus library refuses it.
    #[error("cannot register metric {name}")]
    Register {
        /// The name given.
        name: &'static str,
        /// Why.
        source: prometheus::Error,
    },
    /// The registry cannot be written as text.
    #[error("cannot render metrics")]
    Render(#[source] prometheus::Error),
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// Only grows; reset by a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// A family as the documentation lists it, whether it has samples yet or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names, each with its possible values; no values where the binary fixes them.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
}

/// The registry of the process.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
    any_name: bool,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    families: Mutex<BTreeMap<&'static str, Registered>>,
}

struct Registered {
    description: Description,
    family: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry; [`Standard::register`] adds what every controller has.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same registry, accepting names without our prefix: those that a peer's dashboards already query.
    #[must_use]
    pub fn of_peer(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            any_name: true,
        }
    }

    /// A counter; its name ends in `_total`. Asking again for the same gives the same family.
    pub fn counter<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
    ) -> Result<Counter<L>, MetricsError> {
        if !name.ends_with("_total") {
            return Err(MetricsError::Name {
                name,
                rule: "counts, so it must end in _total",
            });
        }
        self.family(name, help, Kind::Counter, L::describe(), || {
            Counter::new(name, help)
        })
    }

    /// A gauge that is set. For what mirrors the cluster use [`Metrics::scraped`].
    pub fn gauge<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
    ) -> Result<Gauge<L>, MetricsError> {
        self.family(name, help, Kind::Gauge, L::describe(), || Gauge::new(name, help))
    }

    /// A histogram with these upper bounds, in the base unit that the name ends in.
    pub fn histogram<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
    ) -> Result<Histogram<L>, MetricsError> {
        self.family(name, help, Kind::Histogram, L::describe(), || {
            Histogram::new(name, help, buckets)
        })
    }

    /// A gauge computed when it is scraped. It has no samples until [`Scraped::feed`] and none after the feed's guard is dropped.
    pub fn scraped<L: LabelSet>(
        &self,
        name: &'static str,
        help: &'static str,
    ) -> Result<Scraped<L>, MetricsError> {
        self.family(name, help, Kind::Gauge, L::describe(), || {
            Scraped::new(name, help)
        })
    }

    /// All families in the order of their names, for the documentation; also those without samples.
    pub fn describe(&self) -> Vec<Description> {
        let families = self.inner.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.values().map(|r| r.description.clone()).collect()
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Result<String, MetricsError> {
        TextEncoder::new()
            .encode_to_string(&self.inner.registry.gather())
            .map_err(MetricsError::Render)
    }

    fn family<F>(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: Vec<(&'static str, Vec<&'static str>)>,
        make: impl FnOnce() -> Result<(F, Box<dyn prometheus::core::Collector>), prometheus::Error>,
    ) -> Result<F, MetricsError>
    where
        F: Clone + Send + Sync + 'static,
    {
        if !self.any_name && !name.starts_with("holdfast_") {
            return Err(MetricsError::Name {
                name,
                rule: "must start with holdfast_",
            });
        }
        let mut families = self.inner.families.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = families.get(name) {
            return known
                .family
                .downcast_ref::<F>()
                .cloned()
                .ok_or(MetricsError::Taken { name });
        }
        let (family, collector) = make().map_err(|source| MetricsError::Register { name, source })?;
        self.inner
            .registry
            .register(collector)
            .map_err(|source| MetricsError::Register { name, source })?;
        let description = Description {
            name,
            kind,
            help,
            labels,
        };
        families.insert(
            name,
            Registered {
                description,
                family: Box::new(family.clone()),
            },
        );
        Ok(family)
    }

    /// Adds a collector that describes itself, such as the process's.
    fn collector(
        &self,
        descriptions: Vec<Description>,
        collector: Box<dyn prometheus::core::Collector>,
    ) -> Result<(), MetricsError> {
        let mut families = self.inner.families.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = descriptions
            .first()
            .map(|d| d.name)
            .filter(|name| !families.contains_key(name))
        else {
            return Ok(());
        };
        self.inner
            .registry
            .register(collector)
            .map_err(|source| MetricsError::Register { name, source })?;
        for description in descriptions {
            families.insert(
                description.name,
                Registered {
                    description,
                    family: Box::new(()),
                },
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
