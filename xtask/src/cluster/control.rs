//! The control plane: keys, tokens, etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use holdfast_testkit::{
    certs::{self, Authority, Pair},
    kubeconfig, local,
    parts::Part,
    process::poll,
};

use super::{
    layout::Layout,
    node::{Node, text},
};

/// Name, user and group of each token. What runs beside the node (DNS, volumes) is an administrator, for it is a test cluster.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    (
        "controller-manager",
        "system:kube-controller-manager",
        "system:authenticated",
    ),
    ("scheduler", "system:kube-scheduler", "system:authenticated"),
    ("kubelet", "system:node:holdfast", "system:nodes"),
    ("proxy", "system:kube-proxy", "system:authenticated"),
];

/// A file of keys, certificates and tokens.
pub(crate) fn secret(layout: &Layout, name: &str) -> PathBuf {
    layout.state().join("pki").join(name)
}

/// The kubeconfig of one of the users above.
pub(crate) fn kubeconfig_of(layout: &Layout, user: &str) -> Result<String> {
    Ok(text(&secret(layout, &format!("{user}.kubeconfig")))?.to_owned())
}

/// Starts what does not run, and waits until the API server is ready.
pub(crate) fn start(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    if !secret(layout, "complete").exists() {
        write_secrets(layout)?;
    }
    start_etcd(node)?;
    start_apiserver(node)?;
    poll(Duration::from_mins(1), Duration::from_millis(100), || {
        is_ready(layout)
    })
    .with_context(|| {
        format!(
            "kube-apiserver is not ready after 60 s; see {}",
            layout.logs().display()
        )
    })?;
    start_controllers(node)
}

fn is_ready(layout: &Layout) -> Option<()> {
    let mut kubectl = Command::new(local::kubectl().ok()?);
    kubectl.arg("--kubeconfig").arg(layout.kubeconfig()).args([
        "get",
        "--raw=/readyz",
        "--request-timeout=2s",
    ]);
    let status = kubectl
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()).then_some(())
}

fn write_secrets(layout: &Layout) -> Result<()> {
    fs::create_dir_all(secret(layout, "")).context("cannot create the folder for keys")?;
    let write = |name: &str, content: &str| kubeconfig::write_private(&secret(layout, name), content);
    let pair = |name: &str, pair: &Pair| -> Result<()> {
        write(&format!("{name}.crt"), &pair.public)?;
        write(&format!("{name}.key"), &pair.private)
    };
    let authority = Authority::new()?;
    write("ca.crt", &authority.certificate)?;
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        &layout.node_address(),
        &layout.kubernetes_service(),
    ];
    pair("apiserver", &authority.server(&names)?)?;
    pair(
        "kubelet-client",
        &authority.client("kube-apiserver", "system:masters")?,
    )?;
    pair(
        "kubelet",
        &authority.server(&["holdfast", &layout.node_address()])?,
    )?;
    pair("service-account", &certs::signing_key()?)?;
    let mut tokens = Vec::new();
    for (name, user, group) in USERS {
        let token = certs::random_token()?;
        tokens.push(format!("{token},{user},{name},{group}\n"));
        let text = kubeconfig::with_token(&layout.server(), &authority.certificate, &token);
        write(&format!("{name}.kubeconfig"), &text)?;
        if name == "admin" {
            kubeconfig::write_private(&layout.kubeconfig(), &text)?;
        }
    }
    write("tokens.csv", &tokens.concat())?;
    write("complete", "")
}

fn start_etcd(node: &Node<'_>) -> Result<()> {
    let data = format!("--data-dir={}", node.layout.state().join("etcd").display());
    let flags = [
        "--name=holdfast",
        &data,
        // The data need not survive the machine.
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=holdfast=http://127.0.0.1:2380",
    ];
    node.start_part(Part::Etcd, &flags.map(str::to_owned), &[])
}

fn start_apiserver(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    let file = |flag: &str, name: &str| format!("--{flag}={}", secret(layout, name).display());
    let flags = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={}", layout.node_address()),
        format!("--advertise-address={}", layout.node_address()),
        "--secure-port=6443".to_owned(),
        format!("--service-cluster-ip-range={}", layout.services()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Else exec and logs would look up the node's name.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
        file("token-auth-file", "tokens.csv"),
        file("client-ca-file", "ca.crt"),
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("kubelet-certificate-authority", "ca.crt"),
        file("kubelet-client-certificate", "kubelet-client.crt"),
        file("kubelet-client-key", "kubelet-client.key"),
        file("service-account-key-file", "service-account.crt"),
        file("service-account-signing-key-file", "service-account.key"),
        file("cert-dir", "unused"),
    ];
    node.start_part(Part::KubeApiserver, &flags, &[])
}

fn start_controllers(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    let file = |flag: &str, name: &str| format!("--{flag}={}", secret(layout, name).display());
    let flags = [
        file("kubeconfig", "controller-manager.kubeconfig"),
        file("root-ca-file", "ca.crt"),
        file("service-account-private-key-file", "service-account.key"),
        file("cert-dir", "unused"),
        "--use-service-account-credentials=true".to_owned(),
        // By default a folder of the host, which would be made.
        "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".to_owned(),
        "--allocate-node-cidrs=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    node.start_part(Part::KubeControllerManager, &flags, &[])?;
    let flags = [
        file("kubeconfig", "scheduler.kubeconfig"),
        file("cert-dir", "unused"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    node.start_part(Part::KubeScheduler, &flags, &[])
}
