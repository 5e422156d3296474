//! The programs that are compared, and how each is told to do the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use holdfast_testkit::{
    Part,
    kopia::{Kopia, Place},
    s3_server::{KEYS, REGION},
};

use crate::cluster::node::output;

/// One password for all.
const PASSWORD: &str = "bench";

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// With the settings that Velero gives it.
    Kopia,
    /// With its own defaults.
    Restic,
    /// Ours.
    Holdfast,
}

impl Tool {
    pub(super) const ALL: [Self; 3] = [Self::Kopia, Self::Restic, Self::Holdfast];

    /// Its name in the report, and that of its bucket.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kopia => "kopia",
            Self::Restic => "restic",
            Self::Holdfast => "holdfast",
        }
    }
}

/// One program with a repository and a home of its own.
pub(super) struct Client {
    tool: Tool,
    /// Where its cache and its configuration are.
    home: PathBuf,
    /// `host:port` of the S3 server, as this client sees it.
    endpoint: String,
    program: PathBuf,
    kopia: Kopia,
    processors: usize,
}

impl Client {
    /// A client that has nothing yet. Fails when its program cannot be built.
    pub(super) fn new(tool: Tool, homes: &Path, endpoint: String, agent: &Path) -> Result<Self> {
        let home = homes.join(tool.name());
        let program = match tool {
            Tool::Kopia => Part::Kopia.ensure()?,
            Tool::Restic => Part::Restic.ensure()?,
            Tool::Holdfast => agent.to_owned(),
        };
        Ok(Self {
            tool,
            // For Holdfast it is the judge, and for restic nothing.
            kopia: Kopia::new(&home.join("kopia"), PASSWORD)?,
            home,
            endpoint,
            program,
            processors: std::thread::available_parallelism().map_or(2, usize::from),
        })
    }

    fn place(&self) -> Place {
        Place::S3 {
            endpoint: self.endpoint.clone(),
            bucket: self.tool.name().to_owned(),
            prefix: String::new(),
        }
    }

    /// Creates the repository in the empty bucket of the tool's name. This is not measured.
    pub(super) fn create(&self) -> Result<()> {
        match self.tool {
            Tool::Kopia => {
                self.kopia.create(&self.place(), &[])?;
                self.like_velero()
            }
            Tool::Restic => output(&mut self.restic(&["init"]), None).map(drop),
            Tool::Holdfast => output(&mut self.agent("create", &[], &[]), None).map(drop),
        }
    }

    /// The settings of Velero's node agent: no compression, as many readers as processors, files above 2 GiB in parts, 5 GB of cache.
    fn like_velero(&self) -> Result<()> {
        self.kopia.run(&[
            "policy",
            "set",
            "--global",
            "--compression=none",
            &format!("--max-parallel-file-reads={}", self.processors),
            "--parallel-upload-above-size-mib=2048",
        ])?;
        self.kopia.run(&[
            "cache",
            "set",
            "--content-cache-size-mb=4000",
            "--metadata-cache-size-mb=1000",
        ])?;
        Ok(())
    }

    /// Forgets what it keeps between two runs, as a client on another machine.
    pub(super) fn forget_cache(&self) -> Result<()> {
        self.kopia.forget_cache()?;
        for name in ["cache", "scratch"] {
            match fs::remove_dir_all(self.home.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("cannot remove a cache");
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// The command that backs up a tree.
    pub(super) fn backup(&self, source: &Path) -> Result<Command> {
        let path = utf8(source)?;
        Ok(match self.tool {
            Tool::Kopia => self
                .kopia
                .command(&["snapshot", "create", path, "--fail-fast", "--no-progress"]),
            Tool::Restic => self.restic(&["backup", "--quiet", path]),
            Tool::Holdfast => self.agent(
                "backup",
                &[path],
                &["--source-path", path, "--cache", &self.cache()?],
            ),
        })
    }

    /// The command that restores the last snapshot of `source`. `target` does not exist yet.
    pub(super) fn restore(&self, source: &Path, target: &Path) -> Result<Command> {
        let (source, target) = (utf8(source)?, utf8(target)?);
        Ok(match self.tool {
            Tool::Kopia => self.kopia.command(&[
                "snapshot",
                "restore",
                &self.last_snapshot()?,
                target,
                &format!("--parallel={}", self.processors),
                "--no-progress",
            ]),
            Tool::Restic => self.restic(&["restore", "--quiet", "latest", "--target", target]),
            Tool::Holdfast => self.agent(
                "restore",
                &["latest", target],
                &["--source-path", source, "--cache", &self.cache()?],
            ),
        })
    }

    /// Where the tree is after a restore: restic makes the whole path of the source below the target.
    pub(super) fn restored(&self, source: &Path, target: &Path) -> PathBuf {
        match self.tool {
            Tool::Restic => target.join(source.strip_prefix("/").unwrap_or(source)),
            Tool::Kopia | Tool::Holdfast => target.to_owned(),
        }
    }

    /// The folder of restic's cache and ours.
    fn cache(&self) -> Result<String> {
        utf8(&self.home.join("cache")).map(str::to_owned)
    }

    fn last_snapshot(&self) -> Result<String> {
        let snapshots = self.kopia.snapshots()?;
        Ok(snapshots.last().context("kopia took no snapshot")?.id.clone())
    }

    /// Has the repository read from one end to the other by a program that did not write it. Nobody but restic reads restic's.
    pub(super) fn verify(&self, agent: &Path) -> Result<()> {
        match self.tool {
            Tool::Kopia => {
                let ours = Self {
                    tool: Tool::Holdfast,
                    home: self.home.join("judge"),
                    endpoint: self.endpoint.clone(),
                    program: agent.to_owned(),
                    kopia: self.kopia.clone(),
                    processors: self.processors,
                };
                let mut command = ours.agent_at(self.tool.name(), "verify", &[], &["--percent", "100"]);
                output(&mut command, None).map(drop)
            }
            Tool::Restic => output(&mut self.restic(&["check", "--quiet", "--read-data"]), None).map(drop),
            Tool::Holdfast => {
                self.kopia.connect(&self.place())?;
                self.kopia.verify()
            }
        }
    }

    fn restic(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .envs(KEYS)
            .env("HOME", &self.home)
            .env("RESTIC_CACHE_DIR", self.home.join("cache"))
            .env("RESTIC_PASSWORD", PASSWORD)
            .env(
                "RESTIC_REPOSITORY",
                format!("s3:http://{}/{}", self.endpoint, self.tool.name()),
            );
        command
    }

    fn agent(&self, action: &str, words: &[&str], options: &[&str]) -> Command {
        self.agent_at(self.tool.name(), action, words, options)
    }

    fn agent_at(&self, bucket: &str, action: &str, words: &[&str], options: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["agent", action])
            .args(words)
            .args(["--bucket", bucket, "--region", REGION, "--endpoint"])
            .arg(format!("http://{}", self.endpoint))
            .arg("--scratch")
            .arg(self.home.join("scratch"))
            .args(options)
            .env_clear()
            .envs(KEYS)
            .env("VOLUME_BACKUP_PASSWORD", PASSWORD);
        command
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
