//! Writing one compressed object: units are compressed on all cores, put back in order and uploaded, all within a
//! byte budget.
//!
//! What one writer can hold without giving anything back while it waits for the budget is bounded by
//! [`Limits::queue`] units being compressed, less than one part of the upload, and one unit being filled. Two such
//! writers (data and WAL) must fit into the budget together, or they would wait for each other for ever;
//! [`Limits::new`] chooses the length of the queue accordingly. Parts being sent come back by themselves.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_store::{Buffer, ByteBudget, PART_BYTES, Reservation, Stored, Upload};
use tokio::task::JoinHandle;

use crate::compress::{Codec, ContentHash, UNIT_BYTES};
use crate::error::{WalgError, WalgResult};

/// What a unit may need while it is compressed: itself and its result, which can be a little larger.
const UNIT_RESERVE: u64 = 2 * UNIT_BYTES as u64 + (64 << 10);

/// Writers that may be open at the same time.
const WRITERS: u64 = 2;

/// The least budget that two writers can work in.
pub const LEAST_BUDGET: u64 = WRITERS * (PART_BYTES + 3 * UNIT_RESERVE);

/// What all writers of a backup share.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    budget: ByteBudget,
    queue: usize,
}

impl Limits {
    /// `bytes` in flight at most (at least [`LEAST_BUDGET`]), compressed by `workers` threads.
    pub(crate) fn new(bytes: u64, workers: usize) -> Self {
        let bytes = bytes.max(LEAST_BUDGET);
        let share = bytes / WRITERS - PART_BYTES - UNIT_RESERVE;
        let fitting = usize::try_from(share / UNIT_RESERVE).unwrap_or(1);
        Self {
            budget: ByteBudget::new(bytes),
            queue: fitting.min(workers + 1).max(1),
        }
    }

    /// The shared budget.
    #[cfg(test)]
    pub(crate) fn budget(&self) -> &ByteBudget {
        &self.budget
    }
}

/// An object being compressed and uploaded.
#[derive(Debug)]
pub(crate) struct ObjectWriter {
    codec: Codec,
    limits: Limits,
    upload: Upload,
    unit: Vec<u8>,
    reservation: Option<Reservation>,
    queue: VecDeque<JoinHandle<std::io::Result<Buffer>>>,
    raw: u64,
    content: ContentHash,
    begun: bool,
}

/// An object that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) key: String,
    pub(crate) raw: u64,
    pub(crate) stored: Stored,
}

impl ObjectWriter {
    pub(crate) fn new(upload: Upload, codec: Codec, limits: &Limits) -> Self {
        Self {
            codec,
            limits: limits.clone(),
            upload,
            unit: Vec::new(),
            reservation: None,
            queue: VecDeque::new(),
            raw: 0,
            content: ContentHash::new(),
            begun: false,
        }
    }

    /// Bytes written so far, before compression.
    pub(crate) fn raw(&self) -> u64 {
        self.raw
    }

    pub(crate) async fn write(&mut self, mut data: &[u8]) -> WalgResult<()> {
        self.raw += data.len() as u64;
        while !data.is_empty() {
            if self.reservation.is_none() {
                self.reservation = Some(self.limits.budget.reserve(UNIT_RESERVE).await);
                self.unit = Vec::with_capacity(UNIT_BYTES);
            }
            let room = UNIT_BYTES - self.unit.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.unit.extend_from_slice(now);
            data = later;
            if self.unit.len() == UNIT_BYTES {
                self.compress().await?;
            }
        }
        Ok(())
    }

    /// Hands the unit to a thread, after making room in the queue.
    async fn compress(&mut self) -> WalgResult<()> {
        while self.queue.len() >= self.limits.queue {
            self.drain_one().await?;
        }
        let unit = std::mem::take(&mut self.unit);
        self.content.add(self.codec, &unit);
        let mut reservation = self.reservation.take();
        let codec = self.codec;
        self.queue.push_back(tokio::task::spawn_blocking(move || {
            let packed = codec.compress(unit)?;
            if let Some(reservation) = &mut reservation {
                reservation.shrink(packed.len() as u64);
            }
            Ok(Buffer {
                bytes: packed.into(),
                reservation,
            })
        }));
        Ok(())
    }

    async fn drain_one(&mut self) -> WalgResult<()> {
        let Some(task) = self.queue.pop_front() else {
            return Ok(());
        };
        let packed = task
            .await
            .map_err(|error| WalgError::Internal(format!("compression failed: {error}")))?;
        let packed = packed.map_err(|error| WalgError::Internal(format!("compression failed: {error}")))?;
        self.begin().await?;
        self.upload.write(packed).await?;
        Ok(())
    }

    async fn begin(&mut self) -> WalgResult<()> {
        if !self.begun {
            self.begun = true;
            let header = self.codec.header();
            if !header.is_empty() {
                self.upload.write(Bytes::from(header).into()).await?;
            }
        }
        Ok(())
    }

    /// Compresses and sends what is left, and makes the object visible.
    pub(crate) async fn finish(mut self) -> WalgResult<Written> {
        if !self.unit.is_empty() {
            self.compress().await?;
        }
        while !self.queue.is_empty() {
            self.drain_one().await?;
        }
        self.begin().await?;
        let trailer = self.codec.trailer(&self.content);
        if !trailer.is_empty() {
            self.upload.write(Bytes::from(trailer).into()).await?;
        }
        let key = self.upload.key().to_owned();
        let stored = self.upload.finish().await?;
        Ok(Written {
            key,
            raw: self.raw,
            stored,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_store::{RetryPolicy, Store, StoreConfig};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_writers_stay_within_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let variables =
            BTreeMap::from([("WALG_FILE_PREFIX".to_owned(), folder.path().display().to_string())]);
        let config = StoreConfig::from_variables(&variables).unwrap();
        let store = Store::open(&config, RetryPolicy::default()).unwrap();
        // Many cores, least memory: the case in which writers could wait for each other.
        let limits = Limits::new(0, 64);
        let highest = std::sync::atomic::AtomicU64::new(0);
        let write = |key: &'static str| {
            let (store, limits, highest) = (&store, &limits, &highest);
            async move {
                let mut writer = ObjectWriter::new(store.upload(key), Codec::None, limits);
                let mut expected = 0;
                for step in 0..400_u32 {
                    let piece = vec![step.to_le_bytes()[0]; 150_000];
                    writer.write(&piece).await.unwrap();
                    expected += 150_000;
                    highest.fetch_max(limits.budget().in_flight(), std::sync::atomic::Ordering::Relaxed);
                }
                let written = writer.finish().await.unwrap();
                assert_eq!((written.raw, written.stored.size), (expected, expected));
            }
        };
        let both = async { tokio::join!(write("a"), write("b")) };
        tokio::time::timeout(std::time::Duration::from_mins(1), both)
            .await
            .expect("a deadlock");
        let highest = highest.into_inner();
        assert!(highest <= LEAST_BUDGET && highest > LEAST_BUDGET / 4, "{highest}");
        assert_eq!(limits.budget().in_flight(), 0);
        assert_eq!(store.head("a").await.unwrap().unwrap().size, 60_000_000);
    }
}
