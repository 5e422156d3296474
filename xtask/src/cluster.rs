//! `cargo xtask cluster up|down|status`: a Kubernetes node of this checkout's own, or the cluster that `HOLDFAST_KUBECONFIG` names.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use holdfast_testkit::{
    environment, local,
    parts::{self, Part, say},
};

mod addons;
mod cgroups;
mod control;
pub(crate) mod given;
pub(crate) mod host;
mod layout;
pub(crate) mod node;
mod runtime;
mod state;
mod status;
mod stop;
mod sysctls;

use crate::images::Image;
use layout::Layout;
use node::Node;

/// Arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the cluster, or what is missing of it; write target/cluster/kubeconfig and target/cluster/s3.env.
    Up,
    /// Stop the cluster and remove everything it made, its data included.
    Down,
    /// Say what runs. Fails when the cluster is not up.
    Status,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { action } = args;
    match action {
        Action::Up => up().map(drop),
        Action::Down => down(),
        Action::Status => status::print(),
    }
}

/// Starts what is not running yet and returns the path of the cluster's kubeconfig. Does next to nothing when all runs.
pub(crate) fn up() -> Result<PathBuf> {
    let begin = Instant::now();
    fs::create_dir_all(local::folder()).context("cannot create target/cluster")?;
    if let Some(kubeconfig) = given::kubeconfig()? {
        return given::adopt(&kubeconfig);
    }
    host::require_root()?;
    host::require(&host::NODE)?;
    parts::ensure(&Part::ALL)?;
    let images = crate::images::for_the_node()?;
    let root = environment::workspace_root();
    let _lock = state::lock(&local::checkout_id(&root))?;
    state::remove_orphans(&root);
    let layout = claim()?;
    let node = node::start(&layout)?;
    control::start(&node)?;
    runtime::start(&node)?;
    for image in &images {
        node.load_image(image)?;
    }
    addons::start(&node)?;
    wait_until_ready(&node)?;
    say(&format!(
        "the cluster is up after {:.1} s: kubeconfig {}, S3 {}, logs {}",
        begin.elapsed().as_secs_f32(),
        layout.kubeconfig().display(),
        layout.s3_endpoint(),
        layout.logs().display()
    ));
    Ok(layout.kubeconfig())
}

/// This checkout's place on the machine, a new one unless its cluster is whole enough to be completed.
fn claim() -> Result<Layout> {
    let root = environment::workspace_root();
    if let Some(layout) = state::load(&local::checkout_id(&root)) {
        if node::is_usable(&layout) {
            return Ok(layout);
        }
        say("an earlier cluster of this checkout is broken; removing it first");
        stop::stop(&layout)?;
    }
    state::claim(&root)
}

/// Loads images into the local node; false when it does not run.
pub(crate) fn load_into_local_node(images: &[Image]) -> Result<bool> {
    let Some(layout) = state::load(&local::checkout_id(&environment::workspace_root())) else {
        return Ok(false);
    };
    if !node::is_usable(&layout) {
        return Ok(false);
    }
    let node = node::running(&layout)?;
    images.iter().try_for_each(|image| node.load_image(image))?;
    Ok(true)
}

fn down() -> Result<()> {
    if given::kubeconfig()?.is_some() {
        bail!(
            "{} is set: that cluster is not ours to stop",
            environment::KUBECONFIG
        );
    }
    let begin = Instant::now();
    let root = environment::workspace_root();
    let id = local::checkout_id(&root);
    if state::load(&id).is_none() && !local::folder().exists() {
        say("no cluster of this checkout runs");
        return Ok(());
    }
    host::require_root()?;
    let _lock = state::lock(&id)?;
    stop::stop(&state::load(&id).unwrap_or_else(|| Layout::new(root, 0)))?;
    say(&format!(
        "the cluster is down after {:.1} s",
        begin.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Readiness of the node comes before the default ServiceAccount and before DNS: all three are awaited.
fn wait_until_ready(node: &Node<'_>) -> Result<()> {
    node.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"])?;
    node.kubectl(&["wait", "--for=create", "node/holdfast", "--timeout=60s"])?;
    node.kubectl(&["wait", "--for=condition=Ready", "node/holdfast", "--timeout=90s"])?;
    addons::wait_for_dns(node)?;
    local::wait_for_s3()
}
