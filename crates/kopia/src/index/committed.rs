//! The index of a repository: all valid index blobs, looked up in files.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::blobs::{IndexBlobs, blocking};
use super::builder::IndexBuilder;
use super::entry::{Entry, Key};
use super::legacy;
use super::merge::{Merge, entry_supersedes, merge_runs, to_merge};
use super::run::{Run, RunWriter};
use super::scratch::ScratchFile;
use crate::blob::{BlobId, BlobMetadata, BlobStorage};
use crate::content::{ContentId, ContentInfo, Prefix};
use crate::epoch::{ActiveIndexes, Clock, EpochManager};
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;

/// How often the blobs are listed again because one of them is gone, as kopia does.
const LOAD_ATTEMPTS: u32 = 10;
/// How long to wait then; twice as long each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// How often an index is written again because it took too long.
const WRITE_ATTEMPTS: u32 = 3;
/// The most runs that a lookup goes through.
const MAX_RUNS: usize = 4;

/// The contents of a repository, as the valid index blobs have them. Lookups are by one or two reads of files in the
/// scratch directory, from any number of threads; the memory is about 1.3 MB for ten million contents.
#[derive(Debug)]
pub struct CommittedIndex {
    blobs: Arc<IndexBlobs>,
    /// None in repositories without epochs.
    epochs: Option<EpochManager>,
    clock: ClockField,
    state: RwLock<Arc<State>>,
    /// Taken while the state is being changed: what was written meanwhile must not get lost by a refresh that listed
    /// the blobs before.
    changing: tokio::sync::Mutex<()>,
}

/// The clock, which has no debug text.
struct ClockField(Clock);

impl std::fmt::Debug for ClockField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

#[derive(Debug, Default)]
struct State {
    /// From the smallest to the largest.
    runs: Vec<Arc<Run>>,
    deletion_watermark: Option<i64>,
}

impl State {
    /// Whether an entry says no more than that there was such a content.
    fn is_gone(&self, entry: &Entry) -> bool {
        entry.deleted
            && self
                .deletion_watermark
                .is_some_and(|watermark| entry.timestamp <= watermark)
    }
}

impl CommittedIndex {
    /// Fetches the valid index blobs of a repository. Files without names are made in the directory `scratch`: some 160
    /// bytes for each content while this runs, half of that later.
    pub async fn open(
        storage: Arc<dyn BlobStorage>,
        format: Arc<RepositoryFormat>,
        scratch: &Path,
        clock: Clock,
    ) -> KopiaResult<Self> {
        let epochs = format.epoch.enabled.then(|| {
            let (parameters, retention) = (format.epoch.clone(), format.retention);
            EpochManager::new(storage.clone(), parameters, retention, clock.clone())
        });
        let this = Self {
            blobs: Arc::new(IndexBlobs::new(storage, format, scratch)?),
            epochs,
            clock: ClockField(clock),
            state: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        };
        this.refresh().await?;
        Ok(this)
    }

    /// The valid entry of a content. It may say that the content is deleted: such a content can still be read, until
    /// maintenance removes it.
    pub fn lookup(&self, id: &ContentId) -> KopiaResult<Option<ContentInfo>> {
        self.find(id)?
            .map(|entry| Ok(entry.with_pack(self.blobs.packs.name(entry.pack)?)))
            .transpose()
    }

    /// Whether there is a content that is not deleted: one that need not be written again. Cheaper than a lookup.
    pub fn contains(&self, id: &ContentId) -> KopiaResult<bool> {
        Ok(self.find(id)?.is_some_and(|entry| !entry.deleted))
    }

    /// All contents in order, also deleted ones, as they are now: later changes are not seen.
    pub fn contents(&self) -> KopiaResult<Contents> {
        self.contents_from(None)
    }

    /// The contents with a prefix, or those without, in order.
    pub fn contents_of(&self, prefix: Option<Prefix>) -> KopiaResult<Contents> {
        self.contents_from(Some(prefix.map_or(0, Prefix::letter)))
    }

    /// An upper bound for the number of contents.
    pub fn approximate_count(&self) -> u64 {
        self.state().runs.iter().map(|run| run.count()).sum()
    }

    /// Lists the index blobs again and takes in what is new. What is gone from the list is forgotten.
    pub async fn refresh(&self) -> KopiaResult<()> {
        let _changing = self.changing.lock().await;
        let mut loaded = Vec::new();
        let mut delay = FIRST_DELAY;
        for attempt in 1.. {
            let active = self.active().await?;
            match self.take_in(&active, &mut loaded).await {
                // It was compacted and deleted between listing and reading, so the next listing has what replaced it.
                Err(KopiaError::BlobNotFound { blob }) if attempt == LOAD_ATTEMPTS => {
                    return Err(KopiaError::corrupt(
                        format_args!("index blob {blob}"),
                        "it is listed, and yet does not exist",
                    ));
                }
                Err(KopiaError::BlobNotFound { .. }) => tokio::time::sleep(delay).await,
                other => return other,
            }
            delay *= 2;
        }
        Ok(())
    }

    /// Writes contents as an index of the repository; from then on they are found by lookups here and by everybody.
    /// `session` becomes part of the names: `s`, then letters and digits.
    ///
    /// The packs must have been written before.
    pub async fn write(&self, contents: IndexBuilder, session: &str) -> KopiaResult<Vec<BlobId>> {
        if contents.is_empty() {
            return Ok(Vec::new());
        }
        let layout = self.blobs.layout;
        if let Some(info) = contents.contents().find(|info| !layout.fits(&info.id)) {
            return Err(KopiaError::Argument {
                name: "contents",
                problem: format!("{} does not have a hash of the repository", info.id),
            });
        }
        let _changing = self.changing.lock().await;
        let contents = Arc::new(contents);
        let shards = self.shards(contents.clone(), session).await?;
        let written = self.write_shards(&shards).await?;
        drop(shards);
        let (blobs, members) = (self.blobs.clone(), written.clone());
        let run = blocking(move || stage_own(&blobs, &contents, members)).await?;
        let state = self.state();
        let mut runs = state.runs.clone();
        runs.push(Arc::new(run));
        self.install(runs, state.deletion_watermark).await?;
        Ok(written)
    }

    /// Encrypted indexes of the contents and their names.
    async fn shards(
        &self,
        contents: Arc<IndexBuilder>,
        session: &str,
    ) -> KopiaResult<Vec<(String, bytes::Bytes)>> {
        let (blobs, session, epochs) = (self.blobs.clone(), session.to_owned(), self.epochs.is_some());
        blocking(move || {
            let shards = contents.shards(blobs.format.index_version)?;
            // With epochs the name says how many blobs belong together.
            let suffix = if epochs {
                format!("{session}-c{}", shards.len())
            } else {
                session
            };
            shards
                .into_iter()
                .map(|shard| blobs.seal(shard, &suffix))
                .collect()
        })
        .await
    }

    async fn write_shards(&self, shards: &[(String, bytes::Bytes)]) -> KopiaResult<Vec<BlobId>> {
        let Some(epochs) = &self.epochs else {
            let retention = self.blobs.format.retention;
            let retention = retention
                .map(|retention| retention.starting((self.clock.0)()))
                .transpose()?;
            return legacy::write(&self.blobs.storage, shards, retention.as_ref()).await;
        };
        for _ in 1..WRITE_ATTEMPTS {
            match epochs.write(shards).await {
                Err(KopiaError::EpochMoved) => {}
                other => return other,
            }
        }
        epochs.write(shards).await
    }

    async fn active(&self) -> KopiaResult<ActiveIndexes> {
        match &self.epochs {
            Some(epochs) => epochs.active().await,
            None => legacy::active(&self.blobs.storage, &self.blobs.format.cipher).await,
        }
    }

    /// Makes the state such that it has exactly these blobs. What has been loaded is kept in `loaded` if that fails.
    async fn take_in(&self, active: &ActiveIndexes, loaded: &mut Vec<Arc<Run>>) -> KopiaResult<()> {
        let listed: HashSet<&BlobId> = active.blobs.iter().map(|blob| &blob.id).collect();
        let mut runs = self.state().runs.clone();
        runs.append(&mut loaded.clone());
        // A run with a blob that counts no more is dropped as a whole: entries of that blob may have been dropped by a
        // compaction, or its writer may have taken it back. The others of its blobs are fetched again.
        runs.retain(|run| run.members().iter().all(|blob| listed.contains(blob)));
        let known: HashSet<&BlobId> = runs.iter().flat_map(|run| run.members()).collect();
        let missing: Vec<&BlobMetadata> = active
            .blobs
            .iter()
            .filter(|blob| !known.contains(&blob.id))
            .collect();
        let before = loaded.len();
        self.blobs.load(&missing, loaded).await?;
        runs.extend_from_slice(&loaded[before..]);
        self.install(runs, active.deletion_watermark).await
    }

    /// Merges runs until there are few, and makes them the state.
    async fn install(&self, mut runs: Vec<Arc<Run>>, deletion_watermark: Option<i64>) -> KopiaResult<()> {
        loop {
            runs.sort_by_key(|run| run.count());
            let sizes: Vec<u64> = runs.iter().map(|run| run.count()).collect();
            let merged = to_merge(&sizes, MAX_RUNS);
            if merged < 2 {
                break;
            }
            let larger = runs.split_off(merged);
            let blobs = self.blobs.clone();
            let one = blocking(move || merge_all(&blobs, runs)).await?;
            runs = larger;
            runs.push(one);
        }
        let state = Arc::new(State {
            runs,
            deletion_watermark,
        });
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    fn find(&self, id: &ContentId) -> KopiaResult<Option<Entry>> {
        let state = self.state();
        let key = Key::of(id);
        let mut best: Option<Entry> = None;
        for run in &state.runs {
            let Some(entry) = run.find(&key)? else {
                continue;
            };
            let better = match &best {
                Some(best) => entry_supersedes(&self.blobs.packs, &entry, best)?,
                None => true,
            };
            if better {
                best = Some(entry);
            }
        }
        Ok(best.filter(|entry| !state.is_gone(entry)))
    }

    fn contents_from(&self, letter: Option<u8>) -> KopiaResult<Contents> {
        let state = self.state();
        let from = letter.map(Key::first);
        Ok(Contents {
            merge: Merge::new(
                &state.runs,
                from.as_ref(),
                self.blobs.layout,
                self.blobs.packs.clone(),
            )?,
            letter,
            blobs: self.blobs.clone(),
            state,
        })
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Contents of a repository in order.
pub struct Contents {
    merge: Merge,
    /// What keys have to begin with.
    letter: Option<u8>,
    state: Arc<State>,
    blobs: Arc<IndexBlobs>,
}

impl Contents {
    fn step(&mut self) -> KopiaResult<Option<ContentInfo>> {
        while let Some(record) = self.merge.next()? {
            if self.letter.is_some_and(|letter| record.first() != Some(&letter)) {
                break;
            }
            let entry = self.blobs.layout.decode(record)?;
            if !self.state.is_gone(&entry) {
                return Ok(Some(entry.with_pack(self.blobs.packs.name(entry.pack)?)));
            }
        }
        self.merge.stop();
        Ok(None)
    }
}

impl Iterator for Contents {
    type Item = KopiaResult<ContentInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            // What comes after something unreadable would look as if nothing were missing.
            self.merge.stop();
        }
        next.transpose()
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

/// The contents of an index that we wrote, without fetching it.
fn stage_own(blobs: &IndexBlobs, contents: &IndexBuilder, members: Vec<BlobId>) -> KopiaResult<Run> {
    let mut names: Vec<&str> = contents.contents().map(|info| info.pack.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
    // The builder refuses names of more than 255 bytes.
    let longest = names.iter().map(|name| name.len()).max().unwrap_or_default();
    let mut packs = blobs
        .packs
        .writer(count, u8::try_from(longest).unwrap_or(u8::MAX))?;
    for name in &names {
        packs.add(name)?;
    }
    let numbers = packs.finish()?;
    let file = Arc::new(ScratchFile::new(&blobs.scratch)?);
    let mut run = RunWriter::new(file, blobs.layout, contents.len() as u64);
    for info in contents.contents() {
        let pack = names.partition_point(|name| *name < info.pack.as_str());
        let pack = numbers.number(u32::try_from(pack).unwrap_or(u32::MAX));
        run.push(&Entry::new(info, pack))?;
    }
    run.finish(members)
}

fn merge_all(blobs: &IndexBlobs, runs: Vec<Arc<Run>>) -> KopiaResult<Arc<Run>> {
    merge_runs(runs, blobs.layout, &blobs.packs, || {
        ScratchFile::new(&blobs.scratch)
    })
}
