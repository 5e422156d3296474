//! The real kopia, as the judge of what we write and as the maker of what we read.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    parts::Part,
    s3_server::{KEYS, REGION, S3Server},
};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory, with kopia's layout in it.
    Directory(PathBuf),
    /// A bucket of an S3 server without TLS.
    S3 {
        /// `host:port` of the server.
        endpoint: String,
        /// Name of the bucket.
        bucket: String,
        /// What the key of each blob begins with: empty, or ending in a slash.
        prefix: String,
    },
}

impl Place {
    /// The whole of a bucket.
    pub fn bucket(server: &S3Server, name: &str) -> Self {
        Self::S3 {
            endpoint: server.address().to_string(),
            bucket: name.to_owned(),
            prefix: String::new(),
        }
    }

    /// The words by which kopia's command line names it.
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Directory(path) => vec!["filesystem".to_owned(), format!("--path={}", path.display())],
            Self::S3 {
                endpoint,
                bucket,
                prefix,
            } => vec![
                "s3".to_owned(),
                format!("--bucket={bucket}"),
                format!("--endpoint={endpoint}"),
                format!("--region={REGION}"),
                format!("--prefix={prefix}"),
                "--disable-tls".to_owned(),
            ],
        }
    }
}

/// One client of kopia, with a configuration, a cache and logs of its own.
#[derive(Clone, Debug)]
pub struct Kopia {
    program: PathBuf,
    home: PathBuf,
    password: String,
    identity: (String, String),
}

/// A snapshot as `kopia snapshot list --json` tells it; what tests ask about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The id of its manifest.
    pub id: String,
    /// What it is of.
    pub source: Source,
    /// Why it is not complete; empty when it is.
    #[serde(default)]
    pub incomplete: String,
    /// Counts.
    #[serde(default)]
    pub stats: Stats,
    /// Its root.
    pub root_entry: RootEntry,
    /// Tags by their names.
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
    /// What keeps it.
    #[serde(default)]
    pub pins: Vec<String>,
}

/// What a snapshot is of.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Host.
    pub host: String,
    /// User.
    pub user_name: String,
    /// Path on that host.
    pub path: String,
}

/// The counts of a snapshot.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Bytes of all files.
    pub total_size: u64,
    /// Files.
    pub file_count: u64,
    /// Files taken from the parent without reading them.
    pub cached_files: u64,
    /// Files that were read.
    pub non_cached_files: u64,
    /// Errors that did not end the snapshot.
    pub ignored_error_count: u64,
    /// Errors.
    pub error_count: u64,
}

/// The root of a snapshot.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RootEntry {
    /// Id of the root's object.
    pub obj: String,
    /// What is below it.
    #[serde(rename = "summ", default)]
    pub summary: Summary,
}

/// What a directory holds, with everything below it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of all files.
    #[serde(default)]
    pub size: u64,
}

impl Kopia {
    /// A client that keeps its things in `home`. Builds kopia first when the cache of parts has none.
    pub fn new(home: &Path, password: &str) -> Result<Self> {
        let program = Part::Kopia.ensure()?;
        std::fs::create_dir_all(home).with_context(|| format!("cannot create {}", home.display()))?;
        Ok(Self {
            program,
            home: home.to_owned(),
            password: password.to_owned(),
            identity: ("judge".to_owned(), "kopia".to_owned()),
        })
    }

    /// The same client, for snapshots of another user and host.
    #[must_use]
    pub fn with_identity(mut self, user: &str, host: &str) -> Self {
        self.identity = (user.to_owned(), host.to_owned());
        self
    }

    /// A command of this client, not started yet. Maintenance never runs by itself: a test says when.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--no-auto-maintenance")
            .env_clear()
            .envs(KEYS)
            .env("HOME", &self.home)
            .env("KOPIA_PASSWORD", &self.password)
            .env("KOPIA_CONFIG_PATH", self.home.join("repository.config"))
            .env("KOPIA_CACHE_DIRECTORY", self.cache())
            .env("KOPIA_LOG_DIR", self.home.join("logs"))
            .env("KOPIA_CHECK_FOR_UPDATES", "false")
            .env("KOPIA_ADVANCED_COMMANDS", "enabled")
            .stdin(Stdio::null());
        command
    }

    /// The folder of its cache.
    pub fn cache(&self) -> PathBuf {
        self.home.join("cache")
    }

    /// Runs a command to its end; what it wrote to standard output. Fails with its last words when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("cannot start kopia")?;
        finished("kopia", arguments, &output)
    }

    /// Creates a repository and connects to it. `options` are those of `kopia repository create`.
    pub fn create(&self, place: &Place, options: &[&str]) -> Result<()> {
        self.repository("create", place, options)?;
        // As Velero has it: nothing is compressed, and kopia deletes no snapshot by itself.
        self.run(&[
            "policy",
            "set",
            "--global",
            "--compression=none",
            "--keep-latest=2147483647",
        ])
        .map(drop)
    }

    /// Connects to a repository that exists.
    pub fn connect(&self, place: &Place) -> Result<()> {
        self.repository("connect", place, &[])
    }

    fn repository(&self, action: &str, place: &Place, options: &[&str]) -> Result<()> {
        let (user, host) = &self.identity;
        let (user, host) = (
            format!("--override-username={user}"),
            format!("--override-hostname={host}"),
        );
        let words = place.arguments();
        let mut arguments = vec!["repository", action];
        arguments.extend(words.iter().map(String::as_str));
        arguments.extend([user.as_str(), host.as_str()]);
        arguments.extend(options);
        self.run(&arguments).map(drop)
    }

    /// Takes a snapshot of a directory.
    pub fn snapshot(&self, source: &Path, options: &[&str]) -> Result<Snapshot> {
        let source = source.to_str().context("the path is not UTF-8")?;
        let mut arguments = vec!["snapshot", "create", source, "--json", "--no-progress"];
        arguments.extend(options);
        let id = id_of(&self.run(&arguments)?)?;
        // The answer of `create` lacks the counts.
        self.snapshots()?
            .into_iter()
            .find(|snapshot| snapshot.id == id)
            .with_context(|| format!("the new snapshot {id} is not in the list"))
    }

    /// All snapshots, of all users and hosts, incomplete ones included.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let text = self.run(&[
            "snapshot",
            "list",
            "--all",
            "--incomplete",
            "--show-identical",
            "--json",
        ])?;
        serde_json::from_str(&text).with_context(|| format!("kopia's list of snapshots: {text}"))
    }

    /// Restores a snapshot, by its id or that of an object, to a directory.
    pub fn restore(&self, id: &str, target: &Path, options: &[&str]) -> Result<()> {
        let target = target.to_str().context("the path is not UTF-8")?;
        let mut arguments = vec!["snapshot", "restore", id, target, "--no-progress"];
        arguments.extend(options);
        self.run(&arguments).map(drop)
    }

    /// Reads everything: each file of each snapshot, and each content. Fails at the first that is wrong.
    pub fn verify(&self) -> Result<()> {
        self.run(&["snapshot", "verify", "--verify-files-percent=100"])?;
        self.run(&["content", "verify", "--full"]).map(drop)
    }

    /// Forgets all indexes and makes them anew from what the packs say about themselves.
    pub fn recover_indexes(&self) -> Result<()> {
        self.run(&["index", "recover", "--delete-indexes", "--commit"])
            .map(drop)
    }

    /// Full maintenance without the usual waiting: what may go, goes.
    pub fn maintain(&self) -> Result<()> {
        self.run(&["maintenance", "run", "--full", "--safety=none", "--force"])
            .map(drop)
    }

    /// Removes the local cache, as on a new machine; the connection stays.
    pub fn forget_cache(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.cache()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove kopia's cache")
            }
            _ => Ok(()),
        }
    }
}

fn id_of(answer: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Created {
        id: String,
    }
    let created: Created =
        serde_json::from_str(answer).with_context(|| format!("kopia's answer: {answer}"))?;
    Ok(created.id)
}

/// The standard output of a program that succeeded; its last words as an error if it did not.
pub fn finished(name: &str, arguments: &[&str], output: &Output) -> Result<String> {
    if output.status.success() {
        return String::from_utf8(output.stdout.clone()).with_context(|| format!("{name} writes no UTF-8"));
    }
    let mut words = String::new();
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(20)..] {
            let _ = writeln!(words, "{line}");
        }
    }
    bail!(
        "{name} {} failed ({}):\n{words}",
        arguments.join(" "),
        output.status
    )
}
