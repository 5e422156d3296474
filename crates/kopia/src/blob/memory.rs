//! Blobs in memory, which fail when told to. For tests only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_store::StoreError;
use jiff::Timestamp;

use super::{BlobId, BlobMetadata, BlobStorage, Retention};
use crate::error::{KopiaError, KopiaResult};

/// The methods of [`BlobStorage`] that reach the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`BlobStorage::get`].
    Get,
    /// [`BlobStorage::get_range`].
    GetRange,
    /// [`BlobStorage::put`].
    Put,
    /// [`BlobStorage::metadata`].
    Metadata,
    /// [`BlobStorage::list`].
    List,
    /// [`BlobStorage::delete`].
    Delete,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobFault {
    /// Nothing is done, and the storage is said to be unavailable.
    Unavailable,
    /// What was asked for is done, and the storage is said to be unavailable all the same.
    AnswerLost,
    /// Half of what was asked for comes back, as if it were all. Only for what is read.
    Truncated,
    /// The last byte that comes back is another one. Only for what is read.
    Flipped,
    /// No answer, ever; the caller has to give up.
    Stall,
    /// An answer after this time, by tokio's clock.
    Latency(Duration),
}

/// Which calls go wrong, and how.
#[derive(Clone, Debug)]
pub struct FaultRule {
    operation: Operation,
    prefix: String,
    skip: u64,
    times: u64,
    fault: BlobFault,
}

impl FaultRule {
    /// Every call of an operation.
    pub fn every(operation: Operation, fault: BlobFault) -> Self {
        Self {
            operation,
            prefix: String::new(),
            skip: 0,
            times: u64::MAX,
            fault,
        }
    }

    /// Only the nth of the calls that the rule is about, counted from 1.
    pub fn nth(operation: Operation, nth: u64, fault: BlobFault) -> Self {
        Self {
            skip: nth.saturating_sub(1),
            times: 1,
            ..Self::every(operation, fault)
        }
    }

    /// Only calls about blobs whose name begins so; for lists, only those of prefixes that begin so.
    #[must_use]
    pub fn on(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn applies(&mut self, operation: Operation, name: &str) -> bool {
        if self.operation != operation || !name.starts_with(&self.prefix) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let left = self.times > 0;
        self.times = self.times.saturating_sub(1);
        left
    }
}

struct Stored {
    data: Bytes,
    modified: Timestamp,
    retention: Option<Retention>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<BlobId, Stored>,
    rules: Vec<FaultRule>,
    calls: BTreeMap<Operation, u64>,
    bytes_read: u64,
    clock: Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>,
}

/// Blobs in memory, for tests: what the storage holds can be looked at and changed, and calls can be made to fail.
/// Clones share everything.
#[derive(Clone, Default)]
pub struct MemoryBlobs {
    state: Arc<Mutex<State>>,
}

impl MemoryBlobs {
    /// Holds nothing, fails never.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule; the first rule that applies to a call decides.
    pub fn inject(&self, rule: FaultRule) {
        self.state().rules.push(rule);
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.state().rules.clear();
    }

    /// Blobs stored from now on get their time from here rather than from the clock of the machine.
    pub fn set_clock(&self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.state().clock = Some(Arc::new(clock));
    }

    /// How often an operation was called, whatever came of it.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Bytes that came back from [`BlobStorage::get`] and [`BlobStorage::get_range`].
    pub fn bytes_read(&self) -> u64 {
        self.state().bytes_read
    }

    /// Names of all blobs, sorted.
    pub fn names(&self) -> Vec<String> {
        self.state().blobs.keys().map(ToString::to_string).collect()
    }

    /// What a blob holds, past all faults.
    pub fn content(&self, id: &BlobId) -> Option<Bytes> {
        self.state().blobs.get(id).map(|blob| blob.data.clone())
    }

    /// What keeps a blob from being deleted.
    pub fn retention(&self, id: &BlobId) -> Option<Retention> {
        self.state().blobs.get(id).and_then(|blob| blob.retention.clone())
    }

    /// Stores or replaces a blob past all faults, with a time of one's own.
    pub fn insert(&self, id: impl Into<BlobId>, data: impl Into<Bytes>, modified: Timestamp) {
        let stored = Stored {
            data: data.into(),
            modified,
            retention: None,
        };
        self.state().blobs.insert(id.into(), stored);
    }

    /// Removes a blob past all faults; whether it was there.
    pub fn remove(&self, id: &BlobId) -> bool {
        self.state().blobs.remove(id).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, waits as told, and answers what else is wrong with it.
    async fn enter(&self, operation: Operation, name: &str) -> KopiaResult<Option<BlobFault>> {
        let fault = {
            let mut state = self.state();
            *state.calls.entry(operation).or_default() += 1;
            state
                .rules
                .iter_mut()
                .find_map(|rule| rule.applies(operation, name).then_some(rule.fault))
        };
        match fault {
            Some(BlobFault::Unavailable) => Err(unavailable(name)),
            Some(BlobFault::Stall) => std::future::pending().await,
            Some(BlobFault::Latency(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn read(&self, id: &BlobId, fault: Option<BlobFault>, data: Bytes) -> KopiaResult<Bytes> {
        let data = match fault {
            Some(BlobFault::AnswerLost) => return Err(unavailable(id.as_str())),
            Some(BlobFault::Truncated) => data.slice(..data.len() / 2),
            Some(BlobFault::Flipped) => {
                let mut bytes = data.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                bytes.into()
            }
            _ => data,
        };
        self.state().bytes_read += data.len() as u64;
        Ok(data)
    }

    fn found(&self, id: &BlobId) -> KopiaResult<Bytes> {
        self.content(id)
            .ok_or_else(|| KopiaError::BlobNotFound { blob: id.to_string() })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this stands in for a server, which has a clock of its own"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

fn done(name: &str, fault: Option<BlobFault>) -> KopiaResult<()> {
    match fault {
        Some(BlobFault::AnswerLost) => Err(unavailable(name)),
        _ => Ok(()),
    }
}

fn unavailable(name: &str) -> KopiaError {
    StoreError::Unavailable {
        action: "use",
        location: name.to_owned(),
        attempts: 1,
        elapsed: Duration::ZERO,
        detail: "injected".to_owned(),
    }
    .into()
}

impl fmt::Debug for MemoryBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBlobs")
            .field("blobs", &self.state().blobs.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStorage for MemoryBlobs {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        let fault = self.enter(Operation::Get, id.as_str()).await?;
        let data = self.found(id)?;
        if data.len() as u64 > limit {
            let problem = format!("{} bytes, more than the {limit} that make sense here", data.len());
            return Err(KopiaError::corrupt(format!("blob {id}"), problem));
        }
        self.read(id, fault, data)
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        let fault = self.enter(Operation::GetRange, id.as_str()).await?;
        let data = self.found(id)?;
        let end = offset
            .checked_add(length)
            .and_then(|end| usize::try_from(end).ok());
        match (usize::try_from(offset), end) {
            (Ok(start), Some(end)) if end <= data.len() => self.read(id, fault, data.slice(start..end)),
            _ => {
                let problem = format!(
                    "{} bytes long, but {length} bytes from {offset} are needed",
                    data.len()
                );
                Err(KopiaError::corrupt(format!("blob {id}"), problem))
            }
        }
    }

    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        let fault = self.enter(Operation::Put, id.as_str()).await?;
        {
            let mut state = self.state();
            let stored = Stored {
                data: pieces.concat().into(),
                modified: state.clock.as_ref().map_or_else(now, |clock| clock()),
                retention: retention.cloned(),
            };
            state.blobs.insert(id.clone(), stored);
        }
        done(id.as_str(), fault)
    }

    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        let fault = self.enter(Operation::Metadata, id.as_str()).await?;
        done(id.as_str(), fault)?;
        Ok(self.state().blobs.get(id).map(|blob| metadata(id, blob)))
    }

    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        let fault = self.enter(Operation::List, prefix).await?;
        done(prefix, fault)?;
        let state = self.state();
        let from = state.blobs.range(BlobId::from(prefix)..);
        let found = from.take_while(|(id, _)| id.as_str().starts_with(prefix));
        Ok(found.map(|(id, blob)| metadata(id, blob)).collect())
    }

    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        let fault = self.enter(Operation::Delete, id.as_str()).await?;
        self.remove(id);
        done(id.as_str(), fault)
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

fn metadata(id: &BlobId, blob: &Stored) -> BlobMetadata {
    BlobMetadata {
        id: id.clone(),
        size: blob.data.len() as u64,
        modified: blob.modified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn faults_hit_the_calls_they_are_meant_for() {
        let blobs = MemoryBlobs::new();
        let (id, other) = (BlobId::from("p1"), BlobId::from("q1"));
        blobs.inject(FaultRule::nth(Operation::Put, 2, BlobFault::Unavailable).on("p"));
        blobs.inject(FaultRule::nth(Operation::Put, 2, BlobFault::AnswerLost).on("p"));
        let put = |id: BlobId, text: &'static str| {
            let blobs = blobs.clone();
            async move { blobs.put(&id, vec![text.into(), "!".into()], None).await }
        };
        put(id.clone(), "one").await.unwrap();
        put(other.clone(), "other").await.unwrap();
        // The first rule takes the second call, so the second rule sees the third one as its second.
        put(id.clone(), "two").await.unwrap_err();
        assert_eq!(blobs.content(&id).unwrap(), "one!");
        put(id.clone(), "three").await.unwrap_err();
        assert_eq!(blobs.content(&id).unwrap(), "three!");
        put(id.clone(), "four").await.unwrap();
        assert_eq!(blobs.calls(Operation::Put), 5);

        blobs.inject(FaultRule::every(Operation::GetRange, BlobFault::Truncated).times(1));
        assert_eq!(blobs.get_range(&id, 0, 4).await.unwrap(), "fo");
        assert_eq!(blobs.get_range(&id, 1, 4).await.unwrap(), "our!");
        assert!(blobs.get_range(&id, 2, 4).await.is_err());
        assert!(blobs.get(&id, 4).await.is_err());
        blobs.inject(FaultRule::every(Operation::List, BlobFault::Stall));
        let stalled = tokio::time::timeout(Duration::from_millis(20), blobs.list("p"));
        assert!(stalled.await.is_err());
        blobs.heal();
        assert_eq!(blobs.list("p").await.unwrap().len(), 1);
        assert_eq!(blobs.list("").await.unwrap().len(), 2);
    }
}
