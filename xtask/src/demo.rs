//! `cargo xtask demo`: the main job on a real cluster, with every command's outcome shown and compared.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use holdfast_api::alauda_v1::{BackupState, PostgresBackup, PostgresBackupStatus};
use holdfast_e2e::bucket::Bucket;
use holdfast_e2e::data::{Checksums, Server, differences};
use holdfast_e2e::postgres::{credentials, is_ready};
use holdfast_e2e::scenario::random_word;
use holdfast_e2e::{Cluster, wait};
use holdfast_testkit::{environment, local};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

use crate::{cluster, deploy, images};

const NAMESPACE: &str = "holdfast-demo";
const BUCKET: &str = "holdfast-demo";
const LEADER: &str = "demo-0";
const REPLICA: &str = "demo-1";
const BACKUP: &str = "first";
const RESTORED: &str = "restored";
/// The table that a hasty hand drops, and its database.
const VICTIM: (&str, &str) = ("shop", "orders");

const POSTGRES: &str = include_str!("../../e2e/manifests/demo/postgres.yaml");
const POSTGRES_BACKUP: &str = include_str!("../../e2e/manifests/demo/backup.yaml");
const RESTORED_INSTANCE: &str = include_str!("../../e2e/manifests/demo/restored.yaml");

/// How often the leader ends a segment of its log.
const BUSY: Duration = Duration::from_secs(2);

/// Limit of every wait: far more than anything takes.
const LIMIT: Duration = Duration::from_mins(5);

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do not build images nor install controllers: those in the cluster are used.
    #[arg(long)]
    as_installed: bool,
}

/// Runs the demo; fails when a single table differs.
pub(crate) fn run(args: Args) -> Result<()> {
    let begin = Instant::now();
    step("a Kubernetes cluster");
    cluster::up()?;
    // Before minutes of building, not after.
    local::S3::load()?;
    if args.as_installed {
        step("controllers: as they are installed");
    } else {
        step("images, built from this checkout and from Debian's packages");
        images::build_and_load()?;
        step("the controllers");
        deploy::all()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    let lines = runtime.block_on(play())?;
    println!("\nWhat happened, in {:.0} s:", begin.elapsed().as_secs_f32());
    for (number, line) in lines.iter().enumerate() {
        println!("{:3}. {line}", number + 1);
    }
    Ok(())
}

fn step(title: &str) {
    println!("\n==> {title}");
}

struct Demo {
    cluster: Cluster,
    bucket: Bucket,
}

async fn play() -> Result<Vec<String>> {
    let demo = Demo {
        cluster: Cluster::connect().await?,
        bucket: Bucket::create(BUCKET).await?,
    };
    step(&format!("an empty namespace {NAMESPACE}"));
    demo.start_anew().await?;

    step("PostgreSQL 17, a leader and a replica (e2e/manifests/demo/postgres.yaml)");
    demo.start_postgres().await?;
    let before = demo.load().await?;
    let facts = demo.facts().await?;
    println!("{} tables, {}", before.len(), facts.size);

    step("kubectl apply -f e2e/manifests/demo/backup.yaml");
    print!("{POSTGRES_BACKUP}");
    demo.apply(POSTGRES_BACKUP).await?;
    let began = Instant::now();
    let backup = demo.follow().await?;
    let took = began.elapsed();
    print!(
        "{}",
        demo.kubectl(&["get", "postgresbackup", "--output=wide"]).await?
    );
    let status = backup.status.clone().unwrap_or_default();
    let stored = demo.bucket.size("").await?;

    step(&format!("somebody drops the table {}.{}", VICTIM.0, VICTIM.1));
    let (lost, rows) = demo.drop_table().await?;
    let damaged = demo.server(LEADER).checksums().await?;
    ensure!(
        !differences(&before, &damaged).is_empty(),
        "the dropped table is still there"
    );

    step("a fresh instance on the backup (e2e/manifests/demo/restored.yaml)");
    let began = Instant::now();
    demo.restore(&status).await?;
    let restored_in = began.elapsed();
    let after = demo.server(RESTORED).checksums().await?;

    step("checksums of all tables: rows, and md5 over the ordered rows' md5");
    show(&before, &damaged, &after);
    let differences = differences(&before, &after);
    ensure!(
        differences.is_empty(),
        "the restored database is not what was backed up:\n{}",
        differences.join("\n")
    );
    Ok(account(&Account {
        facts,
        status,
        took,
        stored,
        lost,
        rows,
        restored_in,
        tables: before.len(),
    }))
}

impl Demo {
    fn server<'a>(&'a self, pod: &'a str) -> Server<'a> {
        Server {
            kubectl: &self.cluster.kubectl,
            namespace: NAMESPACE,
            pod,
        }
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster
            .kubectl
            .run(&[&["--namespace", NAMESPACE], arguments].concat())
            .await
    }

    async fn apply(&self, documents: &str) -> Result<()> {
        // A given cluster may pull its images from a registry.
        let documents = ["pg-backup:dev", "postgres:17"]
            .iter()
            .fold(documents.to_owned(), |text, image| {
                let (name, tag) = image.split_once(':').unwrap_or((image, "dev"));
                text.replace(
                    &format!("holdfast/{image}"),
                    &holdfast_e2e::postgres::image(name, tag),
                )
            });
        let arguments = [
            "--namespace",
            NAMESPACE,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ];
        self.cluster
            .kubectl
            .run_with_input(&arguments, documents.as_bytes())
            .await
            .map(drop)
    }

    async fn apply_json(&self, object: &Value) -> Result<()> {
        self.apply(&object.to_string()).await
    }

    /// Removes what an earlier run left.
    async fn start_anew(&self) -> Result<()> {
        let delete = [
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=180s",
        ];
        self.cluster
            .kubectl
            .run(&delete)
            .await
            .context("cannot remove the namespace of an earlier run")?;
        self.bucket.clear().await?;
        self.cluster
            .kubectl
            .run(&["create", "namespace", NAMESPACE])
            .await?;
        self.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"])
            .await
            .map(drop)
    }

    async fn start_postgres(&self) -> Result<()> {
        // What Zalando's operator would make.
        for user in ["postgres", "standby"] {
            self.apply_json(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": credentials("demo", user)},
                "stringData": {"username": user, "password": random_word()},
            }))
            .await?;
        }
        self.apply_json(&self.bucket.secret("pg-backup-storage", &[]))
            .await?;
        self.apply(POSTGRES).await?;
        for (pod, role) in [(LEADER, "master"), (REPLICA, "replica")] {
            self.ready(pod).await?;
            // What Patroni would do.
            self.kubectl(&["label", "pod", pod, &format!("spilo-role={role}")])
                .await?;
        }
        Ok(())
    }

    async fn ready(&self, pod: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        let ended = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed");
        let seen = wait::until(pods, pod, "ready", LIMIT, |pod: &Pod| is_ready(pod) || ended(pod)).await;
        match seen {
            Ok(seen) if is_ready(&seen) => Ok(()),
            _ => {
                let log = self
                    .kubectl(&["logs", pod, "--all-containers", "--tail=20"])
                    .await
                    .unwrap_or_default();
                let state = self.kubectl(&["get", "pods"]).await.unwrap_or_default();
                anyhow::bail!("pod {pod} does not serve:\n{state}{log}")
            }
        }
    }

    async fn load(&self) -> Result<Checksums> {
        let leader = self.server(LEADER);
        leader.load().await?;
        let position = leader.sql("postgres", "select pg_current_wal_lsn()").await?;
        let query = format!("select pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        wait::poll("the replica has all data", LIMIT, async || {
            Ok((self.server(REPLICA).sql("postgres", &query).await? == "t").then_some(()))
        })
        .await?;
        leader.checksums().await
    }

    async fn facts(&self) -> Result<Facts> {
        let leader = self.server(LEADER);
        let version = leader.sql("postgres", "show server_version").await?;
        let size = "select pg_size_pretty(sum(pg_database_size(oid))) from pg_database";
        Ok(Facts {
            version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            size: leader.sql("postgres", size).await?,
        })
    }

    /// Shows the backup's way to its end.
    async fn follow(&self) -> Result<PostgresBackup> {
        let api: Api<PostgresBackup> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        let mut shown = String::new();
        let mut last_write = Instant::now();
        let backup = wait::poll("the backup ends", LIMIT, async || {
            let backup = api.get(BACKUP).await?;
            let line = progress(&backup);
            if line != shown {
                println!("    {line}");
                shown = line;
            }
            if last_write.elapsed() > BUSY {
                self.write_ahead().await?;
                last_write = Instant::now();
            }
            let state = backup
                .status
                .as_ref()
                .and_then(|status| status.state.clone())
                .unwrap_or_default();
            Ok(matches!(state, BackupState::Succeeded | BackupState::Failed).then_some(backup))
        })
        .await?;
        let status = backup.status.clone().unwrap_or_default();
        ensure!(
            status.state == Some(BackupState::Succeeded),
            "the backup failed: {}",
            status.error.unwrap_or_default()
        );
        Ok(backup)
    }

    /// What a leader with clients does: it fills segments of its log. From an idle one a backup by way of the replica waits a minute
    /// for the end of the last segment.
    async fn write_ahead(&self) -> Result<()> {
        let statements =
            "select pg_logical_emit_message(false, 'demo', 'clients at work'); select pg_switch_wal()";
        self.server(LEADER).sql("postgres", statements).await.map(drop)
    }

    /// Drops a table; returns its name and how many rows it had.
    async fn drop_table(&self) -> Result<(String, String)> {
        let (database, table) = VICTIM;
        let leader = self.server(LEADER);
        let rows = leader
            .sql(database, &format!("select count(*) from {table}"))
            .await?;
        leader.sql(database, &format!("drop table {table}")).await?;
        println!("    psql -d {database} -c 'drop table {table}'    -- {rows} rows gone");
        Ok((format!("{database}.{table}"), rows))
    }

    async fn restore(&self, status: &PostgresBackupStatus) -> Result<()> {
        self.apply_json(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "restore-from"},
            "data": {"storagePath": status.storage_path, "backupName": status.backup_name},
        }))
        .await?;
        self.apply(RESTORED_INSTANCE).await?;
        self.ready(RESTORED).await?;
        wait::poll("the restored instance leaves recovery", LIMIT, async || {
            Ok((self
                .server(RESTORED)
                .sql("postgres", "select pg_is_in_recovery()")
                .await?
                == "f")
                .then_some(()))
        })
        .await
    }
}

/// One line about where a backup stands.
fn progress(backup: &PostgresBackup) -> String {
    let status = backup.status.clone().unwrap_or_default();
    let state = status
        .state
        .map_or("accepted".to_owned(), |state| state.as_str().to_owned());
    let message = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready")
        .map(|c| c.message.clone());
    let mut line = if state.is_empty() {
        "accepted".to_owned()
    } else {
        state
    };
    if let Some(progress) = status.progress {
        let megabytes = |bytes: Option<i64>| {
            format!(
                "{:.1} MB",
                megabytes(u64::try_from(bytes.unwrap_or(0)).unwrap_or(0))
            )
        };
        line += &format!(
            ", {} read, {} stored",
            megabytes(progress.bytes_done),
            megabytes(progress.bytes_uploaded)
        );
    }
    message.map_or(line.clone(), |message| format!("{line}: {message}"))
}

/// All tables with their checksums on the damaged and on the restored instance.
fn show(before: &Checksums, damaged: &Checksums, after: &Checksums) {
    println!(
        "    {:34} {:42} {:10} restored",
        "table", "backed up (rows|md5)", "leader now"
    );
    for (table, sum) in before {
        let verdict = |sums: &Checksums| match sums.get(table) {
            Some(found) if found == sum => "equal",
            Some(_) => "DIFFERS",
            None => "gone",
        };
        println!(
            "    {table:34} {sum:42} {:10} {}",
            verdict(damaged),
            verdict(after)
        );
    }
}

struct Facts {
    version: String,
    size: String,
}

struct Account {
    facts: Facts,
    status: PostgresBackupStatus,
    took: Duration,
    stored: u64,
    lost: String,
    rows: String,
    restored_in: Duration,
    tables: usize,
}

/// Ten lines: what happened, and what to try next.
fn account(account: &Account) -> Vec<String> {
    let status = &account.status;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let lsn = |field: Option<i64>| {
        format!(
            "{:X}/{:X}",
            field.unwrap_or(0) >> 32,
            field.unwrap_or(0) & 0xFFFF_FFFF
        )
    };
    let kubectl = match environment::variable(environment::KUBECONFIG) {
        Some(_) => format!("kubectl -n {NAMESPACE}"),
        None => format!("kubectl --kubeconfig target/cluster/kubeconfig -n {NAMESPACE}"),
    };
    let find = local::kubectl()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    vec![
        format!(
            "PostgreSQL {} ran with a leader and a replica: {} tables, {}.",
            account.facts.version, account.tables, account.facts.size
        ),
        format!(
            "PostgresBackup {BACKUP} was applied; pg-backup chose {} so that the leader's work is not disturbed.",
            text(&status.execute_node)
        ),
        format!(
            "Its job stored {} in {:.1} s: {:.1} MB in bucket {BUCKET} below {}, WAL included.",
            text(&status.backup_name),
            account.took.as_secs_f32(),
            megabytes(account.stored),
            text(&status.storage_path)
        ),
        format!(
            "It was called succeeded after all objects had been read back: LSN {} to {}.",
            lsn(status.start_lsn),
            lsn(status.finish_lsn)
        ),
        format!(
            "Table {} was dropped on the leader: {} rows gone.",
            account.lost, account.rows
        ),
        format!(
            "The backup was restored into a fresh instance, which served after {:.1} s.",
            account.restored_in.as_secs_f32()
        ),
        format!(
            "The checksums of all {} tables are equal to those before, the dropped one's included.",
            account.tables
        ),
        format!(
            "Try `{kubectl} describe postgresbackup {BACKUP}`: conditions and Events (kubectl, if you have none: {find})."
        ),
        format!(
            "Try `{kubectl} delete postgresbackup {BACKUP}`: the object goes when its data have gone from the bucket."
        ),
        "Read docs/pg-backup.md for your own cluster; `cargo xtask cluster down` removes everything."
            .to_owned(),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
