//! `cargo xtask images`: OCI images of the deployables and of PostgreSQL for tests, made from Debian's packages without a base image,
//! and brought into the cluster.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{environment, local, parts::say};

mod debian;
mod deliver;
mod deployable;
mod node;
mod oci;
mod postgres;

pub(crate) use oci::Image;

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Images to build, such as `pg-backup` or `postgres:15`; all when none is named.
    names: Vec<String>,
    /// Also write each image as an OCI archive to target/images, for `docker load`, `podman load` or `skopeo copy`.
    #[arg(long)]
    archive: bool,
}

/// Builds the named images, and loads them into the cluster when there is one.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { names, archive } = args;
    build_and_deliver(&names, archive)
}

/// Builds all images and brings them into the cluster in use.
pub(crate) fn build_and_load() -> Result<()> {
    build_and_deliver(&[], false)
}

/// Builds images and brings them into the cluster in use, each unless the very same is there. All when none is named.
pub(crate) fn build_and_deliver(names: &[String], archive: bool) -> Result<()> {
    let begin = Instant::now();
    let known: Vec<String> = deployable::names()
        .into_iter()
        .chain(postgres::NAMES.map(str::to_owned))
        .collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("no image is called {unknown}; there are: {}", known.join(", "));
    }
    let wanted = known
        .iter()
        .filter(|name| names.is_empty() || names.contains(name));
    let mut images = Vec::new();
    for name in wanted {
        images.push(if name.starts_with("postgres:") {
            postgres::build(name)?
        } else {
            deployable::build(name)?
        });
    }
    if archive {
        for image in &images {
            let path = archive_path(image);
            image.write_archive(&path)?;
            say(&format!("wrote {}", path.display()));
        }
    }
    deliver::deliver(&images)?;
    say(&format!(
        "{} images are ready after {:.1} s",
        images.len(),
        begin.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// How a manifest must name a deployable's image so that the cluster in use finds it.
pub(crate) fn reference(deployable: &str) -> String {
    deliver::reference(&format!("holdfast/{deployable}:dev"))
}

/// An archive with the files of a system that has PostgreSQL `version`: programs to run with chroot(8).
pub(crate) fn postgres_files(version: &str) -> Result<PathBuf> {
    postgres::files(version)
}

/// What the local node cannot do without.
pub(crate) fn for_the_node() -> Result<Vec<Image>> {
    Ok(vec![node::pause()?, node::tools()?])
}

/// Where finished and half-finished images are kept between runs.
fn cache() -> Result<PathBuf> {
    let folder = environment::cache_dir()?.join("images");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn work_folder() -> PathBuf {
    local::folder().with_file_name("images")
}

fn archive_path(image: &Image) -> PathBuf {
    work_folder().join(format!("{}.tar", image.name.replace(['/', ':'], "-")))
}

/// The SHA-256 of a file as hexadecimal digits; by sha256sum(1), for this program is built without optimization.
fn sha256_of(path: &Path) -> Result<String> {
    let text = crate::cluster::node::output(Command::new("sha256sum").arg(path), None)?;
    // A name with a backslash makes it print one before the digest.
    let digest = text
        .trim_start_matches('\\')
        .split_whitespace()
        .next()
        .context("sha256sum printed nothing")?;
    Ok(digest.to_owned())
}
