//! Families typed by their labels.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::LabelSet;

type Made<F> = Result<(F, Box<dyn Collector>), prometheus::Error>;

/// A counter with the labels `L`.
#[derive(Debug)]
pub struct Counter<L> {
    vec: IntCounterVec,
    labels: PhantomData<fn(L)>,
}

impl<L> Clone for Counter<L> {
    fn clone(&self) -> Self {
        Self {
            vec: self.vec.clone(),
            labels: PhantomData,
        }
    }
}

impl<L: LabelSet> Counter<L> {
    pub(super) fn new(name: &str, help: &str) -> Made<Self> {
        let vec = IntCounterVec::new(Opts::new(name, help), &L::names())?;
        let counter = Self {
            vec: vec.clone(),
            labels: PhantomData,
        };
        // A series that starts at zero lets `rate()` see the first increment.
        for labels in L::every() {
            counter.add(labels, 0);
        }
        Ok((counter, Box::new(vec)))
    }

    /// One more.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// `n` more; zero makes the series visible.
    pub fn add(&self, labels: L, n: u64) {
        self.vec.with_label_values(&labels.values()).inc_by(n);
    }

    /// The count so far; zero for a series never touched.
    pub fn get(&self, labels: L) -> u64 {
        self.vec.with_label_values(&labels.values()).get()
    }
}

/// A gauge with the labels `L`.
#[derive(Debug)]
pub struct Gauge<L> {
    vec: GaugeVec,
    labels: PhantomData<fn(L)>,
}

impl<L> Clone for Gauge<L> {
    fn clone(&self) -> Self {
        Self {
            vec: self.vec.clone(),
            labels: PhantomData,
        }
    }
}

impl<L: LabelSet> Gauge<L> {
    pub(super) fn new(name: &str, help: &str) -> Made<Self> {
        let vec = GaugeVec::new(Opts::new(name, help), &L::names())?;
        Ok((
            Self {
                vec: vec.clone(),
                labels: PhantomData,
            },
            Box::new(vec),
        ))
    }

    /// Sets the value.
    pub fn set(&self, labels: L, value: f64) {
        self.vec.with_label_values(&labels.values()).set(value);
    }

    /// The value last set.
    pub fn get(&self, labels: L) -> f64 {
        self.vec.with_label_values(&labels.values()).get()
    }
}

/// A histogram with the labels `L`.
#[derive(Debug)]
pub struct Histogram<L> {
    vec: HistogramVec,
    labels: PhantomData<fn(L)>,
}

impl<L> Clone for Histogram<L> {
    fn clone(&self) -> Self {
        Self {
            vec: self.vec.clone(),
            labels: PhantomData,
        }
    }
}

impl<L: LabelSet> Histogram<L> {
    pub(super) fn new(name: &str, help: &str, buckets: &[f64]) -> Made<Self> {
        let vec = HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
            &L::names(),
        )?;
        Ok((
            Self {
                vec: vec.clone(),
                labels: PhantomData,
            },
            Box::new(vec),
        ))
    }

    /// One observation, in the family's base unit.
    pub fn observe(&self, labels: L, value: f64) {
        self.vec.with_label_values(&labels.values()).observe(value);
    }

    /// One observation of a family in seconds.
    pub fn observe_duration(&self, labels: L, duration: Duration) {
        self.observe(labels, duration.as_secs_f64());
    }

    /// How many observations there were.
    pub fn count(&self, labels: L) -> u64 {
        self.vec.with_label_values(&labels.values()).get_sample_count()
    }
}

type Feed<L> = dyn Fn() -> Vec<(L, f64)> + Send + Sync;

/// A gauge whose samples are computed when it is scraped.
pub struct Scraped<L: LabelSet> {
    slot: Arc<Mutex<Slot<L>>>,
}

struct Slot<L> {
    turn: u64,
    feed: Option<Arc<Feed<L>>>,
}

impl<L: LabelSet> std::fmt::Debug for Scraped<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scraped")
            .field("labels", &L::names())
            .finish_non_exhaustive()
    }
}

impl<L: LabelSet> Clone for Scraped<L> {
    fn clone(&self) -> Self {
        Self {
            slot: self.slot.clone(),
        }
    }
}

impl<L: LabelSet> Scraped<L> {
    pub(super) fn new(name: &str, help: &str) -> Made<Self> {
        let slot = Arc::new(Mutex::new(Slot { turn: 0, feed: None }));
        let opts = Opts::new(name, help);
        let desc = GaugeVec::new(opts.clone(), &L::names())?
            .desc()
            .into_iter()
            .cloned()
            .collect();
        Ok((Self { slot: slot.clone() }, Box::new(Scrape { opts, desc, slot })))
    }

    /// Computes the samples with `feed` from now on, in place of an earlier feed, until the guard is dropped.
    ///
    /// `feed` runs during each scrape: it may read a cache, and must not wait for I/O.
    pub fn feed(&self, feed: impl Fn() -> Vec<(L, f64)> + Send + Sync + 'static) -> Fed {
        let turn = {
            let mut slot = lock(&self.slot);
            slot.turn += 1;
            slot.feed = Some(Arc::new(feed));
            slot.turn
        };
        let slot = self.slot.clone();
        Fed(Some(Box::new(move || {
            let mut slot = lock(&slot);
            if slot.turn == turn {
                slot.feed = None;
            }
        })))
    }
}

/// Keeps a feed in place; when it is dropped, the samples go.
#[must_use = "a dropped feed exports nothing"]
pub struct Fed(Option<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for Fed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fed")
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop();
        }
    }
}

struct Scrape<L> {
    opts: Opts,
    desc: Vec<Desc>,
    slot: Arc<Mutex<Slot<L>>>,
}

impl<L: LabelSet> Collector for Scrape<L> {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Cloned out, so that a slow feed does not hold the lock against its own replacement.
        let Some(feed) = lock(&self.slot).feed.clone() else {
            return Vec::new();
        };
        let Ok(vec) = GaugeVec::new(self.opts.clone(), &L::names()) else {
            return Vec::new();
        };
        for (labels, value) in feed() {
            vec.with_label_values(&labels.values()).set(value);
        }
        vec.collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
