//! How fast contents are put into a repository whose storage takes everything at once and keeps nothing.
//!
//! `cargo run --release -p holdfast-kopia --example put_speed`

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    reason = "a measurement, not a product"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_kopia::blob::{BlobMetadata, Retention};
use holdfast_kopia::compression::HeaderId;
use holdfast_kopia::format::CreateOptions;
use holdfast_kopia::{
    BlobId, BlobStorage, ConnectOptions, KopiaResult, Repository, WriterOptions, blob::MemoryBlobs,
};
use holdfast_store::Secret;
use rustix::time::{ClockId, clock_gettime};

/// Forgets packs, keeps the rest.
#[derive(Debug)]
struct Forgetful(MemoryBlobs);

#[async_trait]
impl BlobStorage for Forgetful {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        self.0.get(id, limit).await
    }
    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        self.0.get_range(id, offset, length).await
    }
    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        if id.as_str().starts_with('p') {
            return Ok(());
        }
        self.0.put(id, pieces, retention).await
    }
    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        self.0.metadata(id).await
    }
    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        self.0.list(prefix).await
    }
    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        self.0.delete(id).await
    }
    fn location(&self) -> String {
        "nowhere".to_owned()
    }
}

#[tokio::main]
async fn main() {
    for threads in [1, 2] {
        for (length, lanes, bytes) in [
            (4 << 20, 4, 4 << 30_u64),
            (4 << 20, 1, 2 << 30_u64),
            (10 << 10, 16, 1 << 30_u64),
            (10 << 10, 1, 1 << 29_u64),
        ] {
            measure(threads, length, lanes, bytes).await;
        }
    }
}

/// Puts so many bytes in pieces of a length, in batches.
async fn measure(threads: u64, length: usize, batch: usize, bytes: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Arc::new(Forgetful(MemoryBlobs::new()));
    let (password, options) = (Secret::new("secret"), ConnectOptions::new(scratch.path()));
    let repository = Repository::create(storage, &password, &CreateOptions::default(), options)
        .await
        .unwrap();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let (next, copied) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let pieces = bytes / length as u64;
    let noise: Arc<[u8]> = noise(length);
    let (began, busy) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (contents, next, noise) = (writer.contents().clone(), Arc::clone(&next), Arc::clone(&noise));
            let copied = Arc::clone(&copied);
            thread::spawn(move || {
                loop {
                    let first = next.fetch_add(batch as u64, Ordering::Relaxed);
                    if first >= pieces {
                        return;
                    }
                    let made = cpu(ClockId::ThreadCPUTime);
                    let batch = (0..batch as u64).map(|at| piece(&noise, first + at)).collect();
                    copied.fetch_add(
                        u64::try_from((cpu(ClockId::ThreadCPUTime) - made).as_nanos()).unwrap(),
                        Ordering::Relaxed,
                    );
                    contents.put_batch(None, batch, HeaderId::NONE).unwrap();
                }
            })
        })
        .collect();
    tokio::task::spawn_blocking(move || workers.into_iter().for_each(|worker| worker.join().unwrap()))
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    // Making the pieces stands for reading them and is not what is measured.
    let made = Duration::from_nanos(copied.load(Ordering::Relaxed));
    let busy = (cpu(ClockId::ProcessCPUTime) - busy - made).as_secs_f64();
    let stats = writer.contents().stats();
    let megabytes = stats.bytes as f64 / 1e6;
    println!(
        "{threads} threads, {length} bytes, batches of {batch}: {:.0} MB/s by the wall, {:.0} MB per CPU second, \
         {} packs, peak {} MiB",
        megabytes / seconds,
        megabytes / busy,
        stats.packs,
        stats.peak_bytes >> 20,
    );
}

/// Time that the process or the thread was computing.
fn cpu(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap()
}

/// A piece that is unlike all others, with room for what encryption adds.
fn piece(noise: &[u8], number: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(noise.len() + 16);
    data.extend_from_slice(noise);
    data[..8].copy_from_slice(&number.to_le_bytes());
    data
}

fn noise(length: usize) -> Arc<[u8]> {
    let mut state = 1_u64;
    let words = (0..length / 8).flat_map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.rotate_left(17).to_le_bytes()
    });
    words.collect()
}
