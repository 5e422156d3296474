//! Go programs that the control plane and the local cluster consist of, and the peers that judge ours, built once and kept in the
//! user's cache.
//!
//! Versions are pinned by the `go.mod` and `go.sum` of the modules in `e2e/cluster/`. A finished binary lies in a folder whose name
//! holds a hash of its module's files and build flags, so that another checkout with the same pins finds it, and one with other pins
//! does not disturb it. A file lock keeps two checkouts from building the same thing at once.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::environment;

/// The Kubernetes version that `e2e/cluster/kubernetes/go.mod` pins; its binaries report it.
pub const KUBERNETES_VERSION: &str = "1.36.3";

/// One program built from a pinned Go module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The store of the control plane.
    Etcd,
    /// Kubernetes' API server.
    KubeApiserver,
    /// Kubernetes' controllers.
    KubeControllerManager,
    /// Kubernetes' scheduler.
    KubeScheduler,
    /// Kubernetes' node agent.
    Kubelet,
    /// Kubernetes' Service proxy.
    KubeProxy,
    /// Kubernetes' command line.
    Kubectl,
    /// The container runtime.
    Containerd,
    /// What containerd runs beside each pod.
    ContainerdShim,
    /// containerd's command line.
    Ctr,
    /// The cluster's DNS server.
    CoreDns,
    /// Makes a directory on the node for each PersistentVolumeClaim.
    LocalPathProvisioner,
    /// An S3 server over a directory.
    Versitygw,
    /// The process that holds a pod's namespaces; a few lines of our own.
    Pause,
    /// The owner of the repository format that `crates/kopia` speaks; judges what we write, and is measured beside us.
    Kopia,
    /// Another backup program, measured beside us.
    Restic,
}

struct Spec {
    binary: &'static str,
    module: &'static str,
    package: &'static str,
    tags: &'static str,
    /// Go linker flags that set variables, beside the ones that strip the binary.
    variables: &'static str,
}

const KUBERNETES_VARIABLES: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=36 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3";
const CONTAINERD_TAGS: &str = "no_btrfs no_zfs no_devmapper";
const CONTAINERD_VARIABLES: &str = "-X github.com/containerd/containerd/v2/version.Version=2.4.2";

impl Part {
    /// Everything the local cluster needs, in the order of building.
    pub const ALL: [Self; 14] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Kubectl,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::ContainerdShim,
        Self::Ctr,
        Self::Versitygw,
        Self::LocalPathProvisioner,
        Self::CoreDns,
        Self::Pause,
    ];

    /// Programs that tests and benches compare ours with. Nothing of the cluster needs them, so they are built when asked for.
    pub const PEERS: [Self; 2] = [Self::Kopia, Self::Restic];

    const fn spec(self) -> Spec {
        const fn kubernetes(binary: &'static str, package: &'static str) -> Spec {
            Spec {
                binary,
                module: "kubernetes",
                package,
                tags: "",
                variables: KUBERNETES_VARIABLES,
            }
        }
        const fn containerd(binary: &'static str, package: &'static str) -> Spec {
            Spec {
                binary,
                module: "containerd",
                package,
                tags: CONTAINERD_TAGS,
                variables: CONTAINERD_VARIABLES,
            }
        }
        const fn plain(binary: &'static str, module: &'static str, package: &'static str) -> Spec {
            Spec {
                binary,
                module,
                package,
                tags: "",
                variables: "",
            }
        }
        match self {
            Self::Etcd => plain("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
            Self::KubeApiserver => kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            Self::KubeControllerManager => kubernetes(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
            ),
            Self::KubeScheduler => kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            Self::Kubelet => kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            Self::KubeProxy => kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            Self::Kubectl => kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            Self::Containerd => {
                containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd")
            }
            Self::ContainerdShim => containerd(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            ),
            Self::Ctr => containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
            Self::CoreDns => plain("coredns", "coredns", "github.com/coredns/coredns"),
            Self::LocalPathProvisioner => plain(
                "local-path-provisioner",
                "local-path",
                "github.com/rancher/local-path-provisioner",
            ),
            Self::Versitygw => plain(
                "versitygw",
                "versitygw",
                "github.com/versity/versitygw/cmd/versitygw",
            ),
            Self::Pause => plain("pause", "pause", "."),
            Self::Kopia => Spec {
                tags: "nohtmlui",
                variables: "-X github.com/kopia/kopia/repo.BuildVersion=0.21.1",
                ..plain("kopia", "kopia", "github.com/kopia/kopia")
            },
            Self::Restic => plain("restic", "restic", "github.com/restic/restic/cmd/restic"),
        }
    }

    /// The file name of the program.
    pub const fn name(self) -> &'static str {
        self.spec().binary
    }

    /// Where the finished program lies, whether it was built yet or not.
    ///
    /// Fails when the module's files cannot be read or no cache folder is known.
    pub fn path(self) -> Result<PathBuf> {
        let spec = self.spec();
        Ok(environment::cache_dir()?
            .join("parts")
            .join(format!("{}-{}", spec.module, spec.key()?))
            .join(spec.binary))
    }

    /// The finished program; builds it first when the cache has none.
    pub fn ensure(self) -> Result<PathBuf> {
        let path = self.path()?;
        if !path.is_file() {
            build(self, &path)?;
        }
        Ok(path)
    }
}

/// Builds what is missing of the given programs; returns at once when the cache has them all.
pub fn ensure(parts: &[Part]) -> Result<()> {
    parts.iter().try_for_each(|part| part.ensure().map(drop))
}

impl Spec {
    fn folder(&self) -> PathBuf {
        environment::workspace_root()
            .join("e2e/cluster")
            .join(self.module)
    }

    /// A short hash of everything that decides about the binary, except for Go's own version.
    fn key(&self) -> Result<String> {
        let folder = self.folder();
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|path| {
            path.extension()
                .is_some_and(|ext| ["mod", "sum", "go"].iter().any(|known| ext == *known))
        });
        files.sort();
        let mut hash = Sha256::new();
        for path in files {
            hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        for flag in [self.tags, self.variables] {
            hash.update([0]);
            hash.update(flag);
        }
        Ok(hex(&hash.finalize()[..6]))
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Says something on the terminal, past the test harness, which would hold it back until the end of a test.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn build(part: Part, target: &Path) -> Result<()> {
    let spec = part.spec();
    let folder = target.parent().context("a part without folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock_path = folder.with_extension("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot create {}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        say(&format!(
            "waiting for another build of the module {} ({})",
            spec.module,
            lock_path.display()
        ));
        lock.lock().context("cannot lock the parts' cache")?;
    }
    if target.is_file() {
        return Ok(());
    }
    say(&format!(
        "building {} from e2e/cluster/{} (kept afterwards in {})",
        spec.binary,
        spec.module,
        folder.display()
    ));
    let begin = Instant::now();
    let unfinished = folder.join(format!(".{}.unfinished", spec.binary));
    let output = Command::new("go")
        .current_dir(spec.folder())
        .args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-tags",
            spec.tags,
        ])
        .args(["-ldflags", format!("-s -w {}", spec.variables).trim_end(), "-o"])
        .arg(&unfinished)
        .arg(spec.package)
        // Static binaries: no C compiler is needed, and they run in images without libraries.
        .envs([("CGO_ENABLED", "0"), ("GOWORK", "off")])
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "Go is missing: install Go 1.26.6 or newer to build {}, or set {}",
                spec.binary,
                environment::KUBECONFIG
            )
        }
        Err(error) => return Err(error).context("cannot start go"),
    };
    if !output.status.success() {
        bail!(
            "go could not build {}:\n{}",
            spec.binary,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::rename(&unfinished, target).with_context(|| format!("cannot create {}", target.display()))?;
    say(&format!(
        "built {} in {:.0} s",
        spec.binary,
        begin.elapsed().as_secs_f32()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_pinned_module_and_a_path_of_its_own() {
        let parts = [Part::ALL.as_slice(), &Part::PEERS].concat();
        let mut paths: Vec<_> = parts.iter().map(|part| part.path().unwrap()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), parts.len());
        for part in parts {
            assert!(part.spec().folder().join("go.mod").is_file(), "{part:?}");
        }
    }

    #[test]
    fn the_version_flags_name_the_pinned_kubernetes() {
        let module = fs::read_to_string(Part::Kubelet.spec().folder().join("go.mod")).unwrap();
        assert!(
            module.contains(&format!("k8s.io/kubernetes v{KUBERNETES_VERSION}")),
            "{module}"
        );
        assert!(KUBERNETES_VARIABLES.contains(&format!("gitVersion=v{KUBERNETES_VERSION} ")));
    }

    #[test]
    fn flags_are_part_of_the_key() {
        let spec = Part::Ctr.spec();
        let other = Spec {
            tags: "",
            ..Part::Ctr.spec()
        };
        assert_ne!(spec.key().unwrap(), other.key().unwrap());
    }
}
