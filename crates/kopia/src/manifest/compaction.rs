//! All manifests in one content instead of many.
//!
//! Every backup writes a content of manifests, and whoever opens a repository reads them all. So from
//! [`COMPACT_FROM`] contents on, a writer puts all manifests into one and marks the others as deleted.
//!
//! Two clients may do that at once: then there are two contents with all manifests, of which the next compaction makes one.
//! What must not happen is that one brings back a manifest that the other knows to be deleted. kopia drops the note of
//! a deletion when it compacts; so nothing is compacted here if another client has compacted since the manifests were
//! read, and the notes themselves are kept for a day.

use jiff::{SignedDuration, Timestamp};

use super::document::{DocumentWriter, Entry, scan};
use super::{Known, Manifests};
use crate::content::ContentId;
use crate::error::KopiaResult;
use crate::snapshot::UtcTime;

/// From how many contents on they are brought into one, as kopia does when somebody opens a repository for writing.
pub(super) const COMPACT_FROM: usize = 16;

/// How long a compaction keeps the note that a manifest is deleted. Another compaction may be under way that has not
/// seen the note and writes the manifest once more.
const KEEP_DELETED: SignedDuration = SignedDuration::from_hours(24);

impl Manifests {
    /// The contents that manifests are in.
    pub fn contents(&self) -> &[ContentId] {
        &self.contents
    }

    /// Whether they are in so many contents that they should be in one.
    pub(crate) fn are_scattered(&self) -> bool {
        self.contents.len() >= COMPACT_FROM
    }

    /// The data of one content with all manifests, but for what is still to be written.
    pub(crate) async fn compaction(&self, now: Timestamp) -> KopiaResult<Vec<u8>> {
        let recent = UtcTime::from(now.saturating_sub(KEEP_DELETED).unwrap_or(Timestamp::MIN));
        let mut document = DocumentWriter::new();
        for (content, id) in self.contents.iter().enumerate() {
            scan(self.source.as_ref(), id, &mut |entry: Entry<'_>| {
                let is_newest = |known: &Known| known.content == content && known.modified == entry.modified;
                let outdated = entry.deleted && entry.modified < recent;
                if outdated || !self.known.get(&entry.id).is_some_and(is_newest) {
                    return Ok(());
                }
                let data = (!entry.deleted).then(|| entry.json());
                document.entry(&entry.id, entry.labels.as_ref(), entry.modified, data)
            })
            .await?;
        }
        document.finish()
    }

    /// Takes note that all manifests are in this content now, and the others are deleted.
    pub(crate) fn compacted(&mut self, into: ContentId) {
        self.contents = vec![into];
        for known in self.known.values_mut() {
            known.content = 0;
        }
    }
}
