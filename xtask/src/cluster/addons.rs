//! What a usable cluster has beside the node: DNS, a StorageClass, an S3 server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};
use holdfast_testkit::{certs::random_token, kubeconfig, parts::Part, process::poll};

use super::{
    control::kubeconfig_of,
    layout::Layout,
    node::{Node, text},
};

/// The Service kube-dns, with the node's address as its only endpoint, for DNS runs beside kubelet and not in a pod.
const DNS: &str = include_str!("../../../e2e/cluster/manifests/dns.yaml");
/// The default StorageClass, and the pod that makes and removes its folders.
const STORAGE: &str = include_str!("../../../e2e/cluster/manifests/storage.yaml");

/// Starts what does not run.
pub(crate) fn start(node: &Node<'_>) -> Result<()> {
    start_s3(node)?;
    start_dns(node)?;
    start_storage(node)
}

fn start_s3(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    let env_file = layout.folder().join("s3.env");
    let data = layout.state().join("s3");
    fs::create_dir_all(&data).context("cannot create the S3 server's folder")?;
    let keys = layout.state().join("s3.keys");
    if !keys.exists() {
        kubeconfig::write_private(&keys, &format!("{}\n{}\n", random_token()?, random_token()?))?;
    }
    let keys = fs::read_to_string(&keys).context("cannot read the S3 server's keys")?;
    let (access, secret) = keys
        .trim()
        .split_once('\n')
        .context("the S3 server's keys are damaged")?;
    let endpoint = layout.s3_endpoint();
    let content = format!(
        "# Access to the local cluster's S3 server, from the host and from pods.\nAWS_ENDPOINT={endpoint}\n\
         AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY={secret}\nAWS_REGION=us-east-1\nAWS_S3_FORCE_PATH_STYLE=true\n"
    );
    kubeconfig::write_private(&env_file, &content)?;
    let flags = [
        format!("--port={}:7070", layout.node_address()),
        "posix".to_owned(),
        text(&data)?.to_owned(),
    ];
    let environment = [
        ("ROOT_ACCESS_KEY", access.to_owned()),
        ("ROOT_SECRET_KEY", secret.to_owned()),
    ];
    node.start_part(Part::Versitygw, &flags, &environment)
}

fn start_dns(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    let corefile = layout.state().join("Corefile");
    fs::write(&corefile, corefile_text(layout)?).context("cannot write the Corefile")?;
    node.start_part(Part::CoreDns, &[format!("-conf={}", corefile.display())], &[])?;
    node.apply(
        &DNS.replace("{dns_service}", &layout.dns_service())
            .replace("{node}", &layout.node_address()),
    )
}

fn corefile_text(layout: &Layout) -> Result<String> {
    let (address, kubeconfig) = (layout.node_address(), kubeconfig_of(layout, "admin")?);
    // Names outside the cluster are unknown here: it has no way out.
    Ok(format!(
        ".:53 {{\n    bind {address}\n    errors\n    ready {address}:8181\n    kubernetes cluster.local in-addr.arpa {{\n        \
         kubeconfig {kubeconfig}\n        ttl 5\n    }}\n    cache 5\n}}\n"
    ))
}

fn start_storage(node: &Node<'_>) -> Result<()> {
    let layout = node.layout;
    let volumes = layout.state().join("volumes");
    let configuration = layout.state().join("local-path.json");
    let paths = serde_json::json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [text(&volumes)?]}]});
    fs::write(&configuration, paths.to_string()).context("cannot write the volumes' configuration")?;
    let helper = layout.state().join("local-path-helper.yaml");
    fs::write(
        &helper,
        include_str!("../../../e2e/cluster/manifests/storage-helper.yaml"),
    )
    .context("cannot write the helper pod")?;
    node.apply(STORAGE)?;
    let flags = [
        "start".to_owned(),
        format!("--config={}", configuration.display()),
        format!("--helper-pod-file={}", helper.display()),
        format!("--kubeconfig={}", kubeconfig_of(layout, "admin")?),
        "--namespace=local-path-storage".to_owned(),
        "--configmap-name=local-path".to_owned(),
        "--service-account-name=default".to_owned(),
        "--helper-image=holdfast/tools:dev".to_owned(),
    ];
    node.start_part(Part::LocalPathProvisioner, &flags, &[])
}

/// Waits until the DNS server has read the cluster's Services; fails after 60 s.
pub(crate) fn wait_for_dns(node: &Node<'_>) -> Result<()> {
    let address = format!("{}:8181", node.layout.node_address());
    let ready = || {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().next()?.contains(" 200 ").then_some(())
    };
    poll(Duration::from_mins(1), Duration::from_millis(100), ready).with_context(|| {
        format!(
            "DNS is not ready; see {}",
            node.layout.logs().join("coredns.log").display()
        )
    })
}
