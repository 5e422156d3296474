//! Processes that outlive their starter, and an identity for them that survives the reuse of a pid.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same pid by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks after boot.
    start: u64,
    /// Which boot of the machine.
    boot: String,
}

impl Identity {
    /// The process that has this pid now; none when there is none, or when it has ended and only awaits its parent.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        (state != 'Z' && state != 'X').then(|| Self {
            pid,
            start,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to this process; does nothing when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end right now; then there is nobody to signal.
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Ends this process: SIGTERM, then SIGKILL after `grace`. Returns when it has ended.
    ///
    /// Fails when the process survives SIGKILL for 10 s (it hangs in the kernel).
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        if !self.wait(grace) {
            self.signal(Signal::SIGKILL);
            if !self.wait(Duration::from_secs(10)) {
                bail!("process {} survives SIGKILL", self.pid);
            }
        }
        Ok(())
    }

    /// Waits until this process has ended; false when it has not within `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        poll(limit, Duration::from_millis(20), || {
            (!self.is_alive()).then_some(())
        })
        .is_some()
    }
}

/// The state and start time from `/proc/PID/stat`; the second field is a name that may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3 and the start time is field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Asks `probe` every `interval` until it has an answer; none after `limit`.
pub fn poll<T>(limit: Duration, interval: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if begin.elapsed() >= limit {
            return None;
        }
        thread::sleep(interval);
    }
}

/// How to start a process again: kept beside its identity, so that a test can stop a part of the cluster and bring it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment variables beside the starter's.
    pub environment: Vec<(String, String)>,
    /// The file that standard output and error are appended to.
    pub log: std::path::PathBuf,
}

/// A background process with its launch, as kept in a pid file (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Which process runs it.
    pub identity: Identity,
    /// How it was started.
    pub launch: Launch,
}

impl Daemon {
    /// Reads a pid file; none when there is none or it was written halfway.
    pub fn load(pid_file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(pid_file).ok()?).ok()
    }

    /// Starts the process in a session of its own, so that the end of the starter or its terminal does not end it, and writes the
    /// pid file. Fails when the program does not exist, its log cannot be opened, or it ends within 50 ms.
    pub fn start(launch: Launch, pid_file: &Path) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .with_context(|| format!("cannot open {}", launch.log.display()))?;
        // setsid(1) becomes the program itself, under the same pid, because a fresh child leads no process group.
        let mut child = Command::new("setsid")
            .args(&launch.command)
            .envs(launch.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .spawn()
            .context("cannot start setsid(1) of util-linux")?;
        let pid = i32::try_from(child.id()).context("pid")?;
        let identity = Identity::of(pid);
        let ended = poll(Duration::from_millis(50), Duration::from_millis(10), || {
            child.try_wait().ok().flatten()
        });
        let (None, Some(identity)) = (ended, identity) else {
            bail!(
                "{} ended at once; see {}",
                launch.command.join(" "),
                launch.log.display()
            );
        };
        let daemon = Self { identity, launch };
        crate::kubeconfig::write_private(pid_file, &serde_json::to_string(&daemon)?)?;
        // As long as the starter lives it is the parent, and a zombie would look like a leftover.
        thread::spawn(move || child.wait());
        Ok(daemon)
    }

    /// Ends the process and removes its pid file.
    pub fn stop(&self, pid_file: &Path, grace: Duration) -> Result<()> {
        self.identity.stop(grace)?;
        match fs::remove_file(pid_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove a pid file")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 1 2";
        assert_eq!(parse_stat(stat), Some(('S', 98765)));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_reused_pid_is_another_process_and_is_never_signalled() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let now = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        let earlier = Identity {
            start: now.start - 1,
            ..now.clone()
        };
        let other_boot = Identity {
            boot: "another".to_owned(),
            ..now.clone()
        };
        for stale in [&earlier, &other_boot] {
            assert!(!stale.is_alive());
            stale.stop(Duration::from_secs(1)).unwrap();
        }
        assert!(now.is_alive());
        now.stop(Duration::from_secs(5)).unwrap();
        assert!(!now.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            command: ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]
                .map(str::to_owned)
                .to_vec(),
            environment: vec![],
            log: folder.path().join("log"),
        };
        let pid_file = folder.path().join("pid");
        let daemon = Daemon::start(launch.clone(), &pid_file).unwrap();
        assert_eq!(Daemon::load(&pid_file), Some(daemon.clone()));
        let ready = || {
            fs::read_to_string(&launch.log)
                .ok()
                .filter(|log| log.contains("ready"))
        };
        assert!(poll(Duration::from_secs(10), Duration::from_millis(10), ready).is_some());
        daemon.stop(&pid_file, Duration::from_millis(100)).unwrap();
        assert!(!daemon.identity.is_alive());
        assert!(!pid_file.exists());
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error_that_names_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            command: vec!["false".to_owned()],
            environment: vec![],
            log: folder.path().join("false.log"),
        };
        let error = Daemon::start(launch, &folder.path().join("pid")).unwrap_err();
        assert!(error.to_string().contains("false.log"), "{error}");
        assert!(!folder.path().join("pid").exists());
    }
}
