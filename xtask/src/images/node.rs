//! The two images that the node itself needs.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use holdfast_testkit::parts::Part;
use serde_json::json;

use super::{
    debian::{self, Content},
    oci::{Image, LayerWriter},
    work_folder,
};

/// Holds the namespaces of a pod.
pub(crate) fn pause() -> Result<Image> {
    let program = fs::read(Part::Pause.ensure()?).context("cannot read the program pause")?;
    let mut layer = LayerWriter::create(&work_folder().join("pause.layer.tar"))?;
    layer.file(Path::new("pause"), 0o755, &program)?;
    Image::new(
        "holdfast/pause:dev",
        vec![layer.finish()?],
        &json!({"Entrypoint": ["/pause"], "User": "65535:65535"}),
    )
}

/// A shell and the usual small tools: for the pods that make volumes, and for tests.
pub(crate) fn tools() -> Result<Image> {
    let files = debian::extract("busybox-static", |path| path.ends_with("bin/busybox"))?;
    let program = files.into_iter().find_map(|(_, content)| match content {
        Content::File(content, _) => Some(content),
        Content::Link(_) => None,
    });
    let mut layer = LayerWriter::create(&work_folder().join("tools.layer.tar"))?;
    layer.file(
        Path::new("bin/busybox"),
        0o755,
        &program.context("the package busybox-static has no busybox")?,
    )?;
    // Others are reached as `busybox NAME`, and from this shell by their plain names.
    for name in [
        "sh", "mkdir", "rm", "cat", "ls", "sleep", "nc", "nslookup", "wget", "env", "id", "true", "false",
    ] {
        layer.link(&Path::new("bin").join(name), Path::new("busybox"))?;
    }
    layer.folder(Path::new("tmp"), 0o1777)?;
    layer.file(
        Path::new("etc/passwd"),
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nholdfast:x:65532:65532::/:/bin/sh\n",
    )?;
    layer.file(Path::new("etc/nsswitch.conf"), 0o644, b"hosts: files dns\n")?;
    let runtime = json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]});
    Image::new("holdfast/tools:dev", vec![layer.finish()?], &runtime)
}
