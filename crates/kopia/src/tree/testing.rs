//! Packs in memory, and trees in them, for tests.

#![expect(clippy::unwrap_in_result, reason = "only used by tests")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Packs;
use crate::blob::{BlobId, BlobMetadata};
use crate::compression::HeaderId;
use crate::content::{ContentId, ContentInfo, Prefix};
use crate::error::{KopiaError, KopiaResult};
use crate::object::testing::MemoryContents;
use crate::object::{ContentSink, ListOptions, ObjectId, ObjectOptions, ObjectWriter, PieceOptions};
use crate::snapshot::{DirEntry, DirectoryBuilder, EntryKind, EntryName, Permissions, UtcTime};
use crate::splitter::Splitter;

/// A pack is closed when it has so many bytes.
const PACK: usize = 300_000;

/// Bytes that tell whether a content is what was stored.
const TAG: usize = 8;

/// A repository in memory: contents are not encrypted, but changes to them are noticed.
#[derive(Default)]
pub(crate) struct MemoryPacks {
    index: Mutex<BTreeMap<ContentId, ContentInfo>>,
    packs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How long a read takes.
    pub(crate) delay: Mutex<Duration>,
    pub(crate) reads: AtomicU64,
    pub(crate) decoded: AtomicU64,
}

impl MemoryPacks {
    pub(crate) fn ids(&self) -> Vec<ContentId> {
        self.index.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn location(&self, id: &ContentId) -> ContentInfo {
        self.index.lock().unwrap()[id].clone()
    }

    pub(crate) fn forget(&self, id: &ContentId) {
        self.index.lock().unwrap().remove(id).unwrap();
    }

    pub(crate) fn change_entry(&self, id: &ContentId, change: impl FnOnce(&mut ContentInfo)) {
        change(self.index.lock().unwrap().get_mut(id).unwrap());
    }

    pub(crate) fn remove_pack(&self, pack: &BlobId) {
        self.packs.lock().unwrap().remove(pack.as_str()).unwrap();
    }

    pub(crate) fn change_pack(&self, pack: &BlobId, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.packs.lock().unwrap().get_mut(pack.as_str()).unwrap());
    }

    /// All packs.
    pub(crate) fn list(&self) -> Vec<BlobMetadata> {
        let packs = self.packs.lock().unwrap();
        let blob = |(id, data): (&String, &Vec<u8>)| BlobMetadata {
            id: id.as_str().into(),
            size: data.len() as u64,
            modified: jiff::Timestamp::UNIX_EPOCH,
        };
        packs.iter().map(blob).collect()
    }
}

impl ContentSink for &MemoryPacks {
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, _: HeaderId) -> KopiaResult<ContentId> {
        let id = MemoryContents::id(prefix, &data);
        let mut index = self.index.lock().unwrap();
        if index.contains_key(&id) {
            return Ok(id);
        }
        let mut packs = self.packs.lock().unwrap();
        let kind = if prefix.is_some() { 'q' } else { 'p' };
        let number = packs
            .iter()
            .filter(|(name, pack)| name.starts_with(kind) && pack.len() >= PACK)
            .count();
        let name = format!("{kind}{number:04}");
        let pack = packs.entry(name.clone()).or_insert_with(|| vec![0x77; 40]);
        let info = ContentInfo {
            id,
            pack: name.into(),
            offset: u32::try_from(pack.len()).unwrap(),
            packed_length: u32::try_from(data.len() + TAG).unwrap(),
            original_length: u32::try_from(data.len()).unwrap(),
            compression: HeaderId::NONE,
            format_version: 3,
            encryption_key: 0,
            timestamp: 0,
            deleted: false,
        };
        pack.extend(data.iter().map(|byte| byte ^ 0x55));
        pack.extend(&blake3::hash(&data).as_bytes()[..TAG]);
        index.insert(id, info);
        Ok(id)
    }
}

#[async_trait]
impl Packs for MemoryPacks {
    fn info(&self, id: &ContentId) -> KopiaResult<ContentInfo> {
        let found = self.index.lock().unwrap().get(id).cloned();
        let found = found.ok_or_else(|| KopiaError::ContentNotFound { id: id.to_string() })?;
        found.check_lengths()?;
        Ok(found)
    }

    async fn read(&self, pack: &BlobId, range: Range<u64>) -> KopiaResult<Bytes> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let packs = self.packs.lock().unwrap();
        let data = packs.get(pack.as_str()).ok_or_else(|| KopiaError::BlobNotFound {
            blob: pack.to_string(),
        })?;
        let bounds = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let part = data
            .get(bounds)
            .ok_or_else(|| KopiaError::corrupt(format_args!("blob {pack}"), "it is too short"))?;
        Ok(Bytes::copy_from_slice(part))
    }

    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        let info = self.info(id)?;
        let mut packed = self.read(&info.pack, info.packed_range()).await?.to_vec();
        Ok(self.decode(&info, &mut packed)?.into_owned())
    }

    fn decode<'a>(&self, info: &ContentInfo, packed: &'a mut [u8]) -> KopiaResult<Cow<'a, [u8]>> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let damaged =
            || KopiaError::corrupt(format_args!("content {}", info.id), "it is not what was stored");
        let end = packed.len().checked_sub(TAG).ok_or_else(damaged)?;
        let (data, tag) = packed.split_at_mut(end);
        for byte in data.iter_mut() {
            *byte ^= 0x55;
        }
        if blake3::hash(data).as_bytes()[..TAG] != *tag || data.len() != info.original_length as usize {
            return Err(damaged());
        }
        Ok(Cow::Borrowed(data))
    }

    fn check_hash(&self, info: &ContentInfo, data: &[u8]) -> KopiaResult<()> {
        if MemoryContents::id(info.id.prefix(), data) == info.id {
            Ok(())
        } else {
            Err(KopiaError::corrupt(
                format_args!("content {}", info.id),
                "its hash is not its name",
            ))
        }
    }
}

/// A tree to be kept in a repository.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Vec<u8>),
    Link(&'static str),
    Directory(Vec<(String, Node)>),
}

/// Keeps a tree, and gives its root.
pub(crate) fn keep(packs: &MemoryPacks, node: &Node) -> DirEntry {
    keep_as(packs, "root", node)
}

fn keep_as(packs: &MemoryPacks, name: &str, node: &Node) -> DirEntry {
    let (kind, mode, prefix) = match node {
        Node::File(_) => (EntryKind::File, 0o640, None),
        Node::Link(_) => (EntryKind::Symlink, 0o777, None),
        Node::Directory(_) => (EntryKind::Directory, 0o750, Some(Prefix::DIRECTORY)),
    };
    let mut entry = DirEntry {
        name: EntryName::from(name),
        kind,
        permissions: Permissions::from_unix(mode),
        mtime: UtcTime::from_unix(1_500_000_000, 42),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..DirEntry::default()
    };
    let data = match node {
        Node::File(data) => data.clone(),
        Node::Link(points_to) => points_to.as_bytes().to_vec(),
        Node::Directory(nodes) => {
            let mut builder = DirectoryBuilder::default();
            for (name, node) in nodes {
                builder.add(keep_as(packs, name, node));
            }
            let directory = builder.build(entry.mtime, "");
            let mut json = Vec::new();
            directory
                .write_json(&mut |part| {
                    json.extend_from_slice(part);
                    Ok(())
                })
                .unwrap();
            entry.summary = Some(Box::new(directory.summary));
            json
        }
    };
    if kind != EntryKind::Directory {
        entry.size = data.len() as u64;
    }
    entry.object = Some(object(packs, prefix, &data));
    entry
}

/// Keeps an object, in pieces of 128 KiB.
pub(crate) fn object(packs: &MemoryPacks, prefix: Option<Prefix>, data: &[u8]) -> ObjectId {
    let splitter = Splitter::by_name("FIXED-128K").unwrap();
    let options = ObjectOptions {
        pieces: PieceOptions {
            prefix,
            compression: HeaderId::NONE,
            splitter,
            batch: 1,
        },
        list: ListOptions {
            prefix,
            compression: HeaderId::NONE,
            splitter,
        },
    };
    let mut writer = ObjectWriter::new(packs, options);
    writer.write(data).unwrap();
    writer.finish().unwrap()
}

/// Bytes of which no two pieces are alike.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut data);
    data
}

/// A directory of these.
pub(crate) fn directory<const N: usize>(nodes: [(&str, Node); N]) -> Node {
    Node::Directory(nodes.map(|(name, node)| (name.to_owned(), node)).into())
}

/// A tree with something of everything.
pub(crate) fn sample() -> Node {
    let mut sparse = vec![0; 500_000];
    sparse[300_000..300_100].fill(7);
    let many = (0..300_u64).map(|number| {
        let length = usize::try_from(number * 37 % 5000).unwrap();
        (format!("f{number}"), Node::File(noise(number, length)))
    });
    directory([
        ("empty", Node::File(Vec::new())),
        ("large", Node::File(noise(1000, 1_000_001))),
        ("link", Node::Link("../elsewhere")),
        ("many", Node::Directory(many.collect())),
        ("none", directory([])),
        ("same", Node::File(noise(1000, 1_000_001))),
        ("sparse", Node::File(sparse)),
        ("zeros", Node::File(vec![0; 9000])),
        (
            "deep",
            directory([(
                "a",
                directory([(
                    "b",
                    directory([
                        ("c", Node::File(noise(7, 100))),
                        ("same", Node::File(noise(7, 100))),
                    ]),
                )]),
            )]),
        ),
        ("\u{fffd} \n\"odd\\", Node::File(b"odd".to_vec())),
    ])
}

/// Shared, as the engine wants it.
pub(crate) fn shared(packs: &Arc<MemoryPacks>) -> Arc<dyn Packs> {
    Arc::<MemoryPacks>::clone(packs)
}
