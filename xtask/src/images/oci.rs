//! OCI images: a few layers, a configuration, and an archive that containerd, docker, podman and skopeo read.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use holdfast_testkit::parts::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One layer: an uncompressed tar file. Registries compress on their own; the local node need not.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    path: PathBuf,
    digest: String,
    size: u64,
}

impl Layer {
    /// A finished tar file. Its digest is kept beside it, because reading a large one takes a second.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let size = fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        let beside = path.with_added_extension("sha256");
        let known = fs::read_to_string(&beside)
            .ok()
            .filter(|digest| digest.len() == 64);
        let digest = if let Some(digest) = known {
            digest
        } else {
            let digest = super::sha256_of(path)?;
            fs::write(&beside, &digest).with_context(|| format!("cannot write {}", beside.display()))?;
            digest
        };
        Ok(Self {
            path: path.to_path_buf(),
            digest,
            size,
        })
    }
}

/// Writes a layer's tar file so that equal content gives equal bytes: no times, no owner but root.
pub(crate) struct LayerWriter {
    builder: tar::Builder<BufWriter<File>>,
    path: PathBuf,
    unfinished: PathBuf,
    folders: std::collections::BTreeSet<PathBuf>,
}

impl LayerWriter {
    /// Begins a layer at `path`, replacing an older file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        // Another command may read the finished file of the same name right now.
        let unfinished = path.with_added_extension(std::process::id().to_string());
        let file =
            File::create(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
        Ok(Self {
            builder: tar::Builder::new(BufWriter::new(file)),
            path: path.to_path_buf(),
            unfinished,
            folders: std::collections::BTreeSet::default(),
        })
    }

    /// Adds a folder and those above it.
    pub(crate) fn folder(&mut self, path: &Path, mode: u32) -> Result<()> {
        if path.as_os_str().is_empty() || !self.folders.insert(path.to_path_buf()) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above, 0o755)?;
        }
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.builder
            .append_data(&mut header, path, std::io::empty())
            .with_context(|| format!("cannot add {}", path.display()))
    }

    /// Adds a file and the folders above it.
    pub(crate) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.above(path)?;
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        self.builder
            .append_data(&mut header, path, content)
            .with_context(|| format!("cannot add {}", path.display()))
    }

    /// Adds a symbolic link and the folders above it.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.above(path)?;
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.builder
            .append_link(&mut header, path, target)
            .with_context(|| format!("cannot add {}", path.display()))
    }

    fn above(&mut self, path: &Path) -> Result<()> {
        path.parent().map_or(Ok(()), |above| self.folder(above, 0o755))
    }

    /// Ends the layer.
    pub(crate) fn finish(self) -> Result<Layer> {
        let file = self.builder.into_inner();
        file.and_then(|mut file| std::io::Write::flush(&mut file))
            .context("cannot end a layer")?;
        let (digest, size) = (
            super::sha256_of(&self.unfinished)?,
            fs::metadata(&self.unfinished)?.len(),
        );
        fs::rename(&self.unfinished, &self.path)
            .with_context(|| format!("cannot create {}", self.path.display()))?;
        Ok(Layer {
            path: self.path,
            digest,
            size,
        })
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// An image, ready to be written as an archive.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Repository and tag, without a registry: `holdfast/pg-backup:dev`.
    pub(crate) name: String,
    /// The digest of its manifest; the same for the same content.
    pub(crate) digest: String,
    layers: Vec<Layer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// Puts an image together. `runtime` is the part of its configuration that says how to run it: User, Entrypoint, Env.
    pub(crate) fn new(name: &str, layers: Vec<Layer>, runtime: &Value) -> Result<Self> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("sha256:{}", layer.digest))
            .collect();
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": runtime,
            "rootfs": {"type": "layers", "diff_ids": ids},
        }))?;
        let blobs: Vec<Value> = layers
            .iter()
            .map(|layer| {
                descriptor(
                    "application/vnd.oci.image.layer.v1.tar",
                    &layer.digest,
                    layer.size,
                )
            })
            .collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &digest(&config), config.len() as u64),
            "layers": blobs,
        }))?;
        Ok(Self {
            name: name.to_owned(),
            digest: format!("sha256:{}", digest(&manifest)),
            layers,
            config,
            manifest,
        })
    }

    /// The name by which Kubernetes knows it when a manifest says only [`Image::name`].
    pub(crate) fn full_name(&self) -> String {
        format!("docker.io/{}", self.name)
    }

    /// Writes an OCI archive that is also what `docker load` of older versions reads.
    pub(crate) fn write_archive(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
        let blob = |digest: &str| format!("blobs/sha256/{digest}");
        let config = digest(&self.config);
        let layers: Vec<String> = self.layers.iter().map(|layer| blob(&layer.digest)).collect();
        let docker = json!([{"Config": blob(&config), "RepoTags": [self.name], "Layers": layers}]);
        let mut entry = descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            &digest(&self.manifest),
            self.manifest.len() as u64,
        );
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry["annotations"] =
            json!({"io.containerd.image.name": self.full_name(), "org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let small = [
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
            ("manifest.json".to_owned(), serde_json::to_vec(&docker)?),
            (blob(&config), self.config.clone()),
            (blob(&digest(&self.manifest)), self.manifest.clone()),
        ];
        for (name, content) in &small {
            append(&mut archive, name, content.len() as u64, Cursor::new(content))?;
        }
        let mut written = std::collections::BTreeSet::new();
        for layer in self.layers.iter().filter(|layer| written.insert(&layer.digest)) {
            let file =
                File::open(&layer.path).with_context(|| format!("cannot read {}", layer.path.display()))?;
            append(&mut archive, &blob(&layer.digest), layer.size, file)?;
        }
        archive
            .into_inner()
            .and_then(|mut file| std::io::Write::flush(&mut file))
            .context("cannot end the archive")
    }
}

fn append(
    archive: &mut tar::Builder<BufWriter<File>>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644, size);
    archive
        .append_data(&mut header, name, content)
        .with_context(|| format!("cannot write {name} into the archive"))
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
}

fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(folder: &Path, name: &str) -> Layer {
        let mut writer = LayerWriter::create(&folder.join(name)).unwrap();
        writer.file(Path::new("usr/bin/tool"), 0o755, b"content").unwrap();
        writer
            .link(Path::new("bin/tool"), Path::new("/usr/bin/tool"))
            .unwrap();
        writer.folder(Path::new("tmp"), 0o1777).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn equal_content_gives_an_equal_digest_and_other_content_another() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = json!({"User": "65532"});
        let one = Image::new("a/b:dev", vec![layer(folder.path(), "1")], &runtime).unwrap();
        let two = Image::new("a/b:dev", vec![layer(folder.path(), "2")], &runtime).unwrap();
        assert_eq!(one.digest, two.digest);
        let other = Image::new("a/b:dev", vec![layer(folder.path(), "1")], &json!({"User": "0"})).unwrap();
        assert_ne!(one.digest, other.digest);
    }

    #[test]
    fn each_blob_of_the_archive_has_the_digest_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image::new("a/b:dev", vec![layer(folder.path(), "layer")], &json!({})).unwrap();
        let path = folder.path().join("image.tar");
        image.write_archive(&path).unwrap();
        let mut archive = tar::Archive::new(File::open(&path).unwrap());
        let mut blobs = 0;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(expected) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(expected, digest(&content));
                blobs += 1;
            }
            if name == "index.json" {
                let index: Value = serde_json::from_slice(&content).unwrap();
                assert_eq!(index["manifests"][0]["digest"], image.digest.as_str());
                assert_eq!(
                    index["manifests"][0]["annotations"]["io.containerd.image.name"],
                    "docker.io/a/b:dev"
                );
            }
        }
        assert_eq!(blobs, 3);
    }
}
