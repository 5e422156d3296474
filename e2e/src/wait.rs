//! Waiting for outcomes, with a limit.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::runtime::wait::await_condition;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// How often [`poll`] asks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Watches the object `name` until it exists and `condition` holds; `what` says for the error what was expected.
pub async fn until<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    condition: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    let holds = |object: Option<&K>| object.is_some_and(&condition);
    tokio::time::timeout(limit, await_condition(api, name, holds))
        .await
        .with_context(|| format!("{name}: {what}: not within {limit:?}"))?
        .with_context(|| format!("{name}: {what}"))?
        .with_context(|| format!("{name}: {what}: the object is gone"))
}

/// Watches until there is no object `name`.
pub async fn until_gone<K>(api: Api<K>, name: &str, limit: Duration) -> Result<()>
where
    K: Clone + Debug + Send + DeserializeOwned + Resource + 'static,
{
    tokio::time::timeout(
        limit,
        await_condition(api, name, |object: Option<&K>| object.is_none()),
    )
    .await
    .with_context(|| format!("{name} still exists after {limit:?}"))?
    .with_context(|| format!("{name} should go"))
    .map(drop)
}

/// Asks `probe`, for what no watch reports, until it has an answer.
pub async fn poll<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if begin.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
