//! `cargo xtask bench volumes`: our agent, kopia and restic, side by side on the same S3 server.
//!
//! The server is versitygw over a folder of the bench's own; every program has a bucket. Before each run the page cache is emptied.
//! Rounds are interleaved: each round runs every program once, and the next round begins with another one. A program keeps its cache
//! between its backups of one round, as a node agent does, and restores without one, as a new node does. A restore is over when its data
//! are on the disk, as Velero has it (kopia and restic leave them in memory, which is `syncfs` for all). Every restored tree is compared
//! with the source, and every repository is read from one end to the other by a program that did not write it (restic's by restic).
//!
//! Restored trees of many files stay until the last round is over: ext4 without a journal does not use an inode again for minutes after
//! its file was deleted, and searches past all of those whenever a file is created: a quarter of the processor time of a restore.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_testkit::{LatencyProxy, S3Server, parts::say, tree, tree::Times};

mod data;
mod measure;
mod report;
mod tools;

use self::data::{Change, Data};
pub(crate) use self::measure::{MeasuredArgs, run_measured};
use self::measure::{Usage, cold, measure};
use self::report::Row;
use self::tools::{Client, Tool};
use crate::cargo;

/// How much longer the way to the server is in the cases named `latency-`.
const ROUND_TRIP: Duration = Duration::from_millis(30);

/// Arguments of `cargo xtask bench volumes`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object a line: case, tool, seconds (median), cpu_seconds, peak_rss_bytes, stored_bytes.
    #[arg(long)]
    json: bool,
    /// Only these: a kind of data (text, random, sparse, pgdata, latency) or one step of it (text-backup, -unchanged, -changed, -restore).
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Only these programs: kopia, restic, holdfast.
    #[arg(long = "tool", value_name = "NAME", value_parser = ["kopia", "restic", "holdfast"])]
    tools: Vec<String>,
    /// How often each program does each thing; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Do not build: target/release/volume-backup is used as it is.
    #[arg(long)]
    as_built: bool,
}

/// What is measured with each kind of data, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The first one, to an empty repository.
    Backup,
    /// Once more, of the same data.
    Unchanged,
    /// Once more, after 5 % were changed.
    Changed,
    /// Of the last snapshot.
    Restore,
}

impl Step {
    const ALL: [Self; 4] = [Self::Backup, Self::Unchanged, Self::Changed, Self::Restore];

    fn case(self, data: Data) -> String {
        let step = match self {
            Self::Backup => "backup",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Restore => "restore",
        };
        format!("{}-{step}", data.name())
    }
}

/// Runs the measurement.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = wanted(&args.cases)?;
    let tools: Vec<Tool> = Tool::ALL
        .into_iter()
        .filter(|tool| args.tools.is_empty() || args.tools.iter().any(|name| name == tool.name()))
        .collect();
    if !args.as_built {
        cargo::run(&["build", "--release", "--quiet", "--package", "volume-backup"])?;
    }
    let agent = cargo::release_binary("volume-backup");
    ensure!(agent.is_file(), "{} does not exist", agent.display());

    // A run that was killed leaves its data behind.
    let target = agent.ancestors().nth(2).context("the target folder")?;
    let folder = Folder::create(target.join("bench"))?;
    if !args.json {
        println!("{}", Row::heading());
    }
    for (data, steps) in wanted {
        let rows = Bench {
            data,
            steps,
            tools: &tools,
            folder: &folder.0,
            agent: &agent,
        }
        .run(args.rounds)
        .with_context(|| format!("the cases named {}-", data.name()))?;
        for row in rows {
            if args.json {
                println!("{}", row.json());
            } else {
                println!("{}", row.text());
            }
        }
    }
    Ok(())
}

/// The kinds of data that are asked for, with the steps that are.
fn wanted(names: &[String]) -> Result<Vec<(Data, Vec<Step>)>> {
    let known = |name: &str| {
        Data::ALL.iter().any(|data| {
            let steps = Step::ALL.map(|step| step.case(*data));
            name == data.name() || steps.iter().any(|case| case == name)
        })
    };
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        bail!(
            "no case is called {unknown}; there are: text, random, sparse, pgdata, latency, and text-backup and so on"
        );
    }
    let asked = |data: Data, step: Step| {
        names.is_empty()
            || names
                .iter()
                .any(|name| name == data.name() || *name == step.case(data))
    };
    Ok(Data::ALL
        .into_iter()
        .map(|data| {
            let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| asked(data, *step)).collect();
            (data, steps)
        })
        .filter(|(_, steps)| !steps.is_empty())
        .collect())
}

/// A folder that is empty at first and gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn create(path: PathBuf) -> Result<Self> {
        remove(&path)?;
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            say(&format!("{error:#}"));
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The measurement of one kind of data.
struct Bench<'a> {
    data: Data,
    steps: Vec<Step>,
    tools: &'a [Tool],
    folder: &'a Path,
    agent: &'a Path,
}

impl Bench<'_> {
    fn run(&self, rounds: u32) -> Result<Vec<Row>> {
        let restores = u64::from(rounds) * self.tools.len() as u64;
        data::ensure_room(self.folder, self.data.room(restores))?;
        let source = self.folder.join("data").join(self.data.name());
        self.data.make(&source)?;
        let (files, bytes) = data::size(&source)?;
        say(&format!(
            "{}: {files} files, {} MB",
            self.data.name(),
            bytes / 1_000_000
        ));
        let server = S3Server::start(&self.folder.join("s3"))?;
        let far = (self.data == Data::Latency)
            .then(|| LatencyProxy::start(server.address(), ROUND_TRIP))
            .transpose()?;
        let endpoint = far.as_ref().map_or(server.address(), LatencyProxy::address);

        let mut rows: Vec<Row> = Vec::new();
        for step in &self.steps {
            rows.extend(self.tools.iter().map(|tool| Row {
                case: step.case(self.data),
                tool: *tool,
                runs: Vec::new(),
                stored_bytes: 0,
            }));
        }
        for round in 0..rounds {
            for turn in 0..self.tools.len() {
                let tool = self.tools[(turn + round as usize) % self.tools.len()];
                let homes = self.folder.join("home");
                let client = Client::new(tool, &homes, endpoint.to_string(), self.agent)?;
                let mut turn = Turn {
                    bench: self,
                    tool,
                    client,
                    server: &server,
                    source: &source,
                    rows: &mut rows,
                };
                turn.run(round, round + 1 == rounds)
                    .with_context(|| format!("round {} of {}", round + 1, tool.name()))?;
                remove(&homes)?;
                server.remove_bucket(tool.name())?;
            }
        }
        drop(server);
        remove(&self.folder.join("data"))?;
        remove(&self.folder.join("restored"))?;
        Ok(rows)
    }
}

/// One program, once.
struct Turn<'a> {
    bench: &'a Bench<'a>,
    tool: Tool,
    client: Client,
    server: &'a S3Server,
    source: &'a Path,
    rows: &'a mut Vec<Row>,
}

impl Turn<'_> {
    fn run(&mut self, round: u32, last: bool) -> Result<()> {
        self.server.create_bucket(self.tool.name())?;
        self.client.create()?;
        // The other steps need it.
        self.backup(Step::Backup)?;
        if self.asked(Step::Unchanged) {
            self.backup(Step::Unchanged)?;
        }
        let change = if self.asked(Step::Changed) {
            let change = Change::make(self.source)?;
            self.backup(Step::Changed)?;
            Some(change)
        } else {
            None
        };
        if self.asked(Step::Restore) {
            self.restore(round)?;
        }
        if last {
            self.client
                .verify(self.bench.agent)
                .context("the repository does not stand the test")?;
        }
        change.map_or(Ok(()), Change::undo)
    }

    fn asked(&self, step: Step) -> bool {
        self.bench.steps.contains(&step)
    }

    fn backup(&mut self, step: Step) -> Result<()> {
        let command = self.client.backup(self.source)?;
        self.measure(step, &command, None)
    }

    fn restore(&mut self, round: u32) -> Result<()> {
        let restored = self.bench.folder.join("restored");
        fs::create_dir_all(&restored).with_context(|| format!("cannot create {}", restored.display()))?;
        let target = restored.join(format!("{}-{round}", self.tool.name()));
        let command = self.client.restore(self.source, &target)?;
        self.client.forget_cache()?;
        self.measure(Step::Restore, &command, Some(&target))?;
        let times = match self.tool {
            Tool::Kopia => Times::ByKopia,
            Tool::Restic | Tool::Holdfast => Times::All,
        };
        tree::ensure_same(self.source, &self.client.restored(self.source, &target), times)?;
        if self.bench.data.has_many_files() {
            Ok(())
        } else {
            remove(&target)
        }
    }

    fn measure(&mut self, step: Step, command: &Command, synced: Option<&Path>) -> Result<()> {
        let case = step.case(self.bench.data);
        cold()?;
        let log = self.bench.folder.join("log");
        let usage: Usage = measure(command, synced, &log).with_context(|| case.clone())?;
        say(&format!(
            "{case:20} {:9} {:8.2} s",
            self.tool.name(),
            usage.seconds
        ));
        let stored = data::size(&self.server.bucket(self.tool.name()))?.1;
        let row = self
            .rows
            .iter_mut()
            .find(|row| row.case == case && row.tool == self.tool);
        if let Some(row) = row {
            row.runs.push(usage);
            row.stored_bytes = stored;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_data_or_by_step() {
        let choose = |names: &[&str]| wanted(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(choose(&[]).unwrap().len(), Data::ALL.len());
        assert_eq!(
            choose(&["text-restore", "pgdata"]).unwrap(),
            [
                (Data::Text, vec![Step::Restore]),
                (Data::Pgdata, Step::ALL.to_vec())
            ]
        );
        assert!(choose(&["text-resore"]).is_err());
    }
}
