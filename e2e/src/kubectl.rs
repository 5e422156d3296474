//! kubectl, as people use it.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long one command may take; a checksum of some 100 MB is the longest.
const LIMIT: Duration = Duration::from_mins(5);

/// A kubectl with its kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Takes the paths of both.
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// The command, for callers that want more than its output.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command and returns what it prints. Fails with its error output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, b"").await
    }

    /// Runs a command that reads `input`.
    pub async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let shown = arguments.iter().take(6).copied().collect::<Vec<_>>().join(" ");
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that ends early says itself why.
                let _ = stdin.write_all(input).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(LIMIT, both)
            .await
            .with_context(|| format!("kubectl {shown} did not end within {LIMIT:?}"))?
            .with_context(|| format!("kubectl {shown}"))?;
        checked(&shown, &output)
    }

    /// Applies documents server-side.
    pub async fn apply(&self, documents: &str) -> Result<String> {
        self.run_with_input(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            documents.as_bytes(),
        )
        .await
    }

    /// Runs a program in a container.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        program: &[&str],
    ) -> Result<String> {
        self.exec_with_input(namespace, pod, container, program, b"")
            .await
    }

    /// Runs a program in a container, and gives it `input`.
    pub async fn exec_with_input(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        program: &[&str],
        input: &[u8],
    ) -> Result<String> {
        let mut arguments = vec![
            "--namespace",
            namespace,
            "exec",
            "--stdin",
            pod,
            "--container",
            container,
            "--",
        ];
        arguments.extend(program);
        self.run_with_input(&arguments, input).await
    }
}

fn checked(shown: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "kubectl {shown}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
