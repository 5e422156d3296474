//! The WAL of a backup, streamed while the backup runs.

use std::time::Duration;

use holdfast_store::{Absent, Store};
use tokio::sync::watch;

use crate::compress::Codec;
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::{Lsn, Segment, SegmentSize};
use crate::metadata::InventoryEntry;
use crate::progress::Progress;
use crate::replication::{ConnectOptions, Connection, SegmentEvent, WalSegments, WalStream};
use crate::writer::{Limits, ObjectWriter, Written};

/// Extensions under which wal-g may have archived a segment.
const ARCHIVED_AS: [&str; 6] = [".lz4", ".zst", ".br", ".lzma", ".gz", ""];

/// Where and how WAL is stored.
#[derive(Clone, Copy)]
pub(crate) struct WalTarget<'a> {
    pub(crate) store: &'a Store,
    pub(crate) backup: &'a str,
    pub(crate) host: &'a str,
    pub(crate) server: &'a ConnectOptions,
    pub(crate) codec: Codec,
    pub(crate) limits: &'a Limits,
    pub(crate) size: SegmentSize,
    pub(crate) progress: &'a Progress,
    /// How long the last segment may take to be completed by the server.
    pub(crate) patience: Duration,
}

/// The WAL that was stored.
#[derive(Debug, Default)]
pub(crate) struct StoredWal {
    pub(crate) entries: Vec<InventoryEntry>,
    /// Whether the last segment is kept with the backup because nothing completed it.
    pub(crate) padded: bool,
}

/// What becomes of the segment that is coming.
enum Open {
    Writing(Box<ObjectWriter>),
    /// It is in the archive already.
    Archived(InventoryEntry),
}

/// Stores segment after segment, until the one that holds `finish` (known once the backup ended) is stored.
pub(crate) async fn store_wal(
    target: WalTarget<'_>,
    mut stream: WalStream,
    first: Segment,
    mut finish: watch::Receiver<Option<Lsn>>,
) -> WalgResult<StoredWal> {
    let mut segments = WalSegments::starting_with(first, target.size);
    let mut stored = StoredWal::default();
    let mut open: Option<Open> = None;
    let mut deadline: Option<tokio::time::Instant> = None;
    let mut complete = false;
    loop {
        let needed = *finish.borrow_and_update();
        let last = needed.map(|lsn| Segment::containing(lsn.before(), first.timeline, target.size));
        if let (Some(needed), Some(last)) = (needed, last) {
            if segments.open().is_none() && segments.position() >= last.end(target.size) {
                return Ok(stored);
            }
            // Until all that is needed came, every chunk is a sign of life; then the rest of the segment has its time.
            if !complete {
                complete = segments.position() >= needed;
                deadline = Some(tokio::time::Instant::now() + target.patience);
            }
        }
        let chunk = tokio::select! {
            biased;
            chunk = stream.next() => chunk?,
            // Only the first change matters; the sender lives as long as the backup.
            _ = finish.changed(), if last.is_none() => continue,
            () = sleep_until(deadline) => break,
        };
        let Some(chunk) = chunk else {
            let problem = format!("the timeline ended at {}, before the backup", segments.position());
            return Err(WalgError::WalMissing {
                host: target.host.to_owned(),
                problem,
            });
        };
        let events = segments.push(chunk);
        let host = || target.host.to_owned();
        for event in events.map_err(|source| WalgError::Segment { host: host(), source })? {
            match event {
                SegmentEvent::Begin(segment) => open = Some(begin(target, segment).await?),
                SegmentEvent::Data(data) => {
                    if let Some(Open::Writing(writer)) = &mut open {
                        writer.write(&data).await?;
                    }
                }
                SegmentEvent::End(segment) => {
                    let Some(ended) = open.take() else { continue };
                    // Nothing behind the last segment is of any use to this backup.
                    stored.entries.push(end(target, ended).await?);
                    stream.acknowledge(segment.end(target.size));
                    let done = finish.borrow().is_some_and(|lsn| segment.end(target.size) >= lsn);
                    if done {
                        return Ok(stored);
                    }
                }
            }
        }
    }
    let needed = finish.borrow().unwrap_or_default();
    if segments.position() < needed {
        let problem = format!(
            "it came up to {} only, {needed} is needed, and nothing more came for {} s",
            segments.position(),
            target.patience.as_secs()
        );
        return Err(WalgError::WalMissing {
            host: target.host.to_owned(),
            problem,
        });
    }
    drop(stream);
    match (segments.open(), open) {
        (Some(_), Some(Open::Archived(entry))) => {
            target.progress.add_segment();
            stored.entries.push(entry);
        }
        (Some(segment), Some(Open::Writing(_))) => {
            stored.entries.push(keep_partial(target, segment, needed).await?);
            stored.padded = true;
        }
        _ => {}
    }
    Ok(stored)
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn begin(target: WalTarget<'_>, segment: Segment) -> WalgResult<Open> {
    let name = format!("{}/{}", layout::WAL, segment.file_name(target.size));
    let looks = ARCHIVED_AS.map(|extension| {
        let key = format!("{name}{extension}");
        async move { target.store.head(&key).await }
    });
    for found in futures::future::join_all(looks).await {
        if let Some(object) = found? {
            return Ok(Open::Archived(InventoryEntry {
                key: object.key,
                size: object.size,
            }));
        }
    }
    let key = layout::wal_segment(segment, target.size, target.codec);
    let upload = target.store.upload_if_absent(&key);
    Ok(Open::Writing(Box::new(ObjectWriter::new(
        upload,
        target.codec,
        target.limits,
    ))))
}

async fn end(target: WalTarget<'_>, open: Open) -> WalgResult<InventoryEntry> {
    let entry = match open {
        Open::Archived(entry) => entry,
        Open::Writing(writer) => entry_of(target, writer.finish().await?).await?,
    };
    target.progress.add_segment();
    Ok(entry)
}

async fn entry_of(target: WalTarget<'_>, written: Written) -> WalgResult<InventoryEntry> {
    if written.stored.outcome == Absent::Created {
        return Ok(InventoryEntry {
            key: written.key,
            size: written.stored.size,
        });
    }
    // The archiver was faster; its object stays, whatever its size.
    if let Some(object) = target.store.head(&written.key).await? {
        return Ok(InventoryEntry {
            key: object.key,
            size: object.size,
        });
    }
    let problem = format!(
        "{} vanished while the backup ran",
        target.store.location(&written.key)
    );
    Err(WalgError::WalMissing {
        host: target.host.to_owned(),
        problem,
    })
}

/// Keeps the beginning of the last segment with the backup, filled up with zeros. It is streamed again, because the
/// object begun for it belongs to the archive.
///
/// It does not go to `wal_005`: there it would stand in the way of the real segment, and a recovery that reads it
/// would take the zeros for the end of all WAL.
async fn keep_partial(target: WalTarget<'_>, segment: Segment, needed: Lsn) -> WalgResult<InventoryEntry> {
    let host = || target.host.to_owned();
    let key = layout::partial_segment(target.backup, segment, target.size, target.codec);
    tracing::info!(%key, "nothing completed the last WAL segment; its beginning is kept with the backup");
    let mut writer = ObjectWriter::new(target.store.upload(&key), target.codec, target.limits);
    let connection = Connection::connect(target.server).await?;
    let mut stream = connection
        .start_physical(None, segment.start(target.size), segment.timeline)
        .await?;
    let mut segments = WalSegments::starting_with(segment, target.size);
    while segments.position() < needed {
        let Some(chunk) = stream.next().await? else {
            let problem = format!("the timeline ended at {}, before the backup", segments.position());
            return Err(WalgError::WalMissing {
                host: host(),
                problem,
            });
        };
        for event in segments
            .push(chunk)
            .map_err(|source| WalgError::Segment { host: host(), source })?
        {
            match event {
                SegmentEvent::Data(data) => writer.write(&data).await?,
                SegmentEvent::Begin(_) => {}
                SegmentEvent::End(_) => break,
            }
        }
    }
    for event in segments.pad() {
        if let SegmentEvent::Data(zeros) = event {
            writer.write(&zeros).await?;
        }
    }
    let written = writer.finish().await?;
    target.progress.add_segment();
    Ok(InventoryEntry {
        key: written.key,
        size: written.stored.size,
    })
}
