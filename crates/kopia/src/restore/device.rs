//! Restore to a block device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::progress::RestoreProgress;
use super::target::{Device, write_at};
use super::{PIECES, RestoreReport, RestoreSource, Run};
use crate::content::ContentInfo;
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, Part, PartStream, decode_part, object_length};
use crate::snapshot::{DirEntry, DirectoryStream, EntryKind};
use crate::tree::{Consumer, Failures, MetadataSource, Window, add, fetch, resume};

/// Writes parts to where they belong. Zeros are written as well: nobody knows what the device holds.
struct DeviceWriter {
    device: Device,
    name: PathBuf,
    progress: Arc<RestoreProgress>,
    failures: Failures,
    cancel: CancellationToken,
}

impl Consumer for DeviceWriter {
    type Target = Part;

    fn take(&self, _info: &ContentInfo, parts: Vec<Part>, data: &[u8]) {
        for part in parts {
            if let Err(error) = self.write(&part, data) {
                self.fail(None, Vec::new(), &Arc::new(error));
            }
        }
    }

    fn fail(&self, _info: Option<&ContentInfo>, _parts: Vec<Part>, error: &Arc<KopiaError>) {
        self.failures.add(|| self.name.clone(), Arc::clone(error));
        self.progress
            .failed
            .store(self.failures.count(), Ordering::Relaxed);
    }
}

impl DeviceWriter {
    fn write(&self, part: &Part, data: &[u8]) -> KopiaResult<()> {
        let write = |data: &[u8]| {
            write_at(self.device.descriptor(), data, part.offset, false, &self.cancel)
                .map_err(|error| error.at(self.device.path()))
        };
        if part.compressed || data.len() as u64 != part.length {
            write(&decode_part(part, data.to_vec())?)?;
        } else {
            write(data)?;
        }
        add(&self.progress.bytes, part.length);
        Ok(())
    }
}

/// Restores a file to a block device.
pub(super) async fn restore(run: &Run, source: RestoreSource, path: &Path) -> KopiaResult<RestoreReport> {
    let metadata: Arc<dyn ContentSource> =
        Arc::new(MetadataSource::new(Arc::clone(&run.packs), run.stop.clone()));
    let file = find_file(&metadata, source).await?;
    let object = file
        .object
        .ok_or_else(|| KopiaError::corrupt("the file of the device", "it has no object"))?;
    // Nothing may be written if not everything fits, so the length is not taken on trust.
    let size = object_length(Arc::clone(&metadata), object).await?;
    let opened = spawn_blocking({
        let path = path.to_owned();
        move || Device::open(&path, size)
    });
    let device = resume(opened.await).unwrap_or(Err(KopiaError::Cancelled))?;
    let writer = Arc::new(DeviceWriter {
        device,
        name: file.name.as_os_str().into(),
        progress: Arc::clone(&run.progress),
        failures: run.failures(),
        cancel: run.stop.clone(),
    });
    let (pieces, fetched) = mpsc::channel(PIECES);
    let window = Window::new(Arc::clone(&run.packs), Arc::clone(&writer), pieces);
    let planning = run.on_thread(move || plan(metadata, object, window));
    let fetching = fetch(
        Arc::clone(&run.packs),
        Arc::clone(&writer),
        fetched,
        run.options.fetch(&run.memory),
        run.stop.clone(),
    );
    let (all_planned, ()) = tokio::join!(planning, fetching);
    let failures = writer.failures.finish()?;
    all_planned?;
    let synced = Arc::clone(&writer);
    resume(spawn_blocking(move || synced.device.sync()).await).unwrap_or(Err(KopiaError::Cancelled))?;
    if writer.failures.count() == 0 {
        add(&run.progress.files, 1);
    }
    Ok(RestoreReport {
        counts: run.progress.counts(),
        denied: 0,
        denied_attributes: Vec::new(),
        failures,
    })
}

async fn plan(
    source: Arc<dyn ContentSource>,
    object: ObjectId,
    mut window: Window<DeviceWriter>,
) -> KopiaResult<()> {
    let mut parts = PartStream::open(source, object).await?;
    while let Some(part) = parts.next().await? {
        window.add(part.content, part.length, part).await?;
    }
    window.submit().await
}

/// The file that holds the data of the device: the source itself, or the one file in it, whose name says nothing.
async fn find_file(metadata: &Arc<dyn ContentSource>, source: RestoreSource) -> KopiaResult<DirEntry> {
    let none = || KopiaError::Argument {
        name: "source",
        problem: "is not the snapshot of a block device: it is no file, and no directory with one file"
            .to_owned(),
    };
    let directory = match source {
        RestoreSource::Entry(entry) if entry.kind == EntryKind::File => return Ok(*entry),
        RestoreSource::Entry(entry) if entry.kind == EntryKind::Directory => entry.object.ok_or_else(none)?,
        RestoreSource::Entry(_) => return Err(none()),
        RestoreSource::Directory(object) => object,
    };
    let mut entries = DirectoryStream::open(Arc::clone(metadata), directory)?;
    let first = entries
        .next()
        .await?
        .filter(|entry| entry.kind == EntryKind::File)
        .ok_or_else(none)?;
    match entries.next().await? {
        None => Ok(first),
        Some(_) => Err(none()),
    }
}
