//! The real kube-apiserver and etcd, for tests: one pair per test binary, gone when the test binary is.

use std::{
    fs,
    io::PipeWriter,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::{GetParams, ObjectMeta, PostParams},
    config::AuthInfo,
    core::Request,
};
use tokio::sync::OnceCell;

use crate::{
    certs::{self, Authority},
    kubeconfig::{self, write_private},
    parts::Part,
    process::Identity,
};

/// How long the API server may take until it is ready; it needs 4 s on an idle machine of 2 cores.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Runs both programs, and ends them and removes their folder as soon as standard input closes, which is when the test binary ends,
/// however it ends. As their parent it knows that the pids are theirs.
const GUARD: &str = r#"
dir=$1 etcd=$2; shift 2
"$etcd" --name=test --data-dir="$dir/etcd" --unsafe-no-fsync --listen-peer-urls=http://127.0.0.1:0 \
    --initial-advertise-peer-urls=http://127.0.0.1:0 --initial-cluster=test=http://127.0.0.1:0 \
    --listen-client-urls="$ETCD" --advertise-client-urls="$ETCD" >"$dir/etcd.log" 2>&1 </dev/null &
etcd=$!
"$@" >"$dir/kube-apiserver.log" 2>&1 </dev/null &
apiserver=$!
cat >/dev/null
kill -9 $apiserver $etcd 2>/dev/null
wait
rm -rf "$dir"
"#;

/// A running control plane: etcd and kube-apiserver with RBAC, without controllers, scheduler or nodes.
///
/// So no ServiceAccount `default` appears in a namespace, nothing is garbage collected and a deleted namespace stays Terminating.
#[derive(Debug)]
pub struct ControlPlane {
    url: String,
    uri: http::Uri,
    authority: Vec<u8>,
    admin: AuthInfo,
    folder: PathBuf,
    kubeconfig: PathBuf,
    namespaces: AtomicU32,
    guard: Identity,
    /// Closed by the end of this process, which tells the guard to end both programs.
    _alive: PipeWriter,
}

/// Name of the audit log in the control plane's folder.
const AUDIT_LOG: &str = "audit.log";

/// Who asked for what, without bodies; one line for each request.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// The control plane of this test binary; the first call starts it (about 4 s, and several minutes when its programs are not in the
/// cache yet), later calls and other tests get the same one.
///
/// It is used even when `HOLDFAST_KUBECONFIG` is set: its tests need a server that is theirs alone. Fails when Go is missing, a
/// program cannot be built, or the server does not become ready within 90 s; the error holds the end of its log.
pub async fn control_plane() -> Result<&'static ControlPlane> {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_try_init(start).await
}

async fn start() -> Result<ControlPlane> {
    // Somebody else may take a port between our choice and the server's bind.
    let mut failure = None;
    for _ in 0..3 {
        let control_plane = tokio::task::spawn_blocking(launch)
            .await
            .context("the launch panicked")??;
        match control_plane.wait_ready().await {
            Ok(()) => return Ok(control_plane),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("not started")))
}

fn free_port() -> Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    Ok(socket.local_addr()?.port())
}

fn launch() -> Result<ControlPlane> {
    let (etcd, apiserver) = (Part::Etcd.ensure()?, Part::KubeApiserver.ensure()?);
    let folder = tempfile::Builder::new()
        .prefix("holdfast-control-plane-")
        .tempdir()
        .context("cannot make a folder")?;
    let path = |name: &str| folder.path().join(name);
    let (authority, signing) = (Authority::new()?, certs::signing_key()?);
    let serving = authority.server(&["localhost", "127.0.0.1", "kubernetes.default.svc"])?;
    let token = certs::random_token()?;
    let files = [
        ("ca.crt", authority.certificate.as_str()),
        ("tls.crt", &serving.public),
        ("tls.key", &serving.private),
        ("sa.pub", &signing.public),
        ("sa.key", &signing.private),
        ("audit.yaml", AUDIT_POLICY),
        ("tokens.csv", &format!("{token},admin,admin,system:masters\n")),
    ];
    for (name, text) in files {
        write_private(&path(name), text)?;
    }
    let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
    let port = free_port()?;
    let url = format!("https://127.0.0.1:{port}");
    let kubeconfig = path("kubeconfig");
    write_private(
        &kubeconfig,
        &kubeconfig::with_token(&url, &authority.certificate, &token),
    )?;

    let uri = url.parse().context("the server's address")?;
    let admin = AuthInfo {
        token: Some(token.into()),
        ..AuthInfo::default()
    };
    let (unread, alive) = std::io::pipe().context("cannot make a pipe")?;
    let flag = |name: &str, file: &str| format!("--{name}={}", path(file).display());
    let mut guard = Command::new("sh")
        .args(["-c", GUARD, "holdfast-control-plane"])
        .args([folder.path(), &etcd, &apiserver])
        .args([
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={port}"),
        ])
        .args([
            "--bind-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
        ])
        .args([
            flag("tls-cert-file", "tls.crt"),
            flag("tls-private-key-file", "tls.key"),
            flag("client-ca-file", "ca.crt"),
        ])
        .args([
            flag("token-auth-file", "tokens.csv"),
            flag("service-account-key-file", "sa.pub"),
        ])
        .args([
            flag("service-account-signing-key-file", "sa.key"),
            flag("cert-dir", "certs"),
        ])
        .args([
            flag("audit-policy-file", "audit.yaml"),
            flag("audit-log-path", AUDIT_LOG),
        ])
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--anonymous-auth=false",
        ])
        // Nobody makes the default ServiceAccounts here, and this plugin would refuse pods for want of them.
        .args([
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--shutdown-delay-duration=0s",
        ])
        .env("ETCD", &etcd_url)
        .stdin(unread)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt from the terminal ends the test binary; the guard must survive it to clean up.
        .process_group(0)
        .spawn()
        .context("cannot start sh")?;
    let identity = i32::try_from(guard.id())
        .ok()
        .and_then(Identity::of)
        .context("the control plane's guard ended at once")?;
    std::thread::spawn(move || guard.wait());
    // From here on the guard removes it.
    let folder = folder.keep();
    let namespaces = AtomicU32::new(0);
    Ok(ControlPlane {
        url,
        uri,
        authority: authority.der,
        admin,
        folder,
        kubeconfig,
        namespaces,
        guard: identity,
        _alive: alive,
    })
}

impl ControlPlane {
    /// The address of the API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A kubeconfig file of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Every request so far, one JSON document of `audit.k8s.io/v1` in each line: who asked for what. Lines may come a moment
    /// after the answer to the request.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join(AUDIT_LOG)
    }

    /// The folder of logs (`kube-apiserver.log`, `etcd.log`), certificates and tokens; removed at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client configuration of an administrator, to be changed by tests that need another deadline, address or user.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.uri.clone());
        config.root_cert = Some(vec![self.authority.clone()]);
        config.auth_info = self.admin.clone();
        config
    }

    /// A fresh client of an administrator. Each test needs one of its own: a client belongs to the runtime it was made in.
    pub fn client(&self) -> Client {
        client(self.config())
    }

    /// A client that acts as another user, with that user's rights alone; groups beside `system:authenticated` are named.
    pub fn impersonate(&self, user: &str, groups: &[&str]) -> Client {
        let mut config = self.config();
        config.auth_info.impersonate = Some(user.to_owned());
        let groups = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).collect());
        client(config)
    }

    /// A client that acts as a ServiceAccount, which need not exist.
    pub fn impersonate_service_account(&self, namespace: &str, name: &str) -> Client {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        self.impersonate(
            &format!("system:serviceaccount:{namespace}:{name}"),
            &groups.each_ref().map(String::as_str),
        )
    }

    /// A bearer token, good for an hour, of a ServiceAccount, which is made when it does not exist.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let account = ServiceAccount {
            metadata: named(name),
            ..ServiceAccount::default()
        };
        match api.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => drop(created.context("cannot make the ServiceAccount")?),
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec::default()),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        answer
            .status
            .and_then(|status| status.token)
            .context("the API server granted no token")
    }

    /// Makes a namespace that no other test uses and returns its name, which begins with `prefix`.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace {
            metadata: named(&name),
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(self.client());
        api.create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot make namespace {name}"))?;
        Ok(name)
    }

    async fn wait_ready(&self) -> Result<()> {
        let mut config = self.config();
        config.default_retry = false;
        (config.connect_timeout, config.read_timeout) =
            (Some(Duration::from_secs(2)), Some(Duration::from_secs(5)));
        let client = client(config);
        let ready = async {
            loop {
                let probe = Request::new("").get("readyz", &GetParams::default())?;
                if client.request_text(probe).await.is_ok() {
                    return anyhow::Ok(());
                }
                if !self.guard.is_alive() {
                    bail!("the control plane ended");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let failed = match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("not ready after {START_LIMIT:?}"),
        };
        Err(failed.context(format!(
            "kube-apiserver does not start; its log ends with:\n{}",
            self.log_end()
        )))
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

#[expect(
    clippy::expect_used,
    reason = "the configuration is our own, with a valid authority and address"
)]
fn client(config: Config) -> Client {
    // Whoever comes first in this process decides; it is the same provider everywhere.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).expect("our configuration makes a client")
}
