//! Objects come back as they were sent.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::common::KINDS;
use crate::common::json::differences;
use crate::server::{Server, without_bookkeeping};

#[tokio::test]
async fn full_and_minimal_objects_come_back_as_sent() -> Result<()> {
    let server = Server::start().await?;
    let mut faults = Vec::new();
    for kind in KINDS {
        for (sent, expected) in [
            (kind.full(), kind.full()),
            (kind.minimal(), kind.minimal_stored()),
        ] {
            let (sent, expected) = (server.own(kind, sent), server.own(kind, expected));
            let name = format!("{} {}", kind.name, sent["metadata"]["name"]);
            match server.create_with_status(kind, &sent).await {
                Ok(stored) => {
                    let stored = without_bookkeeping(stored);
                    faults.extend(
                        differences(&expected, &stored)
                            .iter()
                            .map(|found| format!("{name}{found}")),
                    );
                    let read = (kind.recode)(stored.clone()).with_context(|| name.clone())?;
                    faults.extend(
                        differences(&stored, &read)
                            .iter()
                            .map(|found| format!("{name} in Rust{found}")),
                    );
                }
                Err(error) => faults.push(format!("{name}: {error}")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Strict validation is what shows that the fixtures prove something: without it an unknown field would vanish silently.
#[tokio::test]
async fn unknown_fields_are_refused_by_name() -> Result<()> {
    let server = Server::start().await?;
    for kind in KINDS {
        if kind.schema()["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] == true {
            continue;
        }
        let mut object = kind.minimal();
        object["spec"]["addedNextYear"] = json!(1);
        let refusal = crate::server::refusal(server.create(kind, &object, true).await);
        let refusal = refusal.map_err(|other| anyhow::anyhow!("{}: {other}", kind.name))?;
        assert!(
            refusal.contains("unknown field \"spec.addedNextYear\""),
            "{}: {refusal}",
            kind.name
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_status_is_written_where_upstream_writes_it() -> Result<()> {
    let server = Server::start().await?;
    for kind in KINDS {
        let full = server.own(kind, kind.full());
        let created = server.create(kind, &full, true).await?;
        assert_eq!(
            created.get("status").is_none(),
            kind.has_status_resource(),
            "{}",
            kind.name
        );
        if !kind.has_status_resource() {
            let created = server.create(kind, &full, false).await?;
            let answer = server.replace_status(kind, &created, false).await;
            let code = answer.map_or_else(
                |error| match error {
                    kube::Error::Api(status) => status.code,
                    _ => 0,
                },
                |_: Value| 200,
            );
            assert_eq!(code, 404, "{}", kind.name);
        }
    }
    Ok(())
}
