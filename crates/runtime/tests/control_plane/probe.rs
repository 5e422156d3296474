//! The process that tests stop, continue and terminate: this test binary again, running only the "test" below.
//!
//! A binary target would land in `cargo build` of the product, and an example is not built by `cargo test --test`.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use holdfast_runtime::{
    ApiError, ApiObject, Runtime, Term, api_error,
    runner::{Next, Runner},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, api::PostParams};

use crate::support::{ABOUT, args_of_environment};

#[test]
#[ignore = "a process of its own for the other tests, which start it"]
fn probe() -> Result<()> {
    let Some(mode) = std::env::var_os("PROBE_MODE") else {
        return Ok(());
    };
    holdfast_runtime::block_on(async move {
        let runtime = Runtime::start(ABOUT, &args_of_environment()).await?;
        match mode.to_str() {
            Some("writer") => runtime.run(writer).await?,
            Some("slow") => runtime.run(|term| reconciler(term, true)).await?,
            Some("stuck") => runtime.run(|term| reconciler(term, false)).await?,
            other => anyhow::bail!("no mode {other:?}"),
        }
        Ok(())
    })?
}

fn say(text: &str) {
    println!("probe: {text}");
}

/// Creates objects as fast as it can, by a task that outlives its term, as a defect would leave it behind.
async fn writer(term: Term) -> Result<()> {
    term.started();
    say("leading");
    let api = Api::<ConfigMap>::namespaced(term.client.clone(), &term.namespaces[0]);
    let client = term.client.clone();
    tokio::spawn(async move {
        // Held, so that what is refused below is refused by the gate and not by a closed client.
        let _client = client;
        let mut object = ConfigMap::default();
        object.metadata.generate_name = Some("write-".to_owned());
        object
            .labels_mut()
            .insert("writer".to_owned(), std::process::id().to_string());
        let mut written = 0;
        loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => written += 1,
                Err(error) if api_error::is_not_leading(&error) => break say("refused"),
                Err(error) => break say(&format!("failed {error}")),
            }
            if written == 20 {
                say("wrote");
            }
        }
    });
    term.shutdown.cancelled().await;
    Ok(())
}

/// Passes that need the whole grace period's beginning, or never end.
async fn reconciler(term: Term, ends: bool) -> Result<()> {
    let ctx = Arc::new((term.clone(), ends));
    Runner::<ConfigMap>::new("probe", &term).run(pass, ctx).await;
    say("drained");
    Ok(())
}

async fn pass(object: Arc<ConfigMap>, ctx: Arc<(Term, bool)>) -> Result<Next, ApiError> {
    let (term, ends) = &*ctx;
    let name = object.name_any();
    if !name.starts_with("work") {
        return Ok(Next::AwaitChange);
    }
    say(&format!("pass {name}"));
    if !ends {
        return std::future::pending().await;
    }
    term.shutdown.cancelled().await;
    // Work that is in its middle when SIGTERM comes, and whose last write still counts.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let namespace = object.namespace().unwrap_or_default();
    let mut done = ConfigMap::default();
    done.metadata.name = Some(format!("done-{name}"));
    let api = Api::<ConfigMap>::namespaced(term.client.clone(), &namespace);
    let created = api.create(&PostParams::default(), &done).await;
    created.map_err(|e| ApiError::new("create", ApiObject::of(&done), e))?;
    say(&format!("finished {name}"));
    Ok(Next::AwaitChange)
}
