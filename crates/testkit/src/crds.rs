//! CRDs of a test: installed by server-side apply, and awaited until the API server really serves them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    runtime::{conditions, wait::await_condition},
};

const LIMIT: Duration = Duration::from_mins(1);

/// Applies one CRD and returns when every served version of it can be listed.
///
/// Fails when the API server refuses it, or does not serve it within 60 s.
pub async fn apply_crd(client: &Client, crd: &CustomResourceDefinition) -> Result<()> {
    let name = crd.name_any();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("holdfast-testkit").force();
    api.patch(&name, &params, &Patch::Apply(crd))
        .await
        .with_context(|| format!("cannot apply the CRD {name}"))?;
    let established = await_condition(api, &name, conditions::is_crd_established());
    tokio::time::timeout(LIMIT, established)
        .await
        .with_context(|| format!("the CRD {name} is not Established after {LIMIT:?}"))?
        .with_context(|| format!("cannot watch the CRD {name}"))?;
    tokio::time::timeout(LIMIT, served(client, crd))
        .await
        .with_context(|| format!("{name} is not served after {LIMIT:?}"))?
}

/// Applies several CRDs, as [`apply_crd`] does.
pub async fn apply_crds(
    client: &Client,
    crds: impl IntoIterator<Item = CustomResourceDefinition>,
) -> Result<()> {
    let crds: Vec<_> = crds.into_iter().collect();
    futures::future::try_join_all(crds.iter().map(|crd| apply_crd(client, crd)))
        .await
        .map(drop)
}

/// Established comes a moment before the first request is answered by anything but 404.
async fn served(client: &Client, crd: &CustomResourceDefinition) -> Result<()> {
    for version in crd.spec.versions.iter().filter(|version| version.served) {
        let resource = ApiResource {
            group: crd.spec.group.clone(),
            version: version.name.clone(),
            api_version: format!("{}/{}", crd.spec.group, version.name),
            kind: crd.spec.names.kind.clone(),
            plural: crd.spec.names.plural.clone(),
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        loop {
            match api.list(&ListParams::default().limit(1)).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.is_not_found() || status.code >= 429 => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => bail!("cannot list {}: {error}", resource.plural),
            }
        }
    }
    Ok(())
}
