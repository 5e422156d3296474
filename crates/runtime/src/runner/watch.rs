//! The watches: which there are, what they yield, and what they report.

use std::fmt::Debug;

use futures::{Stream, StreamExt, future, stream};
use holdfast_fault::Class;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, Resource,
    api::PartialObjectMeta,
    core::{ClusterResourceScope, DeserializeGuard, NamespaceResourceScope, error_boundary::InvalidObject},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;

use super::cache::{Key, Read};
use crate::{
    api_error::{chain, class_of},
    metrics::{ControllerName, Label, Standard, WatchError},
    readiness::{Latch, Readiness},
    term::Term,
};

/// An object that does not have the form of its kind.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Which object it is.
    pub reference: ObjectReference,
    /// What is wrong with it.
    pub error: String,
}

impl Malformed {
    fn new<K: Resource<DynamicType = ()>>(invalid: InvalidObject) -> Self {
        let reference = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: invalid.metadata.name,
            namespace: invalid.metadata.namespace,
            uid: invalid.metadata.uid,
            resource_version: invalid.metadata.resource_version,
            field_path: None,
        };
        Self {
            reference,
            error: invalid.error,
        }
    }

    /// Namespace and name.
    pub(super) fn key(&self) -> Key {
        (
            self.reference.namespace.clone(),
            self.reference.name.clone().unwrap_or_default(),
        )
    }
}

/// How a kind is watched: namespaced kinds in the namespaces asked for, cluster-scoped ones as a whole.
pub trait WatchScope: Sized {
    /// The namespaces of the watches to open; `None` is the whole cluster.
    fn places(namespaces: &[String]) -> Vec<Option<String>>;

    /// The API of one place.
    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, place: Option<&str>) -> Api<K>;
}

impl WatchScope for NamespaceResourceScope {
    fn places(namespaces: &[String]) -> Vec<Option<String>> {
        if namespaces.is_empty() {
            vec![None]
        } else {
            namespaces.iter().cloned().map(Some).collect()
        }
    }

    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, place: Option<&str>) -> Api<K> {
        match place {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

impl WatchScope for ClusterResourceScope {
    fn places(_: &[String]) -> Vec<Option<String>> {
        vec![None]
    }

    fn api<K: Resource<DynamicType = (), Scope = Self>>(client: Client, _: Option<&str>) -> Api<K> {
        Api::all(client)
    }
}

/// One latch for each watch of the kind.
pub(super) fn latches<K>(readiness: &Readiness, namespaces: &[String]) -> Vec<Latch>
where
    K: Resource<DynamicType = ()>,
    K::Scope: WatchScope,
{
    let kind = K::kind(&());
    let name = |place: Option<String>| match place {
        Some(namespace) => format!("the first list of {kind} in {namespace}"),
        None => format!("the first list of {kind}"),
    };
    K::Scope::places(namespaces)
        .into_iter()
        .map(|place| readiness.latch(name(place)))
        .collect()
}

/// The events of all watches of the kind, each with the number of its watch.
pub(super) fn objects<K>(
    term: &Term,
    controller: ControllerName,
    config: &watcher::Config,
    latches: Vec<Latch>,
) -> impl Stream<Item = (usize, Event<Read<K>>)> + Send + 'static + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::Scope: WatchScope,
{
    let watches = K::Scope::places(&term.namespaces)
        .into_iter()
        .zip(latches)
        .enumerate()
        .map(|(index, (place, latch))| {
            let api = K::Scope::api::<DeserializeGuard<K>>(term.client.clone(), place.as_deref());
            reported(
                watcher(api, config.clone()),
                controller,
                term.standard.clone(),
                latch,
            )
            .map(move |event| (index, read(event)))
            .boxed()
        });
    stream::select_all(watches.collect::<Vec<_>>())
}

/// The objects of a kind as they change or go, metadata only.
pub(super) fn metadata<C>(
    term: &Term,
    controller: ControllerName,
    config: &watcher::Config,
) -> impl Stream<Item = Result<PartialObjectMeta<C>, std::convert::Infallible>> + Send + 'static + use<C>
where
    C: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
    C::Scope: WatchScope,
{
    let places = C::Scope::places(&term.namespaces)
        .into_iter()
        .zip(latches::<C>(&term.readiness, &term.namespaces));
    let watches = places.map(|(place, latch)| {
        let api = C::Scope::api::<PartialObjectMeta<C>>(term.client.clone(), place.as_deref());
        reported(
            watcher(api, config.clone()),
            controller,
            term.standard.clone(),
            latch,
        )
        .filter_map(|event| {
            future::ready(match event {
                Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => Some(Ok(object)),
                Event::Init | Event::InitDone => None,
            })
        })
        .boxed()
    });
    stream::select_all(watches.collect::<Vec<_>>())
}

/// A watch that backs off after errors, which it counts and logs, and sets its latch when its first list is whole.
fn reported<K: Resource<DynamicType = ()> + Send + 'static>(
    watch: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    controller: ControllerName,
    standard: Standard,
    latch: Latch,
) -> impl Stream<Item = Event<K>> + Send + 'static {
    watch.default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(event) => {
                if matches!(event, Event::InitDone) {
                    latch.set();
                }
                Some(event)
            }
            Err(error) => {
                let cause = cause(&error);
                standard.watch_errors.inc((controller, cause));
                let (controller, kind) = (controller.as_str(), K::kind(&()));
                match cause {
                    WatchError::Expired => tracing::debug!(controller, %kind, "watch expired; listing again"),
                    WatchError::Failed | WatchError::Denied => {
                        tracing::warn!(controller, %kind, error = chain(&error), "watch failed; trying again");
                    }
                }
                None
            }
        })
    })
}

fn cause(error: &watcher::Error) -> WatchError {
    let (class, code) = match error {
        watcher::Error::WatchError(status) => (Class::of_http_status(status.code), status.code),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            let code = if let kube::Error::Api(status) = error {
                status.code
            } else {
                0
            };
            (class_of(error), code)
        }
        watcher::Error::NoResourceVersion => (Class::Invalid, 0),
    };
    match (class, code) {
        (_, 410) => WatchError::Expired,
        (Class::Denied, _) => WatchError::Denied,
        _ => WatchError::Failed,
    }
}

/// Takes the guard off: an object, or why it is none.
fn read<K: Resource<DynamicType = ()>>(event: Event<DeserializeGuard<K>>) -> Event<Read<K>> {
    let open = |DeserializeGuard(read): DeserializeGuard<K>| {
        read.map_err(|invalid| Box::new(Malformed::new::<K>(invalid)))
    };
    match event {
        Event::Apply(guard) => Event::Apply(open(guard)),
        Event::InitApply(guard) => Event::InitApply(open(guard)),
        Event::Delete(guard) => Event::Delete(open(guard)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}
