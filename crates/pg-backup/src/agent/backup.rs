//! `agent backup`.

use std::sync::Arc;

use holdfast_runtime::clock;
use holdfast_runtime::environment::Environment;
use holdfast_store::Store;
use holdfast_walg::metadata::version_text;
use holdfast_walg::replication::{ConnectOptions, Connection, Password};
use holdfast_walg::{BackupOptions, BackupRequest, Completed, Phase, Progress, take};
use tokio_util::sync::CancellationToken;

use super::admin::{Where, serve};
use super::args::BackupArgs;
use super::failure::Failure;
use super::location;
use super::report::{BackupReport, FailureReason};

/// Takes a backup; from the alternate host if the first one has nothing new.
pub(super) async fn run(
    args: &BackupArgs,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<BackupReport, Failure> {
    let progress = Arc::new(Progress::default());
    let place = Arc::new(Where::default());
    let _served = match args.admin_address {
        Some(address) => Some(serve(address, &progress, &place, cancel).await?),
        None => None,
    };
    let started = clock::Tick::now();
    // Stopping for the deadline cleans up as stopping for a signal does.
    let stop = cancel.child_token();
    let work = both_hosts(args, environment, &progress, &place, &stop);
    tokio::pin!(work);
    let mut report = match args.max_duration {
        None => work.await?,
        Some(limit) => tokio::select! {
            result = &mut work => result?,
            () = tokio::time::sleep(limit) => {
                let phase = progress.phase();
                stop.cancel();
                match work.await {
                    // It was done just then.
                    Ok(report) => report,
                    Err(_) => return Err(Failure::deadline(limit, phase.as_str())),
                }
            }
        },
    };
    report.duration_seconds = clock::Tick::now().since(started).as_secs();
    Ok(report)
}

async fn both_hosts(
    args: &BackupArgs,
    environment: &Environment,
    progress: &Progress,
    place: &Where,
    cancel: &CancellationToken,
) -> Result<BackupReport, Failure> {
    let first = one_host(args, &args.host, environment, progress, place, cancel).await;
    match (first, &args.alternate_host) {
        (Err(failure), Some(alternate)) if failure.is_backup_exists() && *alternate != args.host => {
            tracing::info!(host = %args.host, %alternate, "the host has nothing new, turning to the alternate one");
            one_host(args, alternate, environment, progress, place, cancel).await
        }
        (first, _) => first,
    }
}

async fn one_host(
    args: &BackupArgs,
    host: &str,
    environment: &Environment,
    progress: &Progress,
    place: &Where,
    cancel: &CancellationToken,
) -> Result<BackupReport, Failure> {
    let server = connect_options(args, host, environment)?;
    // A storage that is not configured shows before anything is asked of the server.
    location::open(&args.location, environment, Some(0))?;
    let connected = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            return Err(Failure::new(FailureReason::Interrupted, format!("interrupted while connecting to {host}")));
        }
        connected = Connection::connect(&server) => connected?,
    };
    let major = connected.server_version() / 10_000;
    if let Err(error) = connected.close().await {
        tracing::debug!(%error, "the server did not take the good-bye");
    }
    let store = location::open(&args.location, environment, Some(major))?;
    place.set(store.bucket(), store.prefix(), host);
    let options = options(args);
    let request = BackupRequest {
        store: &store,
        server: &server,
        options: &options,
        progress,
        cancel,
        now: clock::now,
    };
    let completed = Box::pin(take(request)).await?;
    progress.enter(Phase::Finished);
    Ok(report(&completed, &store, host))
}

/// The password of the database user, as libpq takes it.
fn password(environment: &Environment) -> Option<Password> {
    let password = environment.variables().get("PGPASSWORD");
    let password = password.filter(|password| !password.is_empty());
    password.cloned().map(Password::from)
}

fn connect_options(
    args: &BackupArgs,
    host: &str,
    environment: &Environment,
) -> Result<ConnectOptions, Failure> {
    let root_certificates = match &args.ssl_root_cert {
        None => None,
        Some(file) => Some(std::fs::read(file).map(Into::into).map_err(|error| {
            Failure::new(
                FailureReason::InvalidArguments,
                format!("{}: {error}", file.display()),
            )
        })?),
    };
    Ok(ConnectOptions {
        port: args.port,
        password: password(environment),
        ssl_mode: args.ssl_mode,
        root_certificates,
        application_name: "pg-backup".to_owned(),
        // The server waits for the storage, and may read a long time before it finds something to send.
        idle_timeout: args.stall,
        ..ConnectOptions::new(host, &args.user)
    })
}

fn options(args: &BackupArgs) -> BackupOptions {
    BackupOptions {
        codec: args.codec(),
        part_bytes: args.part_size,
        memory: args.buffers << 20,
        wal_patience: args.wal_patience,
        stall: args.stall,
        label: "pg-backup".to_owned(),
        // The protocol counts in KiB and has limits of its own.
        max_rate_kib: args.max_rate.map(|rate| {
            u32::try_from(rate / 1024)
                .unwrap_or(u32::MAX)
                .clamp(32, 1_048_576)
        }),
        verify_pages: !args.no_verify_checksums,
        owner: args.owner.clone(),
        ..BackupOptions::default()
    }
}

fn report(completed: &Completed, store: &Store, host: &str) -> BackupReport {
    let sentinel = &completed.sentinel;
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    BackupReport {
        backup_name: completed.name.clone(),
        start_lsn: sentinel.lsn.unwrap_or_default(),
        finish_lsn: sentinel.finish_lsn.unwrap_or_default(),
        start_time: time(sentinel.start_time),
        finish_time: time(sentinel.finish_time),
        last_modified: completed.modified.to_string(),
        pg_version: version_text(sentinel.pg_version),
        pg_version_num: sentinel.pg_version,
        bucket: store.bucket().to_owned(),
        path: store.prefix().to_owned(),
        host: host.to_owned(),
        system_identifier: sentinel
            .system_identifier
            .map(|id| id.to_string())
            .unwrap_or_default(),
        uncompressed_size: sentinel.uncompressed_size,
        compressed_size: sentinel.compressed_size,
        wal_segments: completed.wal_segments,
        timeline: completed.timeline,
        last_segment_padded: completed.last_segment_padded,
        duration_seconds: 0,
    }
}
