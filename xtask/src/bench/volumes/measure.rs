//! What one run of a program took: time, processor, memory.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use serde::{Deserialize, Serialize};

/// What a run took.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Usage {
    /// From its start to its end; of a restore, until everything is on the disk.
    pub seconds: f64,
    /// Of all its threads, in the program and in the kernel.
    pub cpu_seconds: f64,
    /// The most memory that was resident at once, as the kernel counts it.
    pub peak_rss_bytes: u64,
}

/// Arguments of the hidden `cargo xtask bench measured`.
#[derive(clap::Args)]
pub(crate) struct MeasuredArgs {
    /// Where the numbers go.
    #[arg(long)]
    report: PathBuf,
    /// The time counts until everything of this file system is on its disk.
    #[arg(long)]
    synced: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The kernel tells the peak memory of a process only to its parent, and there only as the largest of all its children. So each
/// program is started by a process of its own: this one.
pub(crate) fn run_measured(args: &MeasuredArgs) -> Result<()> {
    let (program, arguments) = args.command.split_first().context("no program")?;
    let begin = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    if let Some(path) = &args.synced {
        let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        nix::unistd::syncfs(file).context("syncfs")?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let usage = Usage {
        seconds,
        cpu_seconds: in_seconds(usage.user_time()) + in_seconds(usage.system_time()),
        // Linux counts KiB.
        peak_rss_bytes: u64::try_from(usage.max_rss()).context("peak memory")? * 1024,
    };
    fs::write(&args.report, serde_json::to_vec(&usage)?)
        .with_context(|| format!("cannot write {}", args.report.display()))
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn in_seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// Runs a command with exactly its own environment; its output goes to `log`. What it writes to `synced` must be on the disk before the
/// time is taken. Fails with the end of the log if the command fails.
pub(super) fn measure(command: &Command, synced: Option<&Path>, log: &Path) -> Result<Usage> {
    let report = log.with_extension("usage.json");
    let output = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let status = Command::new(std::env::current_exe().context("own path")?)
        .args(["bench", "measured", "--report"])
        .arg(&report)
        .args(
            synced
                .into_iter()
                .flat_map(|path| [OsStr::new("--synced"), path.as_os_str()]),
        )
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| value.map(|value| (name, value))),
        )
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("cannot start myself")?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    serde_json::from_slice(&fs::read(&report)?).context("the numbers of a run")
}

/// Writes all dirty pages and forgets all clean ones, so that the next program finds nothing in memory.
pub(super) fn cold() -> Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache; the bench needs root")
}
