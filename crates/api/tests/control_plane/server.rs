//! The API server with all definitions installed, and raw requests to it.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{PostParams, Request};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::common::Kind;

/// The API server with all definitions installed, once for all tests.
pub struct Server {
    /// An administrator's client of the calling test.
    pub client: Client,
    /// An administrator's kubeconfig.
    pub kubeconfig: &'static Path,
    /// A namespace of the calling test.
    pub namespace: String,
}

impl Server {
    /// Starts the API server if no other test has, and makes a namespace.
    pub async fn start() -> Result<Self> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let control_plane = holdfast_testkit::control_plane().await?;
        let client = control_plane.client();
        INSTALLED
            .get_or_try_init(|| holdfast_testkit::crds::apply_crds(&client, holdfast_api::all_crds()))
            .await
            .context("cannot install the definitions")?;
        let namespace = control_plane.namespace("api").await?;
        Ok(Self {
            client,
            kubeconfig: control_plane.kubeconfig(),
            namespace,
        })
    }

    /// The address of all objects of a kind, in the test's namespace if the kind has namespaces.
    pub fn url(&self, kind: &Kind) -> String {
        let spec = kind.crd().spec;
        let namespace = if spec.scope == "Namespaced" {
            format!("/namespaces/{}", self.namespace)
        } else {
            String::new()
        };
        format!(
            "/apis/{}/{}{namespace}/{}",
            spec.group, spec.versions[0].name, spec.names.plural
        )
    }

    /// The object under a name of the calling test alone, where the kind has no namespaces to keep tests apart.
    pub fn own(&self, kind: &Kind, mut object: Value) -> Value {
        if kind.crd().spec.scope != "Namespaced" {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["metadata"]["name"] = format!("{name}-{}", self.namespace).into();
        }
        object
    }

    /// Creates an object; unknown fields are refused instead of dropped.
    pub async fn create(&self, kind: &Kind, object: &Value, dry_run: bool) -> kube::Result<Value> {
        let request = Request::new(self.url(kind)).create(
            &PostParams {
                dry_run,
                ..PostParams::default()
            },
            body(object),
        );
        self.send(request).await
    }

    /// Replaces the status of an object through `/status`.
    pub async fn replace_status(&self, kind: &Kind, object: &Value, dry_run: bool) -> kube::Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PostParams {
            dry_run,
            ..PostParams::default()
        };
        let request =
            Request::new(self.url(kind)).replace_subresource("status", name, &parameters, body(object));
        self.send(request).await
    }

    /// Creates an object with its status, in two requests where `/status` is a resource of its own.
    pub async fn create_with_status(&self, kind: &Kind, object: &Value) -> kube::Result<Value> {
        let mut created = self.create(kind, object, false).await?;
        let Some(status) = object.get("status").filter(|_| kind.has_status_resource()) else {
            return Ok(created);
        };
        created["status"] = status.clone();
        self.replace_status(kind, &created, false).await
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> kube::Result<Value> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let uri = request.uri().to_string();
        let uri = uri.trim_end_matches(['?', '&']);
        let separator = if uri.contains('?') { '&' } else { '?' };
        let uri = format!("{uri}{separator}fieldValidation=Strict");
        *request.uri_mut() = uri.parse().expect("the address with one more parameter");
        self.client.request(request).await
    }
}

fn body(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}

/// The object without what the API server adds to every object.
pub fn without_bookkeeping(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "namespace",
            "resourceVersion",
            "uid",
        ] {
            metadata.remove(name);
        }
    }
    object
}

/// The message of a refusal; what else happened, otherwise.
pub fn refusal(result: kube::Result<Value>) -> Result<String, String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 => Ok(status.message),
        Err(error) => Err(format!("failed otherwise: {error}")),
        Ok(_) => Err("was accepted".to_owned()),
    }
}
