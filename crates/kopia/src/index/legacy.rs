//! Which index blobs are valid in a repository without epochs, and how one is added there.
//!
//! Indexes are `n…`. A compaction writes new ones and then a log, `m…`, that names its inputs and outputs: when all
//! outputs are there, the inputs count no more. (`l…` only schedule the deletion of logs; readers need not care.)

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use super::blobs::open;
use crate::blob::{BlobId, BlobMetadata, BlobStorage, Retention};
use crate::crypto::ContentCipher;
use crate::epoch::ActiveIndexes;
use crate::error::{KopiaError, KopiaResult};

/// Begins the names of indexes.
const INDEX: &str = "n";
/// Begins the names of logs of compactions.
const COMPACTION: &str = "m";
/// The largest log that is read. It has some 150 bytes for each index.
const MAX_LOG: u64 = 16 << 20;
/// How many logs are read at once.
const PARALLEL: usize = 4;

/// What a compaction did. Names as kopia writes them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Compaction {
    #[serde(default)]
    input_metadata: Option<Vec<Named>>,
    #[serde(default)]
    output_metadata: Option<Vec<Named>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    id: String,
}

/// The index blobs that are valid now.
pub(super) async fn active(
    storage: &Arc<dyn BlobStorage>,
    cipher: &ContentCipher,
) -> KopiaResult<ActiveIndexes> {
    let (logs, indexes) = futures::try_join!(storage.list(COMPACTION), storage.list(INDEX))?;
    // Collected: with a closure in the stream, this future would not be provably Send.
    let logs: Vec<_> = logs
        .iter()
        .map(|log| read_log(storage, cipher, &log.id))
        .collect();
    let logs: Vec<_> = futures::stream::iter(logs)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(ActiveIndexes {
        blobs: without_compacted(indexes, logs.iter().flatten()),
        deletion_watermark: None,
    })
}

/// Writes the shards of an index, given by name without prefix.
pub(super) async fn write(
    storage: &Arc<dyn BlobStorage>,
    shards: &[(String, Bytes)],
    retention: Option<&Retention>,
) -> KopiaResult<Vec<BlobId>> {
    let mut written = Vec::new();
    for (name, data) in shards {
        let blob = BlobId::from(format!("{INDEX}{name}"));
        storage.put(&blob, vec![data.clone()], retention).await?;
        written.push(blob);
    }
    Ok(written)
}

/// None if the log has been deleted meanwhile.
async fn read_log(
    storage: &Arc<dyn BlobStorage>,
    cipher: &ContentCipher,
    blob: &BlobId,
) -> KopiaResult<Option<Compaction>> {
    let sealed = match storage.get(blob, MAX_LOG).await {
        Err(KopiaError::BlobNotFound { .. }) => return Ok(None),
        other => other?,
    };
    let data = open(cipher, blob, sealed)?;
    parse_log(&data).map(Some).ok_or_else(|| {
        KopiaError::corrupt(
            format_args!("compaction log {blob}"),
            "it is no JSON document of its kind",
        )
    })
}

/// Only the first document counts, as in kopia.
fn parse_log(data: &[u8]) -> Option<Compaction> {
    let mut documents = serde_json::Deserializer::from_slice(data).into_iter();
    documents.next()?.ok()
}

/// Leaves out what was the input of a compaction whose outputs are all there.
fn without_compacted<'a>(
    mut indexes: Vec<BlobMetadata>,
    logs: impl Iterator<Item = &'a Compaction>,
) -> Vec<BlobMetadata> {
    let compacted: HashSet<&str> = {
        let present: HashSet<&str> = indexes.iter().map(|blob| blob.id.as_str()).collect();
        logs.filter(|log| names(log.output_metadata.as_ref()).all(|output| present.contains(output)))
            .flat_map(|log| names(log.input_metadata.as_ref()))
            .collect()
    };
    indexes.retain(|blob| !compacted.contains(blob.id.as_str()));
    indexes
}

fn names(blobs: Option<&Vec<Named>>) -> impl Iterator<Item = &str> {
    blobs.into_iter().flatten().map(|blob| blob.id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{self, Bound};

    #[test]
    fn hostile_logs_are_harmless() {
        let golden = br#"{"inputMetadata":[{"id":"n0966b204b8eb485dbabae9299026b1bb-s5f30799640dcd7ea147","length":4000,"timestamp":"2024-05-06T07:08:09Z"},{"id":"n1a1c"}],"outputMetadata":[{"id":"n4ed5b0f27b7fba3574684fd02b2ee6de"}]}"#;
        assert_eq!(
            names(parse_log(golden).unwrap().input_metadata.as_ref()).count(),
            2
        );
        hostile::check(&[golden], Bound::new(4096, 60), |data| drop(parse_log(data)));
    }
}
