//! The loop around a conflict, and what it learns about the installed definition.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kube::{Client, Resource};
use serde_json::Value;

use crate::calls::{Address, Answer, Calls, Found, Stored};
use crate::contract::{StatusOf, Target};
use crate::decide::StatusPatch;
use crate::error::WriteError;
use crate::manager::FieldManager;
use crate::observe::{Observer, WriteResult};
use crate::schema::SchemaFacts;
use crate::writer::Settings;

/// The way to one kind, shared by its writers: the calls, and what has been learned about the kind's definition.
pub(crate) struct Link<K> {
    calls: Calls<K>,
    attempts: u32,
    observer: Option<Arc<dyn Observer>>,
    facts: Mutex<Arc<SchemaFacts>>,
}

/// What is to be done with the object as it is now.
pub(crate) enum Step<T> {
    /// Nothing.
    Stop(T, WriteResult),
    /// This patch is to be sent.
    Patch(StatusPatch),
}

/// How the loop ended, if not by an error.
pub(crate) enum End<K: StatusOf, T> {
    Stopped(T),
    Written(Box<K::Object>, Stored),
    Gone,
}

impl<K: StatusOf> Link<K> {
    pub(crate) fn new(client: Client, settings: Settings) -> Self {
        Self {
            calls: Calls::new(client, settings.deadline),
            attempts: settings.attempts.max(1),
            observer: settings.observer,
            facts: Mutex::new(Arc::new(settings.facts)),
        }
    }

    pub(crate) fn facts(&self) -> Arc<SchemaFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn observe(&self, manager: FieldManager, result: WriteResult) {
        if let Some(observer) = &self.observer {
            observer.observe(manager, result);
        }
    }

    /// Compares what was sent with what came back, remembers and tells what the definition does not keep.
    pub(crate) fn learn(&self, path: &str, sent: &Value, got: Option<&Value>, typed: &Value) {
        let lesson = {
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut facts).learn(path, sent, got, typed)
        };
        let kind = K::Object::kind(&());
        let kind = kind.as_ref();
        for path in &lesson.pruned {
            tracing::warn!(
                kind,
                path,
                "the installed definition does not keep this status field; not sent again"
            );
        }
        for path in &lesson.defaulted {
            tracing::warn!(
                kind,
                path,
                "the API server puts this status field back; left as it is from now on"
            );
        }
        for path in &lesson.altered {
            tracing::warn!(
                kind,
                path,
                "the API server stored another value than the one sent"
            );
        }
    }

    fn set_target(&self, target: Target) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.target() != Some(target) {
            Arc::make_mut(&mut facts).set_target(target);
            tracing::warn!(
                kind = K::Object::kind(&()).as_ref(),
                ?target,
                "the status is written elsewhere than expected"
            );
        }
    }

    /// Asks `step` what to do and does it; on a conflict reads the object again and asks again, a bounded number of times.
    pub(crate) async fn write<T>(
        &self,
        manager: FieldManager,
        live: &K::Object,
        mut step: impl FnMut(&SchemaFacts, Target, &K::Object) -> Step<T> + Send,
    ) -> Result<End<K, T>, WriteError>
    where
        T: Send,
    {
        let address = Address::of::<K>(live)?;
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .with_max_times(self.attempts as usize)
            .build();
        let mut newer: Option<Box<K::Object>> = None;
        let mut switched = false;
        for attempt in 1..=self.attempts {
            let object = newer.as_deref().unwrap_or(live);
            let facts = self.facts();
            let target = facts.target().unwrap_or(K::TARGET);
            let patch = match step(&facts, target, object) {
                Step::Stop(end, result) => {
                    self.observe(manager, result);
                    return Ok(End::Stopped(end));
                }
                Step::Patch(patch) => patch,
            };
            let version = address.version::<K>(object)?;
            match self
                .calls
                .patch(&address, target, manager, patch.body(version))
                .await
            {
                // A patch that changes nothing moves no version: a definition with a subresource ignores the status here.
                Ok(Answer::Taken(object, _))
                    if target == Target::Main
                        && !switched
                        && facts.target().is_none()
                        && object.meta().resource_version.as_deref() == Some(version) =>
                {
                    switched = true;
                    self.set_target(Target::Subresource);
                    newer = Some(object);
                }
                Ok(Answer::Taken(object, stored)) => {
                    self.observe(manager, WriteResult::Written);
                    return Ok(End::Written(object, stored));
                }
                Ok(Answer::Conflict) => {
                    self.observe(manager, WriteResult::Conflict);
                    if attempt == self.attempts {
                        break;
                    }
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                    match self.read(manager, &address).await? {
                        Some((object, _)) => newer = Some(object),
                        None => return Ok(self.gone(manager)),
                    }
                }
                Ok(Answer::NotFound) => {
                    let found = match target {
                        // No object, or no subresource: only a read can tell.
                        Target::Subresource => self.read(manager, &address).await?,
                        Target::Main => None,
                    };
                    let Some((object, stored)) = found else {
                        return Ok(self.gone(manager));
                    };
                    self.set_target(Target::Main);
                    if switched {
                        // Neither place takes it: what was sent is not kept, as a look at the object will show.
                        self.observe(manager, WriteResult::Written);
                        return Ok(End::Written(object, stored));
                    }
                    switched = true;
                    newer = Some(object);
                }
                Err(error) => return Err(self.failed(manager, error)),
            }
        }
        Err(WriteError::Conflict {
            object: address.label,
            attempts: self.attempts,
        })
    }

    fn gone<T>(&self, manager: FieldManager) -> End<K, T> {
        self.observe(manager, WriteResult::Gone);
        End::Gone
    }

    async fn read(&self, manager: FieldManager, address: &Address) -> Result<Option<Found<K>>, WriteError> {
        self.calls
            .read(address)
            .await
            .map_err(|error| self.failed(manager, error))
    }

    fn failed(&self, manager: FieldManager, error: WriteError) -> WriteError {
        let timeout = matches!(error, WriteError::Deadline { .. });
        self.observe(
            manager,
            if timeout {
                WriteResult::Timeout
            } else {
                WriteResult::Failed
            },
        );
        error
    }
}
