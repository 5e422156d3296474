//! Bad values are refused with a message that names the field.

use anyhow::Result;

use crate::common::KINDS;
use crate::server::{Server, refusal};

#[tokio::test]
async fn bad_values_are_refused_and_the_field_is_named() -> Result<()> {
    let server = Server::start().await?;
    let mut faults = Vec::new();
    for kind in KINDS {
        // A status with a resource of its own is ignored at creation, so those changes go to an object that exists.
        let existing =
            if kind.has_status_resource() && kind.bad().iter().any(|bad| bad.at.starts_with("/status")) {
                Some(
                    server
                        .create_with_status(kind, &server.own(kind, kind.full()))
                        .await?,
                )
            } else {
                None
            };
        for bad in kind.bad() {
            let mut object = bad.apply(kind);
            let answer = match &existing {
                Some(existing) if bad.at.starts_with("/status") => {
                    object["metadata"] = existing["metadata"].clone();
                    server.replace_status(kind, &object, true).await
                }
                _ => {
                    object["metadata"]["name"] = "bad".into();
                    server.create(kind, &object, true).await
                }
            };
            match refusal(answer) {
                Ok(message) if message.contains(&bad.refused) => {}
                Ok(message) => faults.push(format!("{}: {}: refused by {message}", kind.name, bad.what)),
                Err(other) => faults.push(format!("{}: {}: {other}", kind.name, bad.what)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
