//! `agent verify`.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_kopia::MemoryLimits;
use holdfast_kopia::manifest::Manifests;
use holdfast_kopia::snapshot::{SnapshotManifest, list_snapshots};
use holdfast_kopia::verify::{Verification, VerifyCounts, VerifyOptions, VerifyProgress, VerifyReport};
use holdfast_store::Store;
use serde::Serialize;

use super::Context;
use super::args::VerifyArgs;
use super::connection::Connection;
use super::failure::{DONE, Failure, PARTIAL, chain};
use super::find;
use super::output::{Output, Ticker, bytes, cost, peak_rss_bytes};

pub(super) async fn run(args: &VerifyArgs, context: &Context) -> Result<u8, Failure> {
    if !(0.0..=100.0).contains(&args.percent) {
        return Err(Failure::permanent(
            "ArgumentInvalid",
            "--percent: the value must be between 0 and 100",
        ));
    }
    let connection = Connection::new(&args.repository, &context.environment)?;
    let options = VerifyOptions {
        read_percent: args.percent,
        run: args.run,
        list: args.max_errors,
        ..VerifyOptions::default()
    };
    let open = async {
        let repository = connection.open(MemoryLimits::restore(), None).await?;
        let manifests = repository.manifests().await?;
        let snapshots = snapshots(&manifests, &args.snapshots).await?;
        let verification = Verification::begin(&repository, options).await?;
        Ok::<_, Failure>((snapshots, verification))
    };
    let (snapshots, verification) = super::unless_cancelled(&context.cancel, open).await?;
    let progress = Arc::new(VerifyProgress::default());
    let ticker = {
        let progress = Arc::clone(&progress);
        let numbers = move |store: &Store, output: &Output| Numbers::new(&progress.counts(), store, output);
        Ticker::tell(context, &connection.store, numbers, text)
    };
    let mut sound = true;
    for snapshot in &snapshots {
        let Some(root) = &snapshot.root_entry else {
            context
                .output
                .problem(&name(snapshot), "the snapshot has no root");
            sound = false;
            continue;
        };
        let report = verification
            .verify(root, Arc::clone(&progress), &context.cancel)
            .await?;
        sound &= report.is_sound();
        report_damage(context, snapshot, &report);
    }
    drop(ticker);
    finish(context, &connection, &progress, snapshots.len());
    Ok(if sound { DONE } else { PARTIAL })
}

/// Those that are named, or all complete ones.
async fn snapshots(manifests: &Manifests, ids: &[String]) -> Result<Vec<SnapshotManifest>, Failure> {
    if ids.is_empty() {
        let mut all = list_snapshots(manifests, None).await?;
        all.retain(SnapshotManifest::is_complete);
        return Ok(all);
    }
    let mut named = Vec::new();
    for id in ids {
        named.push(find::by_id(manifests, id).await?);
    }
    Ok(named)
}

fn name(snapshot: &SnapshotManifest) -> String {
    snapshot.id.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn report_damage(context: &Context, snapshot: &SnapshotManifest, report: &VerifyReport) {
    let id = name(snapshot);
    for failure in &report.failures {
        let path = PathBuf::from(&id).join(&failure.path);
        context
            .output
            .problem(&path.display().to_string(), &chain(failure.error.as_ref()));
    }
    for (pack, uses) in &report.damaged_packs {
        context.output.problem(
            &id,
            &format!("pack {pack} is damaged or missing; {uses} uses of it"),
        );
    }
}

#[derive(Serialize)]
struct Numbers {
    directories: u64,
    files: u64,
    symlinks: u64,
    bytes: u64,
    directories_known: u64,
    files_known: u64,
    contents_read: u64,
    bytes_read: u64,
    bytes_downloaded: u64,
    errors: u64,
    seconds: f64,
}

impl Numbers {
    fn new(counts: &VerifyCounts, store: &Store, output: &Output) -> Self {
        Self {
            directories: counts.directories,
            files: counts.files,
            symlinks: counts.symlinks,
            bytes: counts.bytes,
            directories_known: counts.known_directories,
            files_known: counts.known_files,
            contents_read: counts.read_contents,
            bytes_read: counts.read_bytes,
            bytes_downloaded: store.bytes_received(),
            errors: counts.failed,
            seconds: output.seconds(),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    snapshots: usize,
    #[serde(flatten)]
    numbers: Numbers,
    peak_rss_bytes: Option<u64>,
}

fn text(numbers: &Numbers) -> String {
    format!(
        "{} files, {}: {} read, {} errors",
        numbers.files,
        bytes(numbers.bytes),
        bytes(numbers.bytes_read),
        numbers.errors
    )
}

fn finish(context: &Context, connection: &Connection, progress: &VerifyProgress, snapshots: usize) {
    let output = &context.output;
    let summary = Summary {
        snapshots,
        numbers: Numbers::new(&progress.counts(), &connection.store, output),
        peak_rss_bytes: peak_rss_bytes(),
    };
    output.tell("summary", &summary, || {
        let cost = cost(summary.numbers.seconds, summary.peak_rss_bytes);
        format!("{}\n{snapshots} snapshots {cost}", text(&summary.numbers))
    });
}
