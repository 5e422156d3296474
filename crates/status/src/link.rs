//! The only place that talks to the API server to write: calls with deadlines, and the loop around a conflict.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::Value;

use crate::contract::{StatusOf, Target};
use crate::decide::StatusPatch;
use crate::document::strip_nulls;
use crate::error::WriteError;
use crate::manager::FieldManager;
use crate::observe::{Observer, WriteResult};
use crate::schema::SchemaFacts;
use crate::writer::Settings;

/// A client for one kind, and what has been learned about the kind's definition.
pub(crate) struct Link<K> {
    client: Client,
    resource: ApiResource,
    deadline: Duration,
    attempts: u32,
    observer: Option<Arc<dyn Observer>>,
    facts: Mutex<Arc<SchemaFacts>>,
    kind: PhantomData<fn() -> K>,
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

/// A status as the API server sent it, without null members.
pub(crate) type Stored = Option<Value>;

/// How one PATCH ended, if not by an error.
enum Answer<O> {
    Taken(Box<O>, Stored),
    Conflict,
    NotFound,
}

/// What is needed to name an object in a request.
struct Address {
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    label: String,
}

impl<K: StatusOf> Link<K> {
    pub(crate) fn new(client: Client, settings: Settings) -> Self {
        Self {
            client,
            resource: ApiResource::erase::<K::Object>(&()),
            deadline: settings.deadline,
            attempts: settings.attempts.max(1),
            observer: settings.observer,
            facts: Mutex::new(Arc::new(settings.facts)),
            kind: PhantomData,
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
        let kind = self.resource.kind.as_str();
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
                kind = self.resource.kind.as_str(),
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
            match self.patch(&address, target, manager, patch.body(version)).await {
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

    fn api(&self, address: &Address) -> Api<DynamicObject> {
        // Dynamic, because only a dynamic kind may be either namespaced or not.
        match &address.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &self.resource),
            None => Api::all_with(self.client.clone(), &self.resource),
        }
    }

    /// Reads the object again; `None` if it is gone, also if another one has its name now.
    async fn read(&self, manager: FieldManager, address: &Address) -> Result<Option<Found<K>>, WriteError> {
        let found = match self
            .within(address, "reading it", self.api(address).get_opt(&address.name))
            .await
        {
            Ok(Ok(found)) => found,
            Ok(Err(source)) => return Err(self.failed(manager, address.failed("reading it", source))),
            Err(error) => return Err(self.failed(manager, error)),
        };
        found
            .filter(|object| address.uid.is_none() || object.metadata.uid == address.uid)
            .map(|object| typed::<K>(address, object))
            .transpose()
            .map_err(|error| self.failed(manager, error))
    }

    async fn patch(
        &self,
        address: &Address,
        target: Target,
        manager: FieldManager,
        body: Value,
    ) -> Result<Answer<K::Object>, WriteError> {
        const CALL: &str = "patching its status";
        let api = self.api(address);
        let params = PatchParams {
            field_manager: Some(manager.to_string()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(body);
        let answer = match target {
            Target::Subresource => {
                #[expect(clippy::disallowed_methods, reason = "the one place that writes a status")]
                let call = api.patch_status(&address.name, &params, &patch);
                self.within(address, CALL, call).await?
            }
            Target::Main => {
                self.within(address, CALL, api.patch(&address.name, &params, &patch))
                    .await?
            }
        };
        match answer {
            Ok(object) => {
                let (object, stored) = typed::<K>(address, object)?;
                Ok(Answer::Taken(object, stored))
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Answer::Conflict),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Answer::NotFound),
            Err(source) => Err(address.failed(CALL, source)),
        }
    }

    async fn within<T>(
        &self,
        address: &Address,
        call: &'static str,
        work: impl Future<Output = T> + Send,
    ) -> Result<T, WriteError> {
        let deadline = self.deadline;
        tokio::time::timeout(deadline, work)
            .await
            .map_err(|_| WriteError::Deadline {
                object: address.label.clone(),
                call,
                deadline,
            })
    }
}

/// An object, and its status as it came.
type Found<K> = (Box<<K as StatusOf>::Object>, Stored);

fn typed<K: StatusOf>(address: &Address, object: DynamicObject) -> Result<Found<K>, WriteError> {
    let mut stored = object.data.get("status").cloned();
    stored.iter_mut().for_each(strip_nulls);
    let object = serde_json::to_value(object).and_then(serde_json::from_value);
    match object {
        Ok(object) => Ok((Box::new(object), stored)),
        Err(source) => Err(WriteError::Malformed {
            object: address.label.clone(),
            source,
        }),
    }
}

impl Address {
    fn of<K: StatusOf>(object: &K::Object) -> Result<Self, WriteError> {
        let meta = object.meta();
        let name = meta.name.clone().unwrap_or_default();
        let place = meta
            .namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("{namespace}/"));
        let label = format!("{} {place}{name}", K::Object::kind(&()));
        if name.is_empty() {
            return Err(WriteError::Unread {
                object: label,
                field: "name",
            });
        }
        Ok(Self {
            namespace: meta.namespace.clone(),
            name,
            uid: meta.uid.clone(),
            label,
        })
    }

    fn version<'a, K: StatusOf>(&self, object: &'a K::Object) -> Result<&'a str, WriteError> {
        let version = object
            .meta()
            .resource_version
            .as_deref()
            .filter(|version| !version.is_empty());
        version.ok_or_else(|| WriteError::Unread {
            object: self.label.clone(),
            field: "resourceVersion",
        })
    }

    fn failed(&self, call: &'static str, source: kube::Error) -> WriteError {
        WriteError::Api {
            object: self.label.clone(),
            call,
            source: Box::new(source),
        }
    }
}
