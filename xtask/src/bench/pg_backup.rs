//! `cargo xtask bench pg-backup`, on the cluster in use: the agent against `pg_basebackup -Ft` of the same database. All programs run in the container of the database server,
//! over its loopback interface, one after the other; each round runs every program once, and the next round begins with another one.
//! Those that write files write them to the volume of the data directory and flush them to its disk. Server and program share the
//! node's processors.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_e2e::bucket::Bucket;
use holdfast_e2e::data::Server;
use holdfast_e2e::{Cluster, Kubectl, PostgresCluster, Version};
use serde_json::{Value, json};

use super::{float, median};
use crate::{cargo, cluster, images};

const NAMESPACE: &str = "holdfast-bench";
const BUCKET: &str = "holdfast-bench";

/// Runs `"$@"` and prints: exit code, nanoseconds, peak memory in KiB, bytes below $OUT. Its output goes to a file.
const MEASURE: &str = r#"
set -u
rm -rf "$OUT" && mkdir -p "$OUT"
begin=$(date +%s%N)
"$@" >/tmp/measured.log 2>&1 &
pid=$!
(
    peak=0
    while hwm=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null) && [ -n "$hwm" ]; do
        if [ "$hwm" -gt "$peak" ]; then peak=$hwm; fi
        sleep 0.05
    done
    echo "$peak" >/tmp/measured.peak
) &
wait "$pid"
code=$?
end=$(date +%s%N)
wait
echo "$code $((end - begin)) $(cat /tmp/measured.peak) $(du -sb "$OUT" | cut -f1)"
if [ "$code" != 0 ]; then tail -n 20 /tmp/measured.log >&2; fi
rm -rf "$OUT"
"#;

/// Arguments of `cargo xtask bench pg-backup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do not build: the image in the cluster and target/release/pg-backup are used.
    #[arg(long)]
    as_built: bool,
    /// Print the result as JSON, for machines.
    #[arg(long)]
    json: bool,
    /// How often each program runs; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Size of the database: one half compresses well (pgbench's tables), the other not at all.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..))]
    megabytes: u32,
}

/// Runs the measurement.
pub(crate) fn run(args: Args) -> Result<()> {
    cluster::up()?;
    if !args.as_built {
        images::build_and_deliver(&["pg-backup".to_owned(), "postgres:17".to_owned()], false)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    let result = runtime.block_on(pg_backup(&args))?;
    if args.json {
        println!("{:#}", result.json());
    } else {
        print!("{}", result.text());
    }
    Ok(())
}

/// A program to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    BaseBackupTar,
    BaseBackupLz4,
    AgentDirectory,
    AgentS3,
}

impl Program {
    const ALL: [Self; 4] = [
        Self::BaseBackupTar,
        Self::BaseBackupLz4,
        Self::AgentDirectory,
        Self::AgentS3,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::BaseBackupTar => "pg_basebackup -Ft",
            Self::BaseBackupLz4 => "pg_basebackup -Ft -Z client-lz4",
            Self::AgentDirectory => "pg-backup agent, lz4, to a directory",
            Self::AgentS3 => "pg-backup agent, lz4, to S3",
        }
    }

    /// The words of the command, each quoted for the shell already.
    fn command(self) -> String {
        let base = "pg_basebackup --host=127.0.0.1 --username=standby --checkpoint=fast --wal-method=stream \
                    --format=tar --pgdata=\"$OUT\"";
        let agent = "/tmp/pg-backup agent backup --host=127.0.0.1 --user=standby --ssl-mode=prefer --scope-path=bench/wal \
                     --max-duration=900s";
        match self {
            Self::BaseBackupTar => base.to_owned(),
            Self::BaseBackupLz4 => format!("{base} --compress=client-lz4"),
            Self::AgentDirectory => format!("env WALG_FILE_PREFIX=\"$OUT\" {agent}"),
            Self::AgentS3 => format!("env WAL_S3_BUCKET={BUCKET} {agent}"),
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    peak_kib: u64,
    stored: u64,
}

struct Outcome {
    version: String,
    bytes: u64,
    rounds: u32,
    rows: Vec<(Program, Vec<Sample>)>,
}

async fn pg_backup(args: &Args) -> Result<Outcome> {
    let cluster = Cluster::connect().await?;
    let bucket = Bucket::create(BUCKET).await?;
    bucket.clear().await?;
    cluster
        .kubectl
        .run(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=180s",
        ])
        .await?;
    cluster.kubectl.run(&["create", "namespace", NAMESPACE]).await?;
    cluster
        .kubectl
        .run(&[
            "--namespace",
            NAMESPACE,
            "wait",
            "--for=create",
            "serviceaccount/default",
            "--timeout=60s",
        ])
        .await?;
    eprintln!("starting PostgreSQL 17 and loading {} MB", args.megabytes);
    let postgres = PostgresCluster::start(&cluster, NAMESPACE, "bench", Version::V17, 1).await?;
    let pod = postgres.leader();
    let server = Server {
        kubectl: &cluster.kubectl,
        namespace: NAMESPACE,
        pod: &pod,
    };
    load(&server, args.megabytes).await?;
    install_agent(&server).await?;

    let outcome = measure(&server, args.rounds, &bucket).await;
    // Whatever came of it, a gigabyte less is left behind.
    cluster
        .kubectl
        .run(&["delete", "namespace", NAMESPACE, "--wait=false"])
        .await?;
    bucket.clear().await?;
    outcome
}

/// One half compresses well, the other not at all.
async fn load(server: &Server<'_>, megabytes: u32) -> Result<()> {
    server.sql("postgres", "create database shop").await?;
    // 15 MB a unit of scale.
    let scale = (megabytes / 2 / 15).max(1).to_string();
    let pgbench = ["pgbench", "--initialize", "--quiet", "--scale", &scale, "shop"];
    server
        .kubectl
        .exec(NAMESPACE, server.pod, "postgres", &pgbench)
        .await
        .context("pgbench")?;
    server.load_incompressible(megabytes / 2).await
}

/// Puts the binary of the image that was just built beside the server.
async fn install_agent(server: &Server<'_>) -> Result<()> {
    let path = cargo::release_binary("pg-backup");
    let binary = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let install = ["sh", "-c", "cat >/tmp/pg-backup && chmod 755 /tmp/pg-backup"];
    server
        .kubectl
        .exec_with_input(NAMESPACE, server.pod, "postgres", &install, &binary)
        .await
        .map(drop)
}

async fn measure(server: &Server<'_>, rounds: u32, bucket: &Bucket) -> Result<Outcome> {
    let version = server.sql("postgres", "show server_version").await?;
    let bytes = server
        .sql("postgres", "select sum(pg_database_size(oid)) from pg_database")
        .await?;
    let mut rows: Vec<(Program, Vec<Sample>)> = Program::ALL.map(|program| (program, Vec::new())).into();
    // The first reading fills the page cache for all.
    once(server, Program::BaseBackupTar, bucket).await?;
    for round in 0..rounds {
        // Another one begins each time, so that nobody always follows the same neighbor.
        for turn in 0..rows.len() {
            let index = (turn + round as usize) % rows.len();
            let (program, samples) = &mut rows[index];
            let sample = once(server, *program, bucket).await?;
            eprintln!(
                "round {}: {:38} {:6.2} s",
                round + 1,
                program.title(),
                sample.seconds
            );
            samples.push(sample);
        }
    }
    let version = version.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Outcome {
        version,
        bytes: bytes.parse().context("the size of the database")?,
        rounds,
        rows,
    })
}

async fn once(server: &Server<'_>, program: Program, bucket: &Bucket) -> Result<Sample> {
    // Dirty pages of the last round would slow the next checkpoint.
    server.sql("postgres", "checkpoint").await?;
    let access = bucket.secret("", &[]);
    let variables = access["stringData"].as_object().cloned().unwrap_or_default();
    // By standard input, because arguments are for all to see.
    let mut script = "export OUT=/home/postgres/pgdata/bench PGPASSWORD=\"$STANDBY_PASSWORD\"\n".to_owned();
    if program == Program::AgentS3 {
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("AWS_")) {
            writeln!(script, "export {name}='{}'", value.as_str().unwrap_or_default())?;
        }
    }
    writeln!(script, "set -- {}\n{MEASURE}", program.command())?;
    let shell = ["sh", "-s"];
    let text = run_in(server.kubectl, server.pod, &shell, &script).await?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| text.clone())?;
    let [0, nanoseconds, peak_kib, mut stored] = numbers[..] else {
        bail!("{} failed: {text}\n{}", program.title(), log(server).await);
    };
    if program == Program::AgentS3 {
        stored = bucket.size("").await?;
        bucket.clear().await?;
    }
    ensure!(
        stored > 1_000_000,
        "{} stored {stored} bytes only\n{}",
        program.title(),
        log(server).await
    );
    Ok(Sample {
        seconds: Duration::from_nanos(nanoseconds).as_secs_f64(),
        peak_kib,
        stored,
    })
}

async fn run_in(kubectl: &Kubectl, pod: &str, program: &[&str], input: &str) -> Result<String> {
    kubectl
        .exec_with_input(NAMESPACE, pod, "postgres", program, input.as_bytes())
        .await
}

/// The last words of the measured program.
async fn log(server: &Server<'_>) -> String {
    let tail = ["tail", "-n", "20", "/tmp/measured.log"];
    run_in(server.kubectl, server.pod, &tail, "")
        .await
        .unwrap_or_else(|error| format!("{error:#}"))
}

impl Outcome {
    fn summary(&self) -> impl Iterator<Item = (Program, f64, f64, f64, f64, f64)> {
        self.rows.iter().map(|(program, samples)| {
            let seconds = median(samples.iter().map(|sample| sample.seconds).collect());
            let spread = samples.iter().map(|sample| sample.seconds);
            let spread = spread.clone().fold(f64::MIN, f64::max) - spread.fold(f64::MAX, f64::min);
            let peak = samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0);
            let stored = median(samples.iter().map(|sample| float(sample.stored)).collect());
            (
                *program,
                seconds,
                spread,
                float(self.bytes) / 1e6 / seconds,
                float(peak) / 1024.0,
                stored / 1e6,
            )
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\nPostgreSQL {}, {:.0} MB of databases, median of {} interleaved rounds, all in the server's container\n\
             {:38} {:>8} {:>8} {:>8} {:>10} {:>10}\n",
            self.version,
            float(self.bytes) / 1e6,
            self.rounds,
            "",
            "seconds",
            "spread",
            "MB/s",
            "peak MiB",
            "stored MB"
        );
        for (program, seconds, spread, rate, peak, stored) in self.summary() {
            text += &format!(
                "{:38} {seconds:8.2} {spread:8.2} {rate:8.0} {peak:10.1} {stored:10.0}\n",
                program.title()
            );
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .summary()
            .map(|(program, seconds, spread, rate, peak, stored)| {
                json!({
                    "program": program.title(),
                    "medianSeconds": seconds,
                    "spreadSeconds": spread,
                    "megabytesPerSecond": rate,
                    "peakMebibytes": peak,
                    "storedMegabytes": stored,
                })
            })
            .collect();
        json!({
            "benchmark": "pg-backup",
            "postgres": self.version,
            "databaseBytes": self.bytes,
            "rounds": self.rounds,
            "rows": rows,
        })
    }
}
