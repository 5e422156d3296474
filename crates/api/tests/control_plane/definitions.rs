//! The API server takes the definitions as they are.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use crate::common::KINDS;
use crate::common::json::differences;
use crate::server::Server;

#[tokio::test]
async fn definitions_are_established_and_stored_unchanged() -> Result<()> {
    let server = Server::start().await?;
    let api: Api<CustomResourceDefinition> = Api::all(server.client.clone());
    for kind in KINDS {
        let ours = kind.crd();
        let name = ours.metadata.name.clone().context("a definition has a name")?;
        let stored = api.get(&name).await?;
        let conditions = stored
            .status
            .clone()
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let is = |wanted: &str| {
            conditions
                .iter()
                .find(|c| c.type_ == wanted)
                .map(|c| c.status.as_str())
        };
        assert_eq!(
            (is("Established"), is("NamesAccepted")),
            (Some("True"), Some("True")),
            "{name}: {conditions:?}"
        );
        assert_ne!(is("NonStructuralSchema"), Some("True"), "{name}: {conditions:?}");

        let (ours, stored) = (
            serde_json::to_value(&ours.spec)?,
            serde_json::to_value(&stored.spec)?,
        );
        let expected = ["/conversion", "/names/listKind"];
        let unexpected: Vec<_> = differences(&ours, &stored)
            .into_iter()
            .filter(|difference| !expected.iter().any(|path| difference.starts_with(path)))
            .collect();
        assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
    }
    Ok(())
}
