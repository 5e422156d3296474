//! The image of a controller: its binary, the C library, CA certificates and time zones. No shell, not root, nothing to write to.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use holdfast_testkit::{environment, parts::say};
use serde_json::json;

use super::{
    debian::{self, Content},
    oci::{Image, Layer, LayerWriter},
    work_folder,
};
use crate::cargo;

/// Who it runs as, by number, so that `runAsNonRoot` can be checked.
const USER: &str = "65532:65532";
/// What a Rust program and its name resolution load at run time.
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libresolv.so.2",
    "libnss_dns.so.2",
    "libnss_files.so.2",
];

/// The deployables of this workspace. A crate that nothing in `deploy/` installs needs no image yet.
pub(crate) fn names() -> Vec<String> {
    let all = [
        "pg-backup",
        "dataprotection",
        "volume-backup",
        "data-mover",
        "pg-operator",
    ];
    let root = environment::workspace_root();
    let is_file = |[folder, name, file]: [&str; 3]| root.join(folder).join(name).join(file).is_file();
    all.iter()
        .filter(|name| is_file(["crates", name, "Cargo.toml"]))
        .filter(|name| is_file(["deploy", name, "kustomization.yaml"]))
        .map(|name| (*name).to_owned())
        .collect()
}

/// Builds the release binary and its image `holdfast/NAME:dev`.
pub(crate) fn build(name: &str) -> Result<Image> {
    let begin = Instant::now();
    cargo::run(&[
        "build",
        "--release",
        "--locked",
        "--package",
        name,
        "--bin",
        name,
        "--message-format=short",
    ])?;
    say(&format!("built {name} in {:.1} s", begin.elapsed().as_secs_f32()));
    let binary =
        fs::read(cargo::release_binary(name)).with_context(|| format!("cannot read the binary of {name}"))?;
    let path = format!("usr/local/bin/{name}");
    let mut layer = LayerWriter::create(&work_folder().join(format!("{name}.layer.tar")))?;
    layer.file(Path::new(&path), 0o755, &binary)?;
    let runtime = json!({
        "User": USER,
        "Entrypoint": [format!("/{path}")],
        "Env": ["PATH=/usr/local/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        "WorkingDir": "/",
    });
    Image::new(
        &format!("holdfast/{name}:dev"),
        vec![base()?, layer.finish()?],
        &runtime,
    )
}

/// What all deployables share, as a layer of its own.
fn base() -> Result<Layer> {
    let mut layer = LayerWriter::create(&work_folder().join("base.layer.tar"))?;
    let is_library = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        LIBRARIES.contains(&name) || name.starts_with("ld-linux") || name.starts_with("libgcc_s.so")
    };
    for package in ["libc6", "libgcc-s1"] {
        for (path, content) in debian::extract(package, |path| is_library(path) && !path.contains("/audit/"))?
        {
            // Newer releases have all under /usr, reached by links that an image from scratch lacks.
            let path = path.strip_prefix("usr").unwrap_or(&path);
            add(&mut layer, path, content)?;
        }
    }
    let mut certificates = Vec::new();
    let is_certificate = |path: &str| path.starts_with("usr/share/ca-certificates/mozilla/");
    for (_, content) in debian::extract("ca-certificates", is_certificate)? {
        if let Content::File(content, _) = content {
            certificates.extend_from_slice(&content);
            certificates.push(b'\n');
        }
    }
    layer.file(
        Path::new("etc/ssl/certs/ca-certificates.crt"),
        0o644,
        &certificates,
    )?;
    let is_zone = |path: &str| {
        path.strip_prefix("usr/share/zoneinfo/")
            .is_some_and(|zone| !zone.starts_with("right/") && !zone.starts_with("posix/"))
    };
    for (path, content) in debian::extract("tzdata", is_zone)? {
        add(&mut layer, &path, content)?;
    }
    layer.file(
        Path::new("etc/passwd"),
        0o644,
        b"root:x:0:0:root:/:/nonexistent\nholdfast:x:65532:65532::/:/nonexistent\n",
    )?;
    layer.file(Path::new("etc/group"), 0o644, b"root:x:0:\nholdfast:x:65532:\n")?;
    layer.file(
        Path::new("etc/nsswitch.conf"),
        0o644,
        b"passwd: files\ngroup: files\nhosts: files dns\n",
    )?;
    layer.folder(Path::new("tmp"), 0o1777)?;
    layer.finish()
}

fn add(layer: &mut LayerWriter, path: &Path, content: Content) -> Result<()> {
    match content {
        Content::File(content, mode) => layer.file(path, mode, &content),
        Content::Link(target) => layer.link(path, &target),
    }
}
