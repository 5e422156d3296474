//! The writer of progress: throttled, and unable to express a phase.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::Resource;
use serde_json::{Map, Value};

use crate::contract::{Phase, ProgressOf};
use crate::decide::{StatusPatch, document};
use crate::document::diff;
use crate::error::WriteError;
use crate::link::{End, Link, Step};
use crate::manager::FieldManager;
use crate::observe::WriteResult;
use crate::schema::SchemaFacts;
use crate::throttle::Throttle;

/// What became of a progress report, if it was no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Reported {
    /// The progress was written.
    Written,
    /// The object said so already.
    Unchanged,
    /// It is too early; the value is kept for [`ProgressWriter::flush`] unless a later one replaces it.
    Deferred,
    /// The object has reached a terminal phase and was left as it is.
    Terminal,
    /// The object is not there anymore.
    Gone,
    /// The installed definition does not keep progress.
    NotKept,
}

/// Writes the progress of objects of one kind: at most one write per [`INTERVAL`](crate::INTERVAL) and object.
///
/// It writes to [`StatusOf::PROGRESS_FIELD`](crate::StatusOf::PROGRESS_FIELD) and nowhere else, and leaves an object in
/// a terminal phase alone. Each request names the version of the object whose phase was looked at, so an object that
/// ends meanwhile is read again, and then left alone.
pub struct ProgressWriter<K: ProgressOf> {
    link: Arc<Link<K>>,
    manager: FieldManager,
    throttle: Mutex<Throttle<K::Progress>>,
}

impl<K: ProgressOf> fmt::Debug for ProgressWriter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressWriter")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl<K: ProgressOf> ProgressWriter<K> {
    /// Checked when the program is compiled: the kind has a field for progress, and it is no field of the status proper.
    const FIELD: &'static str = {
        assert!(
            K::PROGRESS_FIELD.is_some(),
            "a kind with progress names PROGRESS_FIELD"
        );
        let field = match K::PROGRESS_FIELD {
            Some(field) => field,
            None => "",
        };
        assert!(
            !same(field, K::PHASE_FIELD),
            "PROGRESS_FIELD must not be the phase"
        );
        assert!(
            !same(field, "conditions"),
            "PROGRESS_FIELD must not be the conditions"
        );
        assert!(
            !same(field, "observedGeneration"),
            "PROGRESS_FIELD must not be the generation"
        );
        field
    };

    pub(crate) fn new(link: Arc<Link<K>>, manager: FieldManager) -> Self {
        Self {
            link,
            manager,
            throttle: Mutex::new(Throttle::new()),
        }
    }

    /// Reports progress. `now` is the pass's reading of the monotonic clock.
    pub async fn report(
        &self,
        live: &K::Object,
        progress: &K::Progress,
        now: Instant,
    ) -> Result<Reported, WriteError> {
        if let Step::Stop(reported, result) = Self::step(&self.link.facts(), live, progress) {
            self.settle(live, reported);
            self.link.observe(self.manager, result);
            return Ok(reported);
        }
        if !self.throttle().admit(&uid::<K>(live), progress, now) {
            self.link.observe(self.manager, WriteResult::Unchanged);
            return Ok(Reported::Deferred);
        }
        self.send(live, progress, now).await
    }

    /// Writes the value that was deferred, if there is one, however early it is: the last value before an object ends.
    pub async fn flush(&self, live: &K::Object, now: Instant) -> Result<Reported, WriteError> {
        let pending = self.throttle().take(&uid::<K>(live), now);
        match pending {
            Some(progress) => self.send(live, &progress, now).await,
            None => Ok(Reported::Unchanged),
        }
    }

    /// Forgets an object. Objects that are seen to be gone or terminal are forgotten without being told.
    pub fn forget(&self, live: &K::Object) {
        self.throttle().forget(&uid::<K>(live));
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle<K::Progress>> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        &self,
        live: &K::Object,
        progress: &K::Progress,
        now: Instant,
    ) -> Result<Reported, WriteError> {
        let step = |facts: &SchemaFacts, _, object: &K::Object| Self::step(facts, object, progress);
        let reported = match self.link.write(self.manager, live, step).await {
            Ok(End::Stopped(reported)) => reported,
            Ok(End::Gone) => Reported::Gone,
            Ok(End::Written(object, stored)) => self.learn(&object, stored.as_ref(), progress),
            Err(error) => {
                self.throttle().put_back(&uid::<K>(live), progress.clone(), now);
                return Err(error);
            }
        };
        self.settle(live, reported);
        Ok(reported)
    }

    fn settle(&self, live: &K::Object, reported: Reported) {
        match reported {
            Reported::Terminal | Reported::Gone | Reported::NotKept => self.forget(live),
            Reported::Written | Reported::Unchanged | Reported::Deferred => {}
        }
    }

    fn learn(&self, object: &K::Object, stored: Option<&Value>, progress: &K::Progress) -> Reported {
        let Ok(sent) = document(progress) else {
            return Reported::Written;
        };
        let got = stored.and_then(|status| status.get(Self::FIELD));
        let typed = current::<K>(object, Self::FIELD).unwrap_or_default();
        self.link.learn(Self::FIELD, &Value::Object(sent), got, &typed);
        if self.link.facts().keeps(Self::FIELD) {
            Reported::Written
        } else {
            Reported::NotKept
        }
    }

    /// Decides what is to be done, purely.
    fn step(facts: &SchemaFacts, object: &K::Object, progress: &K::Progress) -> Step<Reported> {
        if Phase::<K>::is_terminal(&K::phase(K::status(object))) {
            return Step::Stop(Reported::Terminal, WriteResult::Refused);
        }
        let Ok(wanted) = document(progress) else {
            return Step::Stop(Reported::NotKept, WriteResult::Refused);
        };
        let live = current::<K>(object, Self::FIELD);
        let mut target = member(Self::FIELD, Value::Object(wanted));
        let mut source = live.map_or_else(|| Value::Object(Map::new()), |live| member(Self::FIELD, live));
        let dropped = facts.fit(&mut target, Some(&source));
        if dropped.contains(Self::FIELD) {
            return Step::Stop(Reported::NotKept, WriteResult::Refused);
        }
        facts.fit(&mut source, None);
        match diff(&source, &target) {
            Some(patch) => Step::Patch(StatusPatch::new(patch)),
            None => Step::Stop(Reported::Unchanged, WriteResult::Unchanged),
        }
    }
}

/// The progress in the status of an object.
fn current<K: ProgressOf>(object: &K::Object, field: &str) -> Option<Value> {
    let mut status = document(K::status(object)?).ok()?;
    status.remove(field)
}

fn member(field: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(field.to_owned(), value)]))
}

fn uid<K: ProgressOf>(object: &K::Object) -> String {
    object.meta().uid.clone().unwrap_or_default()
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}
