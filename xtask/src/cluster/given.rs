//! A cluster that the user brings, named by `HOLDFAST_KUBECONFIG`: nothing local is started for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{environment, kubeconfig as files, local, parts::say};

use super::{host, node::output};

/// The kubeconfig that the user gave, if any. Fails when the file does not exist.
pub(crate) fn kubeconfig() -> Result<Option<PathBuf>> {
    let Some(path) = environment::variable(environment::KUBECONFIG) else {
        return Ok(None);
    };
    let path = std::path::absolute(path).context(environment::KUBECONFIG)?;
    if !path.is_file() {
        bail!(
            "{} names {}, which does not exist",
            environment::KUBECONFIG,
            path.display()
        );
    }
    Ok(Some(path))
}

/// The kubectl to use for it: the user's own, else the pinned one.
pub(crate) fn kubectl() -> Result<PathBuf> {
    if host::is_there("kubectl") {
        Ok(PathBuf::from("kubectl"))
    } else {
        local::kubectl()
    }
}

/// Copies the kubeconfig, with what it refers to, to target/cluster/kubeconfig, and checks that the cluster answers.
pub(crate) fn adopt(kubeconfig: &Path) -> Result<PathBuf> {
    if super::state::load(&local::checkout_id(&environment::workspace_root())).is_some() {
        bail!(
            "a local cluster of this checkout runs: unset {} and run `cargo xtask cluster down` first",
            environment::KUBECONFIG
        );
    }
    let kubectl = kubectl()?;
    let run = |arguments: &[&str]| {
        output(
            Command::new(&kubectl)
                .arg("--kubeconfig")
                .arg(kubeconfig)
                .args(arguments),
            None,
        )
    };
    run(&["get", "--raw=/readyz", "--request-timeout=10s"]).context("the given cluster does not answer")?;
    let flat = run(&["config", "view", "--flatten", "--minify"])?;
    fs::create_dir_all(local::folder()).context("cannot create target/cluster")?;
    let target = local::folder().join("kubeconfig");
    files::write_private(&target, &flat)?;
    say(&format!(
        "using the cluster of {} ({})",
        kubeconfig.display(),
        context_name(kubeconfig)?
    ));
    Ok(target)
}

/// How images get into the given cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Into the nodes of the kind cluster of this name.
    Kind(String),
    /// Into the nodes of the k3d cluster of this name.
    K3d(String),
    /// Through a registry, given as host and path.
    Registry(String),
}

/// Decides by the name of the current context, and by `HOLDFAST_REGISTRY`, which wins.
pub(crate) fn delivery(kubeconfig: &Path) -> Result<Delivery> {
    choose_delivery(
        &context_name(kubeconfig)?,
        environment::variable(environment::REGISTRY),
    )
}

fn context_name(kubeconfig: &Path) -> Result<String> {
    let mut command = Command::new(kubectl()?);
    let text = output(
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["config", "current-context"]),
        None,
    )?;
    Ok(text.trim().to_owned())
}

fn choose_delivery(context: &str, registry: Option<String>) -> Result<Delivery> {
    if let Some(registry) = registry {
        return Ok(Delivery::Registry(registry.trim_end_matches('/').to_owned()));
    }
    match (context.strip_prefix("kind-"), context.strip_prefix("k3d-")) {
        (Some(name), _) => Ok(Delivery::Kind(name.to_owned())),
        (_, Some(name)) => Ok(Delivery::K3d(name.to_owned())),
        _ => bail!(
            "set {} (host/path) to where the cluster of the context {context} pulls images from",
            environment::REGISTRY
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_where_the_context_says_unless_a_registry_is_named() {
        assert_eq!(
            choose_delivery("kind-dev", None).unwrap(),
            Delivery::Kind("dev".to_owned())
        );
        assert_eq!(
            choose_delivery("k3d-a", None).unwrap(),
            Delivery::K3d("a".to_owned())
        );
        let registry = Some("registry.example/team/".to_owned());
        assert_eq!(
            choose_delivery("kind-dev", registry).unwrap(),
            Delivery::Registry("registry.example/team".to_owned())
        );
        let error = choose_delivery("prod", None).unwrap_err().to_string();
        assert!(
            error.contains("HOLDFAST_REGISTRY") && error.contains("prod"),
            "{error}"
        );
    }
}
