//! `agent restore`, `verify`, `list` and `delete`: what needs the storage alone.

use std::io::Write;

use holdfast_runtime::environment::Environment;
use holdfast_store::Store;
use holdfast_walg::lsn::SegmentSize;
use holdfast_walg::metadata::version_text;
use holdfast_walg::{Progress, RestoreOptions, RestoreRequest, describe, layout};
use tokio_util::sync::CancellationToken;

use super::args::{DeleteArgs, ListArgs, NamedArgs, RestoreArgs};
use super::failure::Failure;
use super::location;
use super::report::{BackupReport, FailureReason};

/// Ends when somebody asks to stop.
async fn unless<T>(
    cancel: &CancellationToken,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::new(FailureReason::Interrupted, format!("interrupted while {what}"))),
        result = work => result,
    }
}

pub(super) async fn restore(
    args: &RestoreArgs,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let store = location::open(&args.named.location, environment, None)?;
    let segment_size = SegmentSize::from_bytes(args.wal_segment_size << 20)
        .map_err(|error| Failure::new(FailureReason::InvalidArguments, error.to_string()))?;
    let options = RestoreOptions {
        segment_size,
        ..RestoreOptions::default()
    };
    let progress = Progress::default();
    let request = RestoreRequest {
        store: &store,
        name: &args.named.name,
        target: &args.target,
        options: &options,
        progress: &progress,
        cancel,
    };
    let restored = Box::pin(holdfast_walg::restore(request)).await?;
    let answer = serde_json::json!({
        "backupName": restored.name,
        "target": args.target,
        "pgVersion": version_text(restored.sentinel.pg_version),
        "comparedFiles": restored.compared_files,
        "walSegments": restored.wal_segments,
    });
    print(&answer.to_string())
}

pub(super) async fn verify(
    args: &NamedArgs,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<BackupReport, Failure> {
    let store = location::open(&args.location, environment, None)?;
    let work = async {
        store.check().await?;
        let name = holdfast_walg::resolve(&store, &args.name).await?;
        let verified = holdfast_walg::verify(&store, &name, SegmentSize::default()).await?;
        let sentinel = verified.sentinel;
        let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        Ok(BackupReport {
            start_lsn: sentinel.lsn.unwrap_or_default(),
            finish_lsn: sentinel.finish_lsn.unwrap_or_default(),
            start_time: time(sentinel.start_time),
            finish_time: time(sentinel.finish_time),
            last_modified: verified.modified.to_string(),
            pg_version: version_text(sentinel.pg_version),
            pg_version_num: sentinel.pg_version,
            bucket: store.bucket().to_owned(),
            path: store.prefix().to_owned(),
            host: sentinel.hostname,
            system_identifier: sentinel
                .system_identifier
                .map(|id| id.to_string())
                .unwrap_or_default(),
            uncompressed_size: sentinel.uncompressed_size,
            compressed_size: sentinel.compressed_size,
            wal_segments: verified.wal_segments,
            timeline: layout::timeline_of(&name).unwrap_or_default(),
            last_segment_padded: verified.wal.iter().any(|entry| entry.key.contains(".partial")),
            backup_name: name,
            ..BackupReport::default()
        })
    };
    unless(cancel, "verifying", work).await
}

pub(super) async fn list(
    args: &ListArgs,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let store = location::open(&args.location, environment, None)?;
    unless(cancel, "listing", async {
        store.check().await?;
        let lines = lines(&store).await?;
        if args.json {
            return print(&serde_json::Value::from(lines).to_string());
        }
        for line in lines {
            let text = |key: &str| {
                line.get(key)
                    .map(ToString::to_string)
                    .unwrap_or_default()
                    .replace('"', "")
            };
            let columns = ["backupName", "lastModified", "pgVersion", "compressedSize"].map(text);
            print(&columns.join("  "))?;
        }
        Ok(())
    })
    .await
}

async fn lines(store: &Store) -> Result<Vec<serde_json::Value>, Failure> {
    let mut lines = Vec::new();
    for backup in holdfast_walg::list(store).await? {
        let sentinel = describe(store, &backup.name).await?;
        lines.push(serde_json::json!({
            "backupName": backup.name,
            "lastModified": backup.modified.to_string(),
            "pgVersion": version_text(sentinel.pg_version),
            "startLsn": sentinel.lsn,
            "finishLsn": sentinel.finish_lsn,
            "uncompressedSize": sentinel.uncompressed_size,
            "compressedSize": sentinel.compressed_size,
        }));
    }
    Ok(lines)
}

pub(super) async fn delete(
    args: &DeleteArgs,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let store = location::open(&args.named.location, environment, None)?;
    unless(cancel, "deleting", async {
        Ok(holdfast_walg::delete(&store, &args.named.name, args.owner.as_deref()).await?)
    })
    .await
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}")
        .map_err(|error| Failure::new(FailureReason::LocalIo, format!("cannot print: {error}")))
}
