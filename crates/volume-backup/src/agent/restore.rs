//! `agent restore`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use holdfast_kopia::MemoryLimits;
use holdfast_kopia::restore::{
    DeniedAttribute, OnError, Restore, RestoreCounts, RestoreOptions, RestoreProgress, RestoreReport,
    RestoreTarget,
};
use holdfast_kopia::upload::raise_open_files_limit;
use holdfast_store::Store;
use serde::Serialize;

use super::Context;
use super::args::RestoreArgs;
use super::connection::Connection;
use super::failure::{DONE, Failure, PARTIAL};
use super::find;
use super::output::{Output, Ticker, bytes, cost, peak_rss_bytes};

/// How many failed entries are told one by one.
const TOLD: usize = 100;

pub(super) async fn run(args: &RestoreArgs, context: &Context) -> Result<u8, Failure> {
    raise_open_files_limit();
    let transfer = &args.transfer;
    let connection = Connection::new(&transfer.repository, &context.environment)?;
    let named = transfer.source_path.clone().map(|path| transfer.source(path));
    let open = async {
        let repository = connection
            .open(MemoryLimits::restore(), transfer.cache.options())
            .await?;
        let manifests = repository.manifests().await?;
        let found = find::restorable(&manifests, &args.snapshot, named.as_ref()).await?;
        Ok::<_, Failure>((repository, found))
    };
    let (repository, found) = super::unless_cancelled(&context.cancel, open).await?;
    if let Some(reason) = &found.incomplete {
        let name = &args.snapshot;
        Output::warning(&format!(
            "snapshot {name} is not complete ({reason}): files may be missing"
        ));
    }
    let progress = Arc::new(RestoreProgress::default());
    let ticker = {
        let progress = Arc::clone(&progress);
        let numbers = move |store: &Store, output: &Output| Numbers::new(&progress.counts(), store, output);
        Ticker::tell(context, &connection.store, numbers, text)
    };
    let report = Restore::new(options(args))
        .run(
            &repository,
            &found.source,
            &target(&args.target),
            Arc::clone(&progress),
            &context.cancel,
        )
        .await;
    drop(ticker);
    Ok(finish(context, &connection, &report?, found.incomplete))
}

fn options(args: &RestoreArgs) -> RestoreOptions {
    let defaults = RestoreOptions::default();
    RestoreOptions {
        workers: args.transfer.parallel.map_or(defaults.workers, usize::from),
        skip_existing: args.skip_existing,
        sparse: !args.no_sparse,
        owners: !args.skip_owners,
        extended_attributes: !args.skip_extended_attributes,
        on_error: if args.ignore_errors {
            OnError::Continue { list: TOLD }
        } else {
            OnError::Stop
        },
        ..defaults
    }
}

/// What is a block device is overwritten as one.
fn target(path: &Path) -> RestoreTarget {
    let is_device = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    if is_device {
        RestoreTarget::BlockDevice(path.to_owned())
    } else {
        RestoreTarget::Path(path.to_owned())
    }
}

#[derive(Serialize)]
struct Numbers {
    files_total: u64,
    bytes_total: u64,
    files: u64,
    directories: u64,
    symlinks: u64,
    bytes: u64,
    files_skipped: u64,
    bytes_skipped: u64,
    bytes_downloaded: u64,
    errors: u64,
    seconds: f64,
}

impl Numbers {
    fn new(counts: &RestoreCounts, store: &Store, output: &Output) -> Self {
        Self {
            files_total: counts.total_files,
            bytes_total: counts.total_bytes,
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            bytes: counts.bytes,
            files_skipped: counts.skipped,
            bytes_skipped: counts.skipped_bytes,
            bytes_downloaded: store.bytes_received(),
            errors: counts.failed,
            seconds: output.seconds(),
        }
    }
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    numbers: Numbers,
    incomplete: Option<String>,
    attributes_denied: u64,
    denied: Vec<Denied>,
    hard_links: u64,
    hard_links_copied: u64,
    peak_rss_bytes: Option<u64>,
}

/// An attribute that could not be set.
#[derive(Serialize)]
struct Denied {
    path: String,
    attribute: String,
    message: String,
}

fn text(numbers: &Numbers) -> String {
    format!(
        "{} of {} files, {} of {}, {} errors",
        numbers.files + numbers.symlinks,
        numbers.files_total,
        bytes(numbers.bytes),
        bytes(numbers.bytes_total),
        numbers.errors
    )
}

fn finish(
    context: &Context,
    connection: &Connection,
    report: &RestoreReport,
    incomplete: Option<String>,
) -> u8 {
    let output = &context.output;
    for failure in &report.failures {
        output.problem(
            &failure.path.display().to_string(),
            &super::failure::chain(failure.error.as_ref()),
        );
    }
    let summary = Summary {
        numbers: Numbers::new(&report.counts, &connection.store, output),
        incomplete,
        attributes_denied: report.denied,
        denied: report.denied_attributes.iter().map(denied).collect(),
        hard_links: report.counts.hard_links,
        hard_links_copied: report.counts.hard_links_copied,
        peak_rss_bytes: peak_rss_bytes(),
    };
    if output.is_json() {
        output.line("summary", &summary);
    } else {
        for Denied {
            path,
            attribute,
            message,
        } in &summary.denied
        {
            output.print(&format!("{path}: {attribute} could not be set: {message}"));
        }
        if summary.attributes_denied > 0 {
            output.print(&format!("{} entries lack attributes", summary.attributes_denied));
        }
        if summary.hard_links_copied > 0 {
            output.print(&format!(
                "{} names of files with several have become files of their own",
                summary.hard_links_copied
            ));
        }
        let cost = cost(summary.numbers.seconds, summary.peak_rss_bytes);
        output.print(&format!("{}\nrestored {cost}", text(&summary.numbers)));
    }
    if report.counts.failed > 0 { PARTIAL } else { DONE }
}

fn denied(denied: &DeniedAttribute) -> Denied {
    Denied {
        path: denied.path.display().to_string(),
        attribute: denied.attribute.clone(),
        message: denied.error.clone(),
    }
}
