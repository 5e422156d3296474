//! PostgreSQL from Debian's packages, for tests and the demo: user and group as in Spilo's images, without Patroni.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{
    environment,
    parts::{hex, say},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::oci::{Image, Layer, LayerWriter};
use crate::cluster::node::output;

/// The images' short names.
pub(crate) const NAMES: [&str; 2] = ["postgres:15", "postgres:17"];

const ENTRYPOINT: &[u8] = include_bytes!("../../../e2e/images/postgres/entrypoint.sh");
/// Keeps the package from making a cluster of its own.
const NO_CLUSTER: &str = r#"mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf""#;
/// Spilo's numbers, for storage that was written by one must be readable by the other.
const USER: &str = r#"echo "postgres:x:103:" >>"$1/etc/group" && echo "postgres:x:101:103:PostgreSQL:/home/postgres:/bin/sh" >>"$1/etc/passwd""#;
const HOME: &str = r#"mkdir -p "$1/home/postgres" && chown 101:103 "$1/home/postgres""#;

/// Builds `holdfast/postgres:15` or `holdfast/postgres:17`. The packages are fetched once and kept in the cache.
pub(crate) fn build(name: &str) -> Result<Image> {
    let Some(version) = name.strip_prefix("postgres:").filter(|_| NAMES.contains(&name)) else {
        bail!("no image is called {name}");
    };
    let system = Layer::from_file(&files(version)?)?;
    let mut scripts =
        LayerWriter::create(&super::work_folder().join(format!("postgres-{version}.layer.tar")))?;
    scripts.file(Path::new("usr/local/bin/entrypoint.sh"), 0o755, ENTRYPOINT)?;
    let runtime = json!({
        "User": "101:103",
        "Entrypoint": ["/usr/local/bin/entrypoint.sh"],
        "Env": [
            format!("PATH=/usr/lib/postgresql/{version}/bin:/usr/local/bin:/usr/bin:/bin"),
            "LANG=C.UTF-8",
            "PGDATA=/home/postgres/pgdata/pgroot/data",
            "PGHOST=/tmp",
            "PGUSER=postgres",
        ],
        "ExposedPorts": {"5432/tcp": {}},
        // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for all clients.
        "StopSignal": "SIGINT",
        "WorkingDir": "/home/postgres",
    });
    Image::new(
        &format!("holdfast/{name}"),
        vec![system, scripts.finish()?],
        &runtime,
    )
}

/// An archive of the files of a Debian system with PostgreSQL; made once and kept in the cache.
pub(crate) fn files(version: &str) -> Result<PathBuf> {
    // The suite that has it.
    root_file_system(version, if version == "15" { "bookworm" } else { "trixie" })
}

fn recipe(version: &str, suite: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["--quiet", "--variant=apt"].map(str::to_owned).to_vec();
    arguments.push(format!("--include=postgresql-{version},ca-certificates"));
    for excluded in ["man", "doc", "locale"] {
        arguments.push(format!("--dpkgopt=path-exclude=/usr/share/{excluded}/*"));
    }
    arguments.extend([NO_CLUSTER, USER].map(|hook| format!("--essential-hook={hook}")));
    arguments.push(format!("--customize-hook={HOME}"));
    arguments.push(suite.to_owned());
    arguments
}

fn root_file_system(version: &str, suite: &str) -> Result<PathBuf> {
    let recipe = recipe(version, suite);
    let key = hex(&Sha256::digest(recipe.join("\n"))[..6]);
    let path = super::cache()?.join(format!("postgres-{version}-{key}.tar"));
    let lock = File::create(path.with_extension("lock")).context("cannot lock the images' cache")?;
    lock.lock().context("cannot lock the images' cache")?;
    if path.is_file() {
        return Ok(path);
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "the PostgreSQL images need root and mmdebstrap; or set {} and push images of your own",
            environment::KUBECONFIG
        );
    }
    crate::cluster::host::require(&[("mmdebstrap", "mmdebstrap")])?;
    say(&format!(
        "fetching PostgreSQL {version} from Debian {suite} (kept afterwards in {})",
        path.display()
    ));
    let begin = Instant::now();
    let unfinished = path.with_extension("unfinished.tar");
    output(Command::new("mmdebstrap").args(&recipe).arg(&unfinished), None)?;
    fs::rename(&unfinished, &path).with_context(|| format!("cannot create {}", path.display()))?;
    say(&format!(
        "made the files of PostgreSQL {version} in {:.0} s",
        begin.elapsed().as_secs_f32()
    ));
    Ok(path)
}
