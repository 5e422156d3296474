//! The calls to the API server, each with a deadline.

use std::marker::PhantomData;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource};
use serde_json::Value;

use crate::contract::{StatusOf, Target};
use crate::document::strip_nulls;
use crate::error::WriteError;
use crate::manager::FieldManager;

/// The two calls that a status needs, for one kind.
pub(crate) struct Calls<K> {
    client: Client,
    resource: ApiResource,
    deadline: Duration,
    kind: PhantomData<fn() -> K>,
}

/// A status as the API server sent it, without null members.
pub(crate) type Stored = Option<Value>;

/// How one PATCH ended, if not by an error.
pub(crate) enum Answer<O> {
    Taken(Box<O>, Stored),
    Conflict,
    NotFound,
}

/// What is needed to name an object in a request.
pub(crate) struct Address {
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    /// Kind, namespace and name, for people.
    pub(crate) label: String,
}

impl<K: StatusOf> Calls<K> {
    pub(crate) fn new(client: Client, deadline: Duration) -> Self {
        Self {
            client,
            resource: ApiResource::erase::<K::Object>(&()),
            deadline,
            kind: PhantomData,
        }
    }

    fn api(&self, address: &Address) -> Api<DynamicObject> {
        // Dynamic, because only a dynamic kind may be either namespaced or not.
        match &address.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &self.resource),
            None => Api::all_with(self.client.clone(), &self.resource),
        }
    }

    /// Reads the object again; `None` if it is gone, also if another one has its name now.
    pub(crate) async fn read(&self, address: &Address) -> Result<Option<Found<K>>, WriteError> {
        const CALL: &str = "reading it";
        let found = self
            .within(address, CALL, self.api(address).get_opt(&address.name))
            .await?;
        found
            .map_err(|source| address.failed(CALL, source))?
            .filter(|object| address.uid.is_none() || object.metadata.uid == address.uid)
            .map(|object| typed::<K>(address, object))
            .transpose()
    }

    /// Sends a patch to where the status is written.
    pub(crate) async fn patch(
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
pub(crate) type Found<K> = (Box<<K as StatusOf>::Object>, Stored);

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
    pub(crate) fn of<K: StatusOf>(object: &K::Object) -> Result<Self, WriteError> {
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

    pub(crate) fn version<'a, K: StatusOf>(&self, object: &'a K::Object) -> Result<&'a str, WriteError> {
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
