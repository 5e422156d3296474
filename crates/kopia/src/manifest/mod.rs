//! Manifests: small JSON documents with labels, by which they are found.
//!
//! A content with the prefix `m` holds any number of them: JSON in gzip. A manifest is never changed: a newer entry
//! with its id takes its place, or says that it is deleted.

mod compaction;
#[cfg(test)]
mod compaction_tests;
mod document;
mod id;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use ring::rand::SecureRandom as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::compression::HeaderId;
use crate::content::{ContentId, Prefix};
use crate::error::{KopiaError, KopiaResult};
use crate::json;
use crate::object::{ContentSink, ContentSource};
use crate::snapshot::UtcTime;
use document::{DocumentWriter, Entry, scan};

pub use id::ManifestId;

/// The label that says what a manifest is; every manifest has it.
pub const TYPE: &str = "type";

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// What is known of a manifest without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestMetadata {
    /// Its name.
    pub id: ManifestId,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// When it was written.
    pub modified: UtcTime,
}

/// The manifests of a repository, as of when they were loaded, and those that are still to be written.
///
/// Of each only its id, labels, time and place are held; the documents are read when they are asked for.
pub struct Manifests {
    source: Arc<dyn ContentSource>,
    /// The contents they are in.
    contents: Vec<ContentId>,
    known: BTreeMap<ManifestId, Known>,
    pending: BTreeMap<ManifestId, Pending>,
}

struct Known {
    labels: Arc<Labels>,
    modified: UtcTime,
    deleted: bool,
    /// Which of the contents.
    content: usize,
}

struct Pending {
    labels: Arc<Labels>,
    modified: UtcTime,
    /// The document; none if the manifest is deleted.
    data: Option<Vec<u8>>,
}

impl Manifests {
    /// Reads the manifests in these contents, which must be all that have the prefix `m` and are not deleted.
    ///
    /// # Errors
    ///
    /// [`KopiaError::ContentNotFound`] also if another client has compacted manifests since the contents were listed:
    /// refresh the index, list and load again.
    pub async fn load(source: Arc<dyn ContentSource>, contents: Vec<ContentId>) -> KopiaResult<Self> {
        let mut known: BTreeMap<ManifestId, Known> = BTreeMap::new();
        let mut labels = HashSet::new();
        for (content, id) in contents.iter().enumerate() {
            scan(source.as_ref(), id, &mut |entry: Entry<'_>| {
                if known
                    .get(&entry.id)
                    .is_some_and(|other| other.modified >= entry.modified)
                {
                    return Ok(());
                }
                let read = Known {
                    labels: shared(&mut labels, entry.labels.unwrap_or_default()),
                    modified: entry.modified,
                    deleted: entry.deleted,
                    content,
                };
                known.insert(entry.id, read);
                Ok(())
            })
            .await?;
        }
        Ok(Self {
            source,
            contents,
            known,
            pending: BTreeMap::new(),
        })
    }

    /// The manifests that have all these labels, in the order they were written.
    pub fn find(&self, labels: &Labels) -> Vec<ManifestMetadata> {
        let known = self
            .known
            .iter()
            .filter(|(id, entry)| !entry.deleted && !self.pending.contains_key(id));
        let known = known.map(|(id, entry)| (id, &entry.labels, entry.modified));
        let pending = self.pending.iter().filter(|(_, entry)| entry.data.is_some());
        let pending = pending.map(|(id, entry)| (id, &entry.labels, entry.modified));
        let has = |of: &Labels| labels.iter().all(|(name, value)| of.get(name) == Some(value));
        let mut found: Vec<_> = known
            .chain(pending)
            .filter(|(_, of, _)| has(of))
            .map(|(id, labels, modified)| ManifestMetadata {
                id: id.clone(),
                labels: labels.clone(),
                modified,
            })
            .collect();
        found.sort_by_key(|manifest| manifest.modified);
        found
    }

    /// What is known of a manifest.
    pub fn metadata(&self, id: &ManifestId) -> KopiaResult<ManifestMetadata> {
        let known = self.known.get(id).filter(|entry| !entry.deleted);
        let (labels, modified) = match (self.pending.get(id), known) {
            (Some(entry), _) if entry.data.is_some() => (&entry.labels, entry.modified),
            (None, Some(entry)) => (&entry.labels, entry.modified),
            _ => return Err(KopiaError::ManifestNotFound { id: id.to_string() }),
        };
        Ok(ManifestMetadata {
            id: id.clone(),
            labels: labels.clone(),
            modified,
        })
    }

    /// A manifest's document.
    pub async fn get<T: DeserializeOwned + Send>(&self, id: &ManifestId) -> KopiaResult<T> {
        self.metadata(id)?;
        let mut found = None;
        self.visit(std::slice::from_ref(id), &mut |_, document: KopiaResult<T>| {
            found = Some(document);
        })
        .await?;
        found.unwrap_or_else(|| Err(KopiaError::ManifestNotFound { id: id.to_string() }))
    }

    /// The documents of several manifests, one after the other, in any order. Each content they are in is read once.
    /// A document that is not as it must be is an error for `visit`, and no reason to stop.
    pub async fn visit<T: DeserializeOwned>(
        &self,
        ids: &[ManifestId],
        visit: &mut (dyn FnMut(&ManifestId, KopiaResult<T>) + Send),
    ) -> KopiaResult<()> {
        let parse = |id: &ManifestId, data: &[u8]| {
            serde_json::from_slice(data)
                .map_err(|error| KopiaError::corrupt(format_args!("manifest {id}"), error))
        };
        let mut wanted: BTreeMap<usize, BTreeSet<&ManifestId>> = BTreeMap::new();
        for id in ids {
            if let Some(entry) = self.pending.get(id) {
                if let Some(data) = &entry.data {
                    visit(id, parse(id, data));
                }
            } else if let Some(entry) = self.known.get(id).filter(|entry| !entry.deleted) {
                wanted.entry(entry.content).or_default().insert(id);
            }
        }
        for (content, mut ids) in wanted {
            scan(
                self.source.as_ref(),
                &self.contents[content],
                &mut |entry: Entry<'_>| {
                    let newest = self
                        .known
                        .get(&entry.id)
                        .is_some_and(|known| known.modified == entry.modified);
                    if newest && ids.remove(&entry.id) {
                        visit(&entry.id, parse(&entry.id, entry.json()));
                    }
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Adds a manifest, to be written by [`Manifests::flush`]. `now` is when it is written.
    pub fn put<T: Serialize + ?Sized>(
        &mut self,
        labels: Labels,
        document: &T,
        now: Timestamp,
    ) -> KopiaResult<ManifestId> {
        if labels.get(TYPE).is_none_or(String::is_empty) {
            let problem = "a manifest must have a type".to_owned();
            return Err(KopiaError::Argument {
                name: "labels",
                problem,
            });
        }
        let mut random = [0; 16];
        let rng = ring::rand::SystemRandom::new();
        rng.fill(&mut random).map_err(|_| KopiaError::Unsupported {
            feature: "random numbers".to_owned(),
            detail: "the operating system gives none".to_owned(),
        })?;
        let id = ManifestId::from_random(random);
        let entry = Pending {
            labels: Arc::new(labels),
            modified: now.into(),
            data: Some(json::to_vec(document)?),
        };
        self.pending.insert(id.clone(), entry);
        Ok(id)
    }

    /// Adds a manifest and deletes all others that have all its labels, as is done with policies.
    pub fn replace<T: Serialize + ?Sized>(
        &mut self,
        labels: Labels,
        document: &T,
        now: Timestamp,
    ) -> KopiaResult<ManifestId> {
        for old in self.find(&labels) {
            self.delete(&old.id, now);
        }
        self.put(labels, document, now)
    }

    /// Deletes a manifest, if it is there; written by [`Manifests::flush`].
    pub fn delete(&mut self, id: &ManifestId, now: Timestamp) {
        if let Ok(manifest) = self.metadata(id) {
            // The clock of whoever wrote the manifest may be ahead of ours; the newest entry counts.
            let after = UtcTime::from_nanos(manifest.modified.nanos().saturating_add(1));
            let entry = Pending {
                labels: Arc::default(),
                modified: after.max(now.into()),
                data: None,
            };
            self.pending.insert(id.clone(), entry);
        }
    }

    /// Whether there is something to be written.
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what was put and deleted since the last flush as one content. It is there for others when the writer of
    /// contents has been flushed. Blocking, like [`ContentSink`].
    pub fn flush(&mut self, sink: &dyn ContentSink) -> KopiaResult<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut document = DocumentWriter::new();
        for (id, entry) in &self.pending {
            let labels = entry.data.is_some().then_some(entry.labels.as_ref());
            document.entry(id, labels, entry.modified, entry.data.as_deref())?;
        }
        let stored = sink.put(Some(Prefix::MANIFEST), document.finish()?, HeaderId::ZSTD_FASTEST)?;
        let content = self.contents.len();
        self.contents.push(stored);
        for (id, entry) in std::mem::take(&mut self.pending) {
            let known = Known {
                labels: entry.labels,
                modified: entry.modified,
                deleted: entry.data.is_none(),
                content,
            };
            self.known.insert(id, known);
        }
        Ok(())
    }
}

/// Manifests of one source have the same labels, so they are kept once.
fn shared(all: &mut HashSet<Arc<Labels>>, labels: Labels) -> Arc<Labels> {
    if let Some(known) = all.get(&labels) {
        return known.clone();
    }
    let labels = Arc::new(labels);
    all.insert(labels.clone());
    labels
}
