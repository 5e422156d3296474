//! Bringing images to where pods run.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use holdfast_testkit::{environment, parts::say};

use super::{Image, archive_path};
use crate::cluster::{
    given::{self, Delivery},
    host, load_into_local_node,
    node::output,
};

/// How a manifest must name the image `holdfast/NAME:TAG`.
pub(crate) fn reference(name: &str) -> String {
    let given =
        environment::variable(environment::KUBECONFIG).and(environment::variable(environment::REGISTRY));
    given.map_or_else(
        || name.to_owned(),
        |registry| in_registry(registry.trim_end_matches('/'), name),
    )
}

fn in_registry(registry: &str, name: &str) -> String {
    format!("{registry}/{}", name.strip_prefix("holdfast/").unwrap_or(name))
}

/// Brings each image into the cluster in use; says so when there is none.
pub(crate) fn deliver(images: &[Image]) -> Result<()> {
    let Some(kubeconfig) = given::kubeconfig()? else {
        if !load_into_local_node(images)? {
            say(
                "no local cluster runs: the images were built, and not loaded anywhere (`cargo xtask cluster up`, or --archive)",
            );
        }
        return Ok(());
    };
    let delivery = given::delivery(&kubeconfig)?;
    for image in images {
        let archive = archive_path(image);
        image.write_archive(&archive)?;
        hand_over(image, &archive, &delivery)?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    }
    Ok(())
}

fn hand_over(image: &Image, archive: &Path, delivery: &Delivery) -> Result<()> {
    match delivery {
        Delivery::Kind(cluster) => {
            output(
                Command::new("kind")
                    .args(["load", "image-archive", "--name", cluster])
                    .arg(archive),
                None,
            )?;
            say(&format!(
                "loaded {} into the nodes of the kind cluster {cluster}",
                image.name
            ));
        }
        Delivery::K3d(cluster) => {
            output(
                Command::new("k3d")
                    .args(["image", "import", "--cluster", cluster])
                    .arg(archive),
                None,
            )?;
            say(&format!(
                "imported {} into the nodes of the k3d cluster {cluster}",
                image.name
            ));
        }
        Delivery::Registry(registry) => {
            let target = in_registry(registry, &image.name);
            push(archive, &image.name, &target)?;
            say(&format!("pushed {target}"));
        }
    }
    Ok(())
}

/// Pushes with docker where it is installed, for it knows the user's login; else with buildah.
fn push(archive: &Path, name: &str, target: &str) -> Result<()> {
    if host::is_there("docker") {
        output(
            Command::new("docker").args(["load", "--input"]).arg(archive),
            None,
        )?;
        output(Command::new("docker").args(["tag", name, target]), None)?;
        return output(Command::new("docker").args(["push", target]), None).map(drop);
    }
    if !host::is_there("buildah") {
        host::install(&["buildah"])?;
    }
    let id = output(
        Command::new("buildah")
            .arg("pull")
            .arg(format!("oci-archive:{}", archive.display())),
        None,
    )?;
    output(
        Command::new("buildah").args(["push", id.trim(), &format!("docker://{target}")]),
        None,
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::in_registry;

    #[test]
    fn the_project_is_not_repeated_in_a_registry_path() {
        assert_eq!(
            in_registry("registry.example/team", "holdfast/pg-backup:dev"),
            "registry.example/team/pg-backup:dev"
        );
    }
}
