//! `agent backup`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use holdfast_kopia::MemoryLimits;
use holdfast_kopia::content::WriterOptions;
use holdfast_kopia::snapshot::{ParentFilter, parent_snapshots};
use holdfast_kopia::upload::{
    Backup, BackupOptions, BackupReport, BackupSource, ErrorPolicy, ProgressNumbers, raise_open_files_limit,
};
use holdfast_store::Store;
use serde::Serialize;

use super::Context;
use super::args::BackupArgs;
use super::connection::Connection;
use super::failure::{DONE, Failure, PARTIAL};
use super::output::{Output, Ticker, bytes, cost, peak_rss_bytes};

pub(super) async fn run(args: &BackupArgs, context: &Context) -> Result<u8, Failure> {
    raise_open_files_limit();
    let transfer = &args.transfer;
    let connection = Connection::new(&transfer.repository, &context.environment)?;
    let source = source(&args.source)?;
    let info = transfer.source(match &transfer.source_path {
        Some(path) => path.clone(),
        None => absolute(&args.source)?,
    });
    let open = async {
        let repository = connection
            .open(MemoryLimits::backup(), transfer.cache.options())
            .await?;
        let mut manifests = repository.manifests().await?;
        let writer = repository.writer(WriterOptions {
            user: info.user_name.clone(),
            host: info.host.clone(),
            cancel: context.cancel.clone(),
            ..WriterOptions::default()
        })?;
        writer.compact_manifests(&mut manifests).await?;
        let parents = if args.force_read {
            Vec::new()
        } else {
            let filter = ParentFilter {
                tags: args.tags.iter().cloned().collect(),
                no_later_than: None,
            };
            parent_snapshots(&manifests, &info, &filter).await?
        };
        Ok::<_, Failure>((writer, manifests, parents))
    };
    let (writer, mut manifests, parents) = super::unless_cancelled(&context.cancel, open).await?;
    let backup = Backup::new(source, info)
        .parents(parents)
        .options(options(args))
        .cancelled_by(context.cancel.clone());
    let ticker = {
        let progress = backup.progress();
        let numbers = move |store: &Store, output: &Output| Numbers::new(&progress.numbers(), store, output);
        Ticker::tell(context, &connection.store, numbers, text)
    };
    let report = backup.run(&writer, &mut manifests).await;
    drop(ticker);
    Ok(finish(context, &connection, &report?))
}

fn options(args: &BackupArgs) -> BackupOptions {
    let defaults = BackupOptions::default();
    BackupOptions {
        errors: if args.skip_unreadable {
            ErrorPolicy::Skip
        } else {
            ErrorPolicy::FailFast
        },
        readers: args.transfer.parallel.map_or(defaults.readers, usize::from),
        extended_attributes: args.extended_attributes,
        checkpoint_interval: args.checkpoint_interval.unwrap_or(defaults.checkpoint_interval),
        tags: args.tags.iter().cloned().collect(),
        pins: args.pins.clone(),
        description: args.description.clone(),
        ..defaults
    }
}

/// A block device is read as one; everything else must be a directory.
fn source(path: &Path) -> Result<BackupSource, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Failure::permanent("FileFailed", format!("cannot read {}: {error}", path.display()))
    })?;
    if metadata.file_type().is_block_device() {
        Ok(BackupSource::Device(path.to_owned()))
    } else if metadata.is_dir() {
        Ok(BackupSource::Directory(path.to_owned()))
    } else {
        Err(Failure::permanent(
            "ArgumentInvalid",
            format!("{} is neither a directory nor a block device", path.display()),
        ))
    }
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let wrong = |problem: &dyn std::fmt::Display| {
        Failure::permanent("ArgumentInvalid", format!("{}: {problem}", path.display()))
    };
    let path = std::path::absolute(path).map_err(|error| wrong(&error))?;
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| wrong(&"the path is not UTF-8; use --source-path"))
}

/// What both progress and summary tell.
#[derive(Serialize)]
struct Numbers {
    files: u64,
    files_hashed: u64,
    files_cached: u64,
    directories: u64,
    bytes: u64,
    bytes_hashed: u64,
    bytes_cached: u64,
    bytes_uploaded: u64,
    errors: u64,
    seconds: f64,
}

impl Numbers {
    fn new(numbers: &ProgressNumbers, store: &Store, output: &Output) -> Self {
        Self {
            files: numbers.found_files,
            files_hashed: numbers.hashed_files,
            files_cached: numbers.cached_files,
            directories: numbers.directories,
            bytes: numbers.found_bytes,
            bytes_hashed: numbers.hashed_bytes,
            bytes_cached: numbers.cached_bytes,
            bytes_uploaded: store.bytes_sent(),
            errors: numbers.errors,
            seconds: output.seconds(),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    snapshot: String,
    root: String,
    #[serde(flatten)]
    numbers: Numbers,
    checkpoints: u32,
    entries_with_attributes: u64,
    peak_rss_bytes: Option<u64>,
}

fn text(numbers: &Numbers) -> String {
    format!(
        "{} files, {}: {} hashed, {} unchanged, {} stored, {} errors",
        numbers.files,
        bytes(numbers.bytes),
        bytes(numbers.bytes_hashed),
        bytes(numbers.bytes_cached),
        bytes(numbers.bytes_uploaded),
        numbers.errors
    )
}

fn finish(context: &Context, connection: &Connection, report: &BackupReport) -> u8 {
    let output = &context.output;
    for skipped in &report.skipped {
        let path = skipped.path.display().to_string();
        output.problem(&path, &format!("{}: {}", skipped.action, skipped.error));
    }
    let snapshot = &report.snapshot;
    let summary = Summary {
        snapshot: snapshot.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        root: snapshot
            .root_object()
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        numbers: Numbers::new(&report.numbers, &connection.store, output),
        checkpoints: report.checkpoints,
        entries_with_attributes: report.numbers.with_attributes,
        peak_rss_bytes: peak_rss_bytes(),
    };
    output.tell("summary", &summary, || {
        let cost = cost(summary.numbers.seconds, summary.peak_rss_bytes);
        format!("{}\nsnapshot {} {cost}", text(&summary.numbers), summary.snapshot)
    });
    if report.numbers.errors > 0 { PARTIAL } else { DONE }
}
