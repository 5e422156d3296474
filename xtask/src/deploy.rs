//! `cargo xtask deploy [controller...]`: installs controllers from `deploy/` into the cluster in use, with the images of this workspace.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{local, parts::hex};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{cargo, images, workspace};

/// Where the bases put everything.
const NAMESPACE: &str = "holdfast-system";

/// How long the new pods may take, as kubectl reads it.
const ROLLOUT_LIMIT: &str = "--timeout=180s";

/// Changes when a binary does. Pods start anew although the image's tag stays the same.
const BUILD_ANNOTATION: &str = "holdfast.dev/build";

/// Arguments of `cargo xtask deploy`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Controllers to install, such as `pg-backup`; all when none is named.
    controllers: Vec<String>,
}

/// Installs the named controllers.
pub(crate) fn run(args: Args) -> Result<()> {
    let known = controllers()?;
    if let Some(unknown) = args.controllers.iter().find(|name| !known.contains(name)) {
        bail!(
            "no controller is called {unknown}; there are: {}",
            known.join(", ")
        );
    }
    let wanted = if args.controllers.is_empty() {
        known
    } else {
        args.controllers
    };
    wanted.iter().try_for_each(|name| deploy(name))
}

/// Installs all controllers.
pub(crate) fn all() -> Result<()> {
    controllers()?.iter().try_for_each(|name| deploy(name))
}

/// The bases in `deploy/` that belong to a crate.
fn controllers() -> Result<Vec<String>> {
    let bases = workspace::root().join("deploy");
    let mut names = Vec::new();
    for entry in fs::read_dir(&bases).with_context(|| format!("cannot read {}", bases.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_crate = workspace::root().join("crates").join(&name).is_dir();
        if is_crate && bases.join(&name).join("kustomization.yaml").is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn deploy(name: &str) -> Result<()> {
    let begin = Instant::now();
    let reference = images::reference(name);
    let build = build(name)?;
    let overlay = write_overlay(name, &reference, build.as_deref())?;
    let overlay = overlay.to_string_lossy();
    // Forced: what somebody changed by hand is what this command puts right.
    let applied = kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=holdfast-deploy",
        "-k",
        &overlay,
    ])
    .with_context(|| format!("cannot install {name}"))?;
    let selector = format!("--selector=app.kubernetes.io/name={name}");
    let workloads = kubectl(&[
        "--namespace",
        NAMESPACE,
        "get",
        "deployments,daemonsets",
        &selector,
        "--output=name",
    ])?;
    for workload in workloads.lines() {
        let rollout = kubectl(&[
            "--namespace",
            NAMESPACE,
            "rollout",
            "status",
            workload,
            ROLLOUT_LIMIT,
        ]);
        if let Err(error) = rollout {
            // The rollout knows only that it is late; the pods know why.
            let pods = kubectl(&["--namespace", NAMESPACE, "get", "pods", &selector]).unwrap_or_default();
            let log = kubectl(&["--namespace", NAMESPACE, "logs", workload, "--tail=10"]).unwrap_or_default();
            return Err(error.context(format!("{workload} does not become ready\n{pods}{log}")));
        }
    }
    println!(
        "{name}: {} objects applied, {} ready with image {reference}{} after {:.1} s",
        applied.lines().count(),
        workloads.lines().collect::<Vec<_>>().join(", "),
        build.map(|build| format!(" (build {build})")).unwrap_or_default(),
        begin.elapsed().as_secs_f32(),
    );
    Ok(())
}

/// What tells one build of the binary from another; `None` where the image was not built here.
fn build(name: &str) -> Result<Option<String>> {
    let binary = cargo::release_binary(name);
    if !binary.is_file() {
        return Ok(None);
    }
    let content = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    Ok(Some(hex(&Sha256::digest(content)[..6])))
}

/// Writes a kustomization over `deploy/NAME` that names the image. JSON is YAML.
fn write_overlay(name: &str, reference: &str, build: Option<&str>) -> Result<PathBuf> {
    let (new_name, new_tag) = reference
        .rsplit_once(':')
        .with_context(|| format!("image {reference} has no tag"))?;
    let patches: Vec<_> = build
        .map(|build| {
            let path = format!(
                "/spec/template/metadata/annotations/{}",
                BUILD_ANNOTATION.replace('/', "~1")
            );
            let operations = json!([{"op": "add", "path": path, "value": build}]).to_string();
            json!({"target": {"kind": "Deployment|DaemonSet", "name": name}, "patch": operations})
        })
        .into_iter()
        .collect();
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("../../../deploy/{name}")],
        "images": [{"name": format!("holdfast/{name}"), "newName": new_name, "newTag": new_tag}],
        "patches": patches,
    });
    let folder = local::folder().with_file_name("deploy").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join("kustomization.yaml");
    fs::write(&file, format!("{overlay:#}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(folder)
}

/// Runs kubectl on the cluster in use and returns what it prints. Fails with its error output.
fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = Command::new(local::kubectl()?)
        .arg("--kubeconfig")
        .arg(local::kubeconfig()?)
        .args(arguments)
        .output()
        .context("cannot start kubectl")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_base_of_a_crate_is_a_controller() {
        assert!(super::controllers().unwrap().contains(&"pg-backup".to_owned()));
    }
}
