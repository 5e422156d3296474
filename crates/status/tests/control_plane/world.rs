//! What every test starts with: definitions, a namespace, objects, and an observer that counts.

#![allow(
    unreachable_pub,
    reason = "the macro makes kinds that are public where it is used elsewhere"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use holdfast_status::{FieldManager, Settings, StatusOf, Wanted, WriteResult, Writer};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::core::object::HasStatus;
use kube::{Client, CustomResourceExt, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::kinds::{Of, Parcel, ParcelStatus, Placed, State};

// Without a subresource, as Velero's.
kind!("Letter" Letter LetterSpec Main namespaced);
// Its installed definition lacks conditions and more.
kind!("Postcard" Postcard PostcardSpec Subresource namespaced);
// Its installed definition keeps no state at all.
kind!("Leaflet" Leaflet LeafletSpec Subresource namespaced);
// Its installed definition has a default inside the status.
kind!("Form" Form FormSpec Subresource namespaced);
// The program believes in a subresource that the definition lacks, and the other way round.
kind!("Flyer" Flyer FlyerSpec Subresource namespaced);
kind!("Memo" Memo MemoSpec Main namespaced);
// Not in a namespace.
kind!("Depot" Depot DepotSpec Subresource);

pub(crate) const STATUS: FieldManager = FieldManager::new("parcels", "status");
pub(crate) const PROGRESS: FieldManager = FieldManager::new("parcels", "progress");

/// What the tests need of a kind.
pub(crate) trait Item:
    Resource<DynamicType = ()>
    + HasStatus<Status = ParcelStatus>
    + Placed
    + Clone
    + Debug
    + PartialEq
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<T> Item for T where
    T: Resource<DynamicType = ()>
        + HasStatus<Status = ParcelStatus>
        + Placed
        + Clone
        + Debug
        + PartialEq
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

pub(crate) struct World {
    pub(crate) control_plane: &'static holdfast_testkit::ControlPlane,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) seen: Seen,
}

/// Counts what the observer hears.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Seen {
    pub(crate) fn count(&self, result: WriteResult) -> usize {
        self.0
            .lock()
            .unwrap()
            .get(result.as_str())
            .copied()
            .unwrap_or_default()
    }

    fn hear(&self, result: WriteResult) {
        *self.0.lock().unwrap().entry(result.as_str()).or_default() += 1;
    }
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let control_plane = holdfast_testkit::control_plane().await?;
        let client = control_plane.client();
        INSTALLED
            .get_or_try_init(|| holdfast_testkit::crds::apply_crds(&client, definitions()))
            .await?;
        let namespace = control_plane.namespace("status").await?;
        Ok(Self {
            control_plane,
            client,
            namespace,
            seen: Seen::default(),
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        let seen = self.seen.clone();
        Settings {
            observer: Some(Arc::new(move |_: FieldManager, result| seen.hear(result))),
            ..Settings::default()
        }
    }

    /// A writer that knows nothing of the definition.
    pub(crate) fn writer<K: StatusOf>(&self) -> Writer<K> {
        Writer::with(self.client.clone(), STATUS, self.settings())
    }

    pub(crate) fn api<O: Item>(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<O>(&());
        match O::kind(&()).as_ref() {
            "Depot" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    pub(crate) async fn create<O: Item>(&self, name: &str) -> Result<O> {
        self.create_with(name, json!({})).await
    }

    pub(crate) async fn create_with<O: Item>(&self, name: &str, metadata: Value) -> Result<O> {
        let mut object = json!({
            "apiVersion": O::api_version(&()),
            "kind": O::kind(&()),
            "metadata": metadata,
            "spec": { "contents": "books" },
        });
        object["metadata"]["name"] = name.into();
        let object = serde_json::from_value(object)?;
        Ok(self
            .api::<O>()
            .create(&PostParams::default(), &object)
            .await?
            .try_parse()?)
    }

    pub(crate) async fn read<O: Item>(&self, name: &str) -> Result<O> {
        Ok(self.api::<O>().get(name).await?.try_parse()?)
    }

    /// The object as it lies on the server.
    pub(crate) async fn raw<O: Item>(&self, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(self.api::<O>().get(name).await?)?)
    }

    /// Every version of the object since `from` that the API server tells a watch, up to its present one.
    pub(crate) async fn versions<O: Item>(&self, name: &str, from: &O) -> Result<Vec<DynamicObject>> {
        let last = self.api::<O>().get(name).await?.metadata.resource_version;
        let since = from.meta().resource_version.clone().unwrap_or_default();
        if last.as_ref() == Some(&since) {
            return Ok(Vec::new());
        }
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let api = self.api::<O>();
        let mut events = api.watch(&params, &since).await?.boxed();
        let mut versions = Vec::new();
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Modified(object) = event {
                let is_last = object.metadata.resource_version == last;
                versions.push(object);
                if is_last {
                    break;
                }
            }
        }
        Ok(versions)
    }
}

pub(crate) fn wanted<O: Item, const N: usize>(state: State) -> Wanted<Of<O, N>> {
    Wanted::new(ParcelStatus {
        state,
        ..ParcelStatus::default()
    })
}

/// A time that is not whole, as no clock's is.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 123_456_789).unwrap()
}

fn definition<O: CustomResourceExt>(change: impl FnOnce(&mut Value)) -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(O::crd()).unwrap();
    change(&mut definition);
    serde_json::from_value(definition).unwrap()
}

/// The properties of the status in a definition.
fn properties(definition: &mut Value) -> &mut serde_json::Map<String, Value> {
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["status"]["properties"]
        .as_object_mut()
        .unwrap()
}

fn without_subresource(definition: &mut Value) {
    definition["spec"]["versions"][0]
        .as_object_mut()
        .unwrap()
        .remove("subresources")
        .unwrap();
}

fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        definition::<Parcel>(|crd| {
            // Fields of others, that no type here knows.
            properties(crd).insert("foreign".into(), json!({ "type": "string" }));
            properties(crd)["state"]["enum"] =
                json!(["", "running", "succeeded", "failed", "deleteFailed", "paused"]);
        }),
        definition::<Letter>(without_subresource),
        definition::<Postcard>(|crd| {
            let properties = properties(crd);
            properties.remove("conditions").unwrap();
            properties.remove("observedGeneration").unwrap();
            properties["progress"]["properties"]
                .as_object_mut()
                .unwrap()
                .remove("rate")
                .unwrap();
        }),
        definition::<Leaflet>(|crd| drop(properties(crd).remove("state").unwrap())),
        definition::<Form>(|crd| {
            properties(crd)["message"] = json!({ "type": "string", "default": "none yet" });
        }),
        definition::<Flyer>(without_subresource),
        definition::<Memo>(|_| {}),
        definition::<Depot>(|_| {}),
    ]
}
