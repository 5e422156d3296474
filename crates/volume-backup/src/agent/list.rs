//! `agent list`.

use holdfast_kopia::MemoryLimits;
use holdfast_kopia::snapshot::{SnapshotManifest, list_snapshots};
use serde::Serialize;

use super::Context;
use super::args::ListArgs;
use super::connection::Connection;
use super::failure::{DONE, Failure};
use super::output::bytes;

pub(super) async fn run(args: &ListArgs, context: &Context) -> Result<u8, Failure> {
    let connection = Connection::new(&args.repository, &context.environment)?;
    let work = async {
        let repository = connection
            .open(MemoryLimits::restore(), args.cache.options())
            .await?;
        let manifests = repository.manifests().await?;
        Ok::<_, Failure>(list_snapshots(&manifests, None).await?)
    };
    let mut snapshots = super::unless_cancelled(&context.cancel, work).await?;
    snapshots.retain(|snapshot| wanted(args, snapshot));
    snapshots.sort_by_key(|snapshot| snapshot.start_time);
    for snapshot in &snapshots {
        print(context, snapshot);
    }
    if context.output.is_json() {
        context.output.line(
            "summary",
            &Summary {
                snapshots: snapshots.len(),
            },
        );
    }
    Ok(DONE)
}

#[derive(Serialize)]
struct Summary {
    snapshots: usize,
}

fn wanted(args: &ListArgs, snapshot: &SnapshotManifest) -> bool {
    let is = |asked: &Option<String>, value: &str| asked.as_deref().is_none_or(|asked| asked == value);
    let source = &snapshot.source;
    is(&args.source_user, &source.user_name)
        && is(&args.source_host, &source.host)
        && is(&args.source_path, &source.path)
        && args
            .tags
            .iter()
            .all(|(key, value)| snapshot.tags.get(key) == Some(value))
        && (args.incomplete || snapshot.is_complete())
}

fn print(context: &Context, snapshot: &SnapshotManifest) {
    let id = snapshot.id.as_ref().map(ToString::to_string).unwrap_or_default();
    if context.output.is_json() {
        // The document as it is in the repository, and the id that is not in it.
        context.output.line(
            "snapshot",
            &Listed {
                snapshot: &id,
                manifest: snapshot,
            },
        );
        return;
    }
    let source = &snapshot.source;
    let incomplete = if snapshot.is_complete() {
        ""
    } else {
        "  incomplete"
    };
    let size = u64::try_from(snapshot.stats.total_size).unwrap_or_default();
    context.output.print(&format!(
        "{id}  {}  {:>9}  {}@{}:{}{incomplete}",
        snapshot.start_time,
        bytes(size),
        source.user_name,
        source.host,
        source.path
    ));
}

#[derive(Serialize)]
struct Listed<'a> {
    snapshot: &'a str,
    manifest: &'a SnapshotManifest,
}
