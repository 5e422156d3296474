//! The contents that manifests are kept in.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Labels, ManifestId};
use crate::content::ContentId;
use crate::error::{KopiaError, KopiaResult};
use crate::json::{self, Item, ItemStream};
use crate::object::ContentSource;
use crate::snapshot::UtcTime;

/// The longest manifest that makes sense, in bytes of JSON.
const MAX_ENTRY: usize = 4 << 20;

/// How much is decompressed at a time.
const BLOCK: usize = 32 << 10;

/// No manifests are longer than so many times their content, because each has a random id. What is short may be.
const MAX_RATIO: usize = 128;
const MAX_SHORT: usize = 8 << 20;

/// A manifest in a content.
#[derive(Deserialize)]
pub(super) struct Entry<'a> {
    pub(super) id: ManifestId,
    /// None if the manifest is deleted.
    #[serde(default)]
    pub(super) labels: Option<Labels>,
    #[serde(default)]
    pub(super) modified: UtcTime,
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

impl Entry<'_> {
    /// The document.
    pub(super) fn json(&self) -> &[u8] {
        self.data.map_or(b"null", |data| data.get().as_bytes())
    }
}

/// Reads a content's manifests one by one.
pub(super) async fn scan(
    source: &dyn ContentSource,
    content: &ContentId,
    visit: &mut (dyn FnMut(Entry<'_>) -> KopiaResult<()> + Send),
) -> KopiaResult<()> {
    let packed = source.get(content).await?;
    read(&packed, visit).map_err(|problem| match problem {
        Problem::Of(problem) => KopiaError::corrupt(format_args!("manifest content {content}"), problem),
        Problem::Visit(error) => error,
    })
}

#[derive(Debug)]
pub(super) enum Problem {
    Of(String),
    Visit(KopiaError),
}

/// Reads the manifests in a content's data.
pub(super) fn read(
    packed: &[u8],
    visit: &mut dyn FnMut(Entry<'_>) -> KopiaResult<()>,
) -> Result<(), Problem> {
    let mut unpacked = GzDecoder::new(packed);
    let mut items = ItemStream::new("entries", MAX_ENTRY);
    let mut block = vec![0; BLOCK];
    let most = packed.len().saturating_mul(MAX_RATIO).max(MAX_SHORT);
    let mut length = 0;
    loop {
        let count = unpacked
            .read(&mut block)
            .map_err(|error| Problem::Of(error.to_string()))?;
        if count == 0 {
            return items.finish().map_err(Problem::Of);
        }
        length += count;
        // Else little data could fill the memory with labels.
        if length > most {
            return Err(Problem::Of(format!("it unpacks to more than {most} bytes")));
        }
        let mut failed = None;
        let mut each = |item: Item<'_>| {
            if let Item::Element(text) = item {
                let entry = serde_json::from_slice(text).map_err(|error| error.to_string())?;
                visit(entry).map_err(|error| {
                    failed = Some(error);
                    String::new()
                })?;
            }
            Ok(())
        };
        if let Err(problem) = items.feed(&block[..count], &mut each) {
            return Err(failed.map_or(Problem::Of(problem), Problem::Visit));
        }
    }
}

/// Writes a content of manifests.
pub(super) struct DocumentWriter {
    packed: GzEncoder<Vec<u8>>,
    entries: usize,
}

impl DocumentWriter {
    pub(super) fn new() -> Self {
        Self {
            packed: GzEncoder::new(Vec::new(), Compression::default()),
            entries: 0,
        }
    }

    /// Adds a manifest; one without a document is deleted.
    pub(super) fn entry(
        &mut self,
        id: &ManifestId,
        labels: Option<&Labels>,
        modified: UtcTime,
        data: Option<&[u8]>,
    ) -> KopiaResult<()> {
        let mut text = if self.entries == 0 {
            b"{\"entries\":[".to_vec()
        } else {
            b",".to_vec()
        };
        self.entries += 1;
        text.extend_from_slice(b"{\"id\":");
        text.extend(json::to_vec(id)?);
        text.extend_from_slice(b",\"labels\":");
        text.extend(json::to_vec(&labels)?);
        text.extend_from_slice(b",\"modified\":");
        text.extend(json::to_vec(&modified)?);
        if data.is_none() {
            text.extend_from_slice(b",\"deleted\":true");
        }
        text.extend_from_slice(b",\"data\":");
        text.extend_from_slice(data.unwrap_or(b"null"));
        text.push(b'}');
        self.packed.write_all(&text).map_err(packing)
    }

    /// The content's data.
    pub(super) fn finish(mut self) -> KopiaResult<Vec<u8>> {
        let end: &[u8] = if self.entries == 0 {
            b"{\"entries\":null}\n"
        } else {
            b"]}\n"
        };
        self.packed.write_all(end).map_err(packing)?;
        self.packed.finish().map_err(packing)
    }
}

/// Writing to memory does not fail.
fn packing(error: std::io::Error) -> KopiaError {
    KopiaError::corrupt("a manifest to be written", error)
}
