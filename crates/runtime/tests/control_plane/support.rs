//! What the tests share: runtimes in this process, processes of their own, and waiting for conditions.

use std::{future::Future, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use holdfast_runtime::{
    About, RunError, Runtime, RuntimeArgs, Term,
    client::{Endpoint, Limits},
    install_crypto_provider,
    shutdown::Shutdown,
};
use holdfast_testkit::ControlPlane;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Config, api::PostParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time::Instant,
};

/// How long a condition may take; far more than any needs, for machines under load.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const ABOUT: About = About {
    name: "example",
    version: "9.9.9",
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Arguments as a command line gives them.
pub(crate) fn args(line: &[&str]) -> RuntimeArgs {
    let standard = ["x", "--admin-address", "127.0.0.1:0"];
    Cli::parse_from(standard.iter().chain(line)).runtime
}

/// Arguments from the environment alone, for a process of its own.
pub(crate) fn args_of_environment() -> RuntimeArgs {
    Cli::parse_from(["probe"]).runtime
}

/// Waits until `probe` answers something.
pub(crate) async fn eventually<T, F, Fut>(what: &str, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("{what}: not within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A runtime in this process.
pub(crate) struct Running {
    pub(crate) admin: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Starts `work` against `config`, with these arguments.
    pub(crate) async fn start<F, Fut>(config: Config, line: &[&str], work: F) -> Result<Self>
    where
        F: Fn(Term) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        install_crypto_provider();
        let args = args(line);
        let limits = Limits {
            deadline: args.client.api_deadline,
            concurrency: 32,
        };
        let shutdown = Shutdown::manual();
        let runtime =
            Runtime::assemble(ABOUT, &args, Endpoint::new(config, limits), shutdown.clone()).await?;
        let admin = runtime.admin_address()?;
        Ok(Self {
            admin,
            shutdown,
            task: tokio::spawn(runtime.run(work)),
        })
    }

    /// Asks the admin server; status and body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.admin, path).await
    }

    pub(crate) async fn until_ready(&self) -> Result<()> {
        eventually("ready", || async {
            Ok((self.get("/readyz").await?.0 == 200).then_some(()))
        })
        .await
    }

    /// Waits until the scrape holds this line.
    pub(crate) async fn until_metric(&self, line: &str) -> Result<()> {
        eventually(line, || async {
            let (_, text) = self.get("/metrics").await?;
            Ok(text.lines().any(|l| l == line).then_some(()))
        })
        .await
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.shutdown.requested.cancel();
        tokio::time::timeout(PATIENCE, &mut self.task).await???;
        Ok(())
    }
}

/// One GET; status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// A process of its own that runs [`crate::probe`].
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(
        cp: &ControlPlane,
        namespace: &str,
        mode: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["probe::probe", "--exact", "--ignored", "--nocapture"])
            .env("HOLDFAST_KUBECONFIG", cp.kubeconfig())
            .env("HOLDFAST_ADMIN_ADDRESS", "127.0.0.1:0")
            .env("HOLDFAST_LEASE_NAMESPACE", namespace)
            .env("HOLDFAST_NAMESPACES", namespace)
            .env("HOLDFAST_LOG_FORMAT", "text")
            .env("PROBE_MODE", mode)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Waits for a line of the probe that begins so.
    pub(crate) async fn says(&mut self, beginning: &str) -> Result<String> {
        let wanted = format!("probe: {beginning}");
        let found = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.starts_with(&wanted) {
                    return Ok(line);
                }
            }
            bail!("the probe ended without saying {beginning:?}")
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .with_context(|| format!("waiting for {beginning:?}"))?
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().context("it has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Whether it succeeds, once it ends.
    pub(crate) async fn ends(&mut self) -> Result<bool> {
        // Reads on, for a full pipe would keep it from ending.
        let ended = async {
            while self.lines.next_line().await?.is_some() {}
            anyhow::Ok(self.child.wait().await?.success())
        };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .context("the probe does not end")?
    }
}

/// Creates a ConfigMap, the plainest of objects.
pub(crate) async fn create(client: &kube::Client, namespace: &str, name: &str) -> Result<ConfigMap> {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    Ok(Api::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &object)
        .await?)
}
