//! The node: network and mount namespaces of its own, so that its bridge, iptables rules, mounts and sockets never meet the host's
//! or another cluster's, and vanish with its last process.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{
    certs::random_token,
    local,
    parts::{Part, say},
    process::{Daemon, Identity, Launch, poll},
};

use super::{cgroups, host, layout::Layout};

/// Folders of the host that the node sees its own version of. The standard places, because what runs on nodes expects them.
pub(crate) const MOUNT_POINTS: [&str; 2] = ["/var/lib/kubelet", "/var/lib/cni"];

/// The process that keeps the namespaces.
const HOLDER: &str = "node";
/// Equal in the run folder and in the state folder, unless one of them was removed behind our back.
const INSTANCE: &str = "instance";

/// Runs as the first process in the new namespaces. `$1` is the state folder.
const SETUP: &str = r#"
set -eu
state=$1
mount --make-rshared /
mount -t tmpfs -o mode=755 holdfast-run /run
mkdir -p /run/lock /run/netns
own() {
    mkdir -p "$state/$1"
    mount --bind "$state/$1" "$2"
    mount --make-private "$2"
    mount --make-shared "$2"
}
own kubelet /var/lib/kubelet
own cni /var/lib/cni
own log /var/log
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
touch "$state/ready"
exec sleep infinity
"#;

/// Puts itself into the control group and the namespaces, and becomes the program.
const ENTER: &str =
    r#"echo $$ >"$1" && holder=$2 && shift 2 && exec nsenter --target "$holder" --net --mount -- "$@""#;

/// A node whose namespaces exist.
pub(crate) struct Node<'a> {
    pub(crate) layout: &'a Layout,
    holder: Identity,
    processes: PathBuf,
}

/// Whether a recorded cluster can be completed, rather than started anew.
pub(crate) fn is_usable(layout: &Layout) -> bool {
    let instance = |folder: PathBuf| fs::read_to_string(folder.join(INSTANCE)).ok();
    let holder = Daemon::load(&layout.pid_file(HOLDER));
    let same = instance(layout.run()).is_some_and(|text| Some(text) == instance(layout.state()));
    same && layout.state().join("ready").exists() && holder.is_some_and(|holder| holder.identity.is_alive())
}

/// Makes the namespaces, the control groups and the cable between host and node; or finds those of a running cluster.
pub(crate) fn start(layout: &Layout) -> Result<Node<'_>> {
    let processes = cgroups::create(&layout.cgroup())?;
    if is_usable(layout) {
        let holder = Daemon::load(&layout.pid_file(HOLDER)).context("no pid file of the node")?;
        return Ok(Node {
            layout,
            holder: holder.identity,
            processes,
        });
    }
    for folder in [layout.state(), layout.logs()] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for folder in MOUNT_POINTS {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    }
    let state = layout.state();
    let launch = Launch {
        command: [
            "sh",
            "-c",
            r#"echo $$ >"$1" && exec unshare --net --mount --propagation private -- sh -c "$2" node "$3""#,
            "node",
            text(&processes)?,
            SETUP,
            text(&state)?,
        ]
        .map(str::to_owned)
        .to_vec(),
        environment: vec![("PATH".to_owned(), host::PATH.to_owned())],
        log: layout.logs().join("node.log"),
    };
    let daemon = Daemon::start(launch, &layout.pid_file(HOLDER))?;
    let ready =
        || (state.join("ready").exists() || !daemon.identity.is_alive()).then(|| daemon.identity.is_alive());
    if poll(Duration::from_secs(10), Duration::from_millis(5), ready) != Some(true) {
        bail!(
            "cannot make the node's namespaces; see {}",
            layout.logs().join("node.log").display()
        );
    }
    let node = Node {
        layout,
        holder: daemon.identity,
        processes,
    };
    node.connect()?;
    let instance = random_token()?;
    for folder in [layout.run(), layout.state()] {
        fs::write(folder.join(INSTANCE), &instance).context("cannot mark the instance")?;
    }
    Ok(node)
}

/// The node of this checkout's running cluster, with its layout; fails when it does not run.
pub(crate) fn running(layout: &Layout) -> Result<Node<'_>> {
    if !is_usable(layout) {
        bail!("the local cluster does not run: run `cargo xtask cluster up`");
    }
    start(layout)
}

impl Node<'_> {
    /// A cable from the host to the node, and routes, so that tests reach the API server, S3, pods and Services from the host.
    fn connect(&self) -> Result<()> {
        let (layout, interface, holder) = (self.layout, self.layout.interface(), self.holder.pid.to_string());
        ip(&[
            "link", "add", &interface, "type", "veth", "peer", "name", "eth0", "netns", &holder,
        ])?;
        ip(&[
            "address",
            "add",
            &format!("{}/30", layout.host_address()),
            "dev",
            &interface,
        ])?;
        ip(&["link", "set", &interface, "up"])?;
        self.run(
            "ip",
            &[
                "address",
                "add",
                &format!("{}/30", layout.node_address()),
                "dev",
                "eth0",
            ],
        )?;
        self.run("ip", &["link", "set", "eth0", "up"])?;
        self.run("ip", &["route", "add", "default", "via", &layout.host_address()])?;
        ip(&["route", "add", &layout.network(), "via", &layout.node_address()])
    }

    /// Starts one of the node's programs, unless it runs already.
    pub(crate) fn start_part(
        &self,
        part: Part,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Result<()> {
        let pid_file = self.layout.pid_file(part.name());
        if Daemon::load(&pid_file).is_some_and(|daemon| daemon.identity.is_alive()) {
            return Ok(());
        }
        let program = part.ensure()?;
        let mut command: Vec<String> = ["sh", "-c", ENTER, "enter", text(&self.processes)?]
            .map(str::to_owned)
            .to_vec();
        command.push(self.holder.pid.to_string());
        command.push(text(&program)?.to_owned());
        command.extend_from_slice(arguments);
        let beside = program.parent().context("a part without folder")?;
        let path = format!("{}:{}", beside.display(), host::PATH);
        let mut variables = vec![("PATH".to_owned(), path), ("HOME".to_owned(), "/root".to_owned())];
        variables.extend(
            environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        let log = self.layout.logs().join(format!("{}.log", part.name()));
        Daemon::start(
            Launch {
                command,
                environment: variables,
                log,
            },
            &pid_file,
        )?;
        Ok(())
    }

    /// A command inside the node's namespaces.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.holder.pid.to_string(), "--net", "--mount", "--"])
            .arg(program)
            .env("PATH", host::PATH);
        command
    }

    /// Runs a command inside the node and returns what it prints. Fails with what it says when it fails.
    pub(crate) fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String> {
        output(self.command(program).args(arguments), None)
    }

    /// Runs the pinned kubectl as the cluster's administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(
            Command::new(local::kubectl()?)
                .arg("--kubeconfig")
                .arg(self.layout.kubeconfig())
                .args(arguments),
            None,
        )
    }

    /// Applies manifests (YAML).
    pub(crate) fn apply(&self, manifests: &str) -> Result<()> {
        let mut kubectl = Command::new(local::kubectl()?);
        kubectl.arg("--kubeconfig").arg(self.layout.kubeconfig());
        kubectl.args(["apply", "--server-side", "--force-conflicts", "--filename=-"]);
        output(&mut kubectl, Some(manifests)).map(drop)
    }

    /// Loads an image into containerd, unless it has the very same one already.
    pub(crate) fn load_image(&self, image: &crate::images::Image) -> Result<()> {
        let ctr = Part::Ctr.ensure()?;
        let name = image.full_name();
        let present = |wanted: &str| -> Result<bool> {
            let list = self.run(
                &ctr,
                &["--namespace=k8s.io", "images", "list", &format!("name=={name}")],
            )?;
            Ok(list.contains(&image.digest) && list.contains(wanted))
        };
        if present(&image.digest)? {
            return Ok(());
        }
        let begin = std::time::Instant::now();
        let archive = self
            .layout
            .state()
            .join(format!("image-{}.tar", std::process::id()));
        image.write_archive(&archive)?;
        self.run(&ctr, &["--namespace=k8s.io", "images", "import", text(&archive)?])?;
        fs::remove_file(&archive).context("cannot remove the image's archive")?;
        // kubelet's view of the images follows containerd's by events; a pod that is faster would try to pull.
        let seen = || {
            present("io.cri-containerd.image=managed")
                .ok()
                .filter(|seen| *seen)
        };
        poll(Duration::from_secs(10), Duration::from_millis(50), seen)
            .with_context(|| format!("containerd's Kubernetes side does not see {name}"))?;
        say(&format!(
            "loaded {} in {:.1} s",
            image.name,
            begin.elapsed().as_secs_f32()
        ));
        Ok(())
    }
}

/// Runs ip(8) on the host.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    output(Command::new("ip").args(arguments).env("PATH", host::PATH), None).map(drop)
}

/// A path as text; those of this project are UTF-8, and what is not could not be handed on in a pid file.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
}

/// Runs a command to its end and returns its standard output; its standard error becomes the error.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<String> = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin
            .write_all(input.as_bytes())
            .with_context(|| format!("cannot write to {name}"))?;
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
