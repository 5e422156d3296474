//! What runs pods: containerd with its network, kubelet, kube-proxy.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use holdfast_testkit::{parts::Part, process::poll};
use serde_json::{Value, json};

use super::{
    control::{kubeconfig_of, secret},
    layout::Layout,
    node::{Node, text},
};

/// Inside the node's own /run.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Starts what does not run; returns when containerd answers.
pub(crate) fn start(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    write_configuration(layout)?;
    let file = |flag: &str, name: &str| format!("--{flag}={}", layout.state().join(name).display());
    node.start_part(Part::Containerd, &[file("config", "containerd.toml")], &[])?;
    let ctr = Part::Ctr.ensure()?;
    let answers = || {
        node.run(&ctr, &["--connect-timeout=1s", "--timeout=2s", "version"])
            .ok()
    };
    poll(Duration::from_secs(30), Duration::from_millis(100), answers).with_context(|| {
        format!(
            "containerd does not answer; see {}",
            layout.logs().join("containerd.log").display()
        )
    })?;
    let kubelet = [
        file("config", "kubelet.json"),
        format!("--kubeconfig={}", kubeconfig_of(layout, "kubelet")?),
        "--hostname-override=holdfast".to_owned(),
        format!("--node-ip={}", layout.node_address()),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ];
    node.start_part(Part::Kubelet, &kubelet, &[])?;
    node.start_part(Part::KubeProxy, &[file("config", "kube-proxy.json")], &[])
}

fn write_configuration(layout: &Layout) -> Result<()> {
    let state = layout.state();
    let network = state.join("net.d");
    fs::create_dir_all(&network).context("cannot create the folder for the pod network")?;
    let write = |path: &Path, content: &str| {
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&state.join("containerd.toml"), &containerd(text(&state)?))?;
    write(&state.join("kubelet.json"), &kubelet(layout).to_string())?;
    write(&state.join("kube-proxy.json"), &kube_proxy(layout)?.to_string())?;
    write(
        &state.join("resolv.conf"),
        &format!("nameserver {}\n", layout.node_address()),
    )?;
    write(
        &network.join("10-holdfast.conflist"),
        &pod_network(layout).to_string(),
    )
}

fn containerd(state: &str) -> String {
    format!(
        r#"version = 3
root = "{state}/containerd"
state = "/run/containerd"
# It would make a folder in /opt.
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "docker.io/holdfast/pause:dev"

[plugins."io.containerd.cri.v1.runtime"]
# In containers and sandboxes root may lack CAP_SYS_RESOURCE; lowering a score would fail every pod.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
conf_dir = "{state}/net.d"
"#
    )
}

fn pod_network(layout: &Layout) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "holdfast",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                // Everything that pods may reach knows the way back: no address is rewritten.
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": layout.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.node_address(),
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": secret(layout, "kubelet.crt"),
        "tlsPrivateKeyFile": secret(layout, "kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": secret(layout, "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.dns_service()],
        "resolvConf": layout.state().join("resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.cgroup()),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // The images cannot be pulled again: never delete one because the host's disk fills up.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "podLogsDir": "/var/log/pods",
        "registerWithTaints": [],
    })
}

fn kube_proxy(layout: &Layout) -> Result<Value> {
    Ok(json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig_of(layout, "proxy")?},
        "hostnameOverride": "holdfast",
        "bindAddress": layout.node_address(),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clusterCIDR": layout.pods(),
        "mode": "iptables",
        // Limits of the host's kernel are not ours to set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }))
}
