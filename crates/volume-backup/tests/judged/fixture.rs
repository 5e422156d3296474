//! One repository, and the two programs that use it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use holdfast_testkit::S3Server;
use holdfast_testkit::environment;
use holdfast_testkit::kopia::{Kopia, Place, finished};
use holdfast_testkit::s3_server::{KEYS, REGION};
use holdfast_testkit::tree::{Times, ensure_same};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse";

/// Whether the sizes and numbers are wanted that take minutes.
pub(crate) fn full() -> bool {
    environment::variable("HOLDFAST_JUDGE_FULL").is_some()
}

/// A folder with a repository and clients of it.
pub(crate) struct Arena {
    pub(crate) folder: TempDir,
    pub(crate) place: Place,
    pub(crate) kopia: Kopia,
    pub(crate) agent: Agent,
}

impl Arena {
    /// A repository in a directory is wanted; there is none yet.
    pub(crate) fn new() -> Self {
        let folder = folder();
        let place = Place::Directory(folder.path().join("repository"));
        std::fs::create_dir(folder.path().join("repository")).unwrap();
        Self::at(folder, place)
    }

    /// The same elsewhere; `folder` is for the clients' things.
    pub(crate) fn at(folder: TempDir, place: Place) -> Self {
        let kopia = Kopia::new(&folder.path().join("kopia"), PASSWORD).unwrap();
        let agent = Agent {
            place: place.clone(),
            scratch: folder.path().join("scratch"),
            password: PASSWORD.to_owned(),
        };
        Self {
            folder,
            place,
            kopia,
            agent,
        }
    }

    /// With a repository that we create, as Velero's server would.
    pub(crate) fn ours() -> Self {
        let arena = Self::new();
        arena.agent.run("create", &[], &[]);
        arena.kopia.connect(&arena.place).unwrap();
        arena
    }

    /// With a repository that we create in a bucket, and the server that has it.
    pub(crate) fn ours_in_s3() -> (Self, S3Server) {
        let folder = folder();
        let server = S3Server::start(&folder.path().join("s3")).unwrap();
        server.create_bucket("volumes").unwrap();
        let arena = Self::at(folder, Place::bucket(&server, "volumes"));
        arena.agent.run("create", &[], &[]);
        arena.kopia.connect(&arena.place).unwrap();
        (arena, server)
    }

    /// With a repository that kopia creates.
    pub(crate) fn theirs(options: &[&str]) -> Self {
        let arena = Self::new();
        arena.kopia.create(&arena.place, options).unwrap();
        arena
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// kopia restores a snapshot, and the tree is the same.
    pub(crate) fn kopia_restores(&self, id: &str, source: &Path) {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let restored = target.path().join("restored");
        self.kopia.restore(id, &restored, &[]).unwrap();
        ensure_same(source, &restored, Times::ByKopia).unwrap();
    }

    /// We restore a snapshot that kopia took, and the tree is the same but for the times of directories, which kopia does not restore.
    pub(crate) fn agent_restores(&self, id: &str, source: &Path, times: Times) {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let restored = target.path().join("restored");
        self.agent.run("restore", &[id, utf8(&restored)], &[]);
        ensure_same(source, &restored, times).unwrap();
    }

    /// Everything that kopia can say about a repository: it lists the snapshots, reads all of it, and restores them.
    pub(crate) fn kopia_agrees(&self, snapshots: &[(&str, &Path)]) {
        // It takes a list of blobs for good that is up to 30 s old.
        self.kopia.forget_cache().unwrap();
        let listed = self.kopia.snapshots().unwrap();
        for (id, source) in snapshots {
            assert!(
                listed.iter().any(|known| known.id == *id),
                "{id} is not in {listed:?}"
            );
            self.kopia_restores(id, source);
        }
        self.kopia.verify().unwrap();
    }
}

/// A temporary folder below the target folder: `/tmp` may be small, or in memory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Our agent, for one repository.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) place: Place,
    pub(crate) scratch: PathBuf,
    pub(crate) password: String,
}

/// What the agent said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
}

impl Said {
    /// The line of JSON of this type.
    pub(crate) fn find(&self, kind: &str) -> &Value {
        self.lines
            .iter()
            .find(|line| line["type"] == kind)
            .unwrap_or_else(|| panic!("no {kind} in {:?}; {}", self.lines, self.stderr))
    }

    /// The errors that name this text in their path or message.
    pub(crate) fn errors_about(&self, text: &str) -> usize {
        let about = |line: &&Value| line["type"] == "error" && line.to_string().contains(text);
        self.lines.iter().filter(about).count()
    }
}

impl Agent {
    /// A command of the agent, not started yet.
    pub(crate) fn command(&self, action: &str, words: &[&str], options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volume-backup"));
        command.args(["agent", action, "--json"]).args(words);
        match &self.place {
            Place::Directory(path) => {
                command.arg("--directory").arg(path);
            }
            Place::S3 {
                endpoint,
                bucket,
                prefix,
            } => {
                command
                    .args(["--bucket", bucket, "--region", REGION, "--prefix", prefix])
                    .args(["--endpoint", &format!("http://{endpoint}")]);
            }
        }
        command
            .arg("--scratch")
            .arg(&self.scratch)
            .args(options)
            .env_clear()
            .envs(KEYS)
            .env("VOLUME_BACKUP_PASSWORD", &self.password)
            .env("HOLDFAST_LOG", "error")
            .stdin(Stdio::null());
        command
    }

    /// Runs the agent to its end, whatever that is.
    pub(crate) fn attempt(&self, action: &str, words: &[&str], options: &[&str]) -> Said {
        said(&self.command(action, words, options).output().unwrap())
    }

    /// Runs the agent; its summary. Panics if it fails.
    #[track_caller]
    pub(crate) fn run(&self, action: &str, words: &[&str], options: &[&str]) -> Value {
        let output = self.command(action, words, options).output().unwrap();
        match finished("volume-backup", &[action], &output) {
            Ok(_) => said(&output).find("summary").clone(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Backs up a tree; the summary.
    #[track_caller]
    pub(crate) fn backup(&self, source: &Path, options: &[&str]) -> Value {
        self.run("backup", &[utf8(source)], options)
    }
}

/// The id of the snapshot that a summary is about.
pub(crate) fn id(summary: &Value) -> &str {
    summary["snapshot"].as_str().expect("the id of a snapshot")
}

/// Reads what the agent printed; every line must be an object of a known type.
pub(crate) fn said(output: &Output) -> Said {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let kind = line["type"].as_str().unwrap_or_default();
        assert!(
            ["progress", "summary", "error", "snapshot"].contains(&kind),
            "{line}"
        );
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Said {
        code: output.status.code(),
        lines,
        stderr,
    }
}

/// Sends a signal to a program that was not yet waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}
