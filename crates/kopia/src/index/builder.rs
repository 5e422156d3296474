//! Writing an index, byte for byte as kopia does.

use std::collections::{BTreeMap, HashMap, btree_map};

use super::entry::{EntryFormat, Key, supersedes};
use crate::content::{ContentId, ContentInfo};
use crate::error::{KopiaError, KopiaResult};

/// The most entries that kopia puts into one index.
const SHARD_ENTRIES: usize = 16_000_000;
/// Offsets in packs end here: version 2 has two bits for flags.
const MAX_OFFSET: u32 = 1 << 30;
/// Lengths of contents end here in version 2: 28 bits.
const MAX_LENGTH: u32 = 1 << 28;
/// Longer contents need a byte more in every entry.
const LONG: u32 = 1 << 24;
/// Packs of version 2 are numbered by three bytes at most.
const MAX_PACKS: usize = 1 << 24;
/// Formats of version 2 are numbered by one byte, and 255 is not used.
const MAX_FORMATS: usize = 255;

/// Collects contents and writes them as indexes.
#[derive(Clone, Debug, Default)]
pub struct IndexBuilder {
    contents: BTreeMap<ContentId, ContentInfo>,
}

impl IndexBuilder {
    /// Without contents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a content. Of several entries of one content the one stays that would be valid in the repository.
    pub fn add(&mut self, info: ContentInfo) {
        match self.contents.entry(info.id) {
            btree_map::Entry::Vacant(entry) => {
                entry.insert(info);
            }
            btree_map::Entry::Occupied(mut entry) => {
                if supersedes(&info, entry.get()) {
                    entry.insert(info);
                }
            }
        }
    }

    /// Number of contents.
    pub fn len(&self) -> usize {
        self.contents.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// The contents in order.
    pub fn contents(&self) -> impl Iterator<Item = &ContentInfo> {
        self.contents.values()
    }

    /// One index with all contents, in `version` 1 or 2. Packs keep such an index of their own contents.
    pub fn build(&self, version: u8) -> KopiaResult<Vec<u8>> {
        build(&self.contents.values().collect::<Vec<_>>(), version)
    }

    /// As many indexes as kopia would write: one, until there are 16 million contents.
    pub fn shards(&self, version: u8) -> KopiaResult<Vec<Vec<u8>>> {
        self.shards_of(version, SHARD_ENTRIES)
    }

    pub(super) fn shards_of(&self, version: u8, most: usize) -> KopiaResult<Vec<Vec<u8>>> {
        let count = self.contents.len().div_ceil(most);
        let mut shards = vec![Vec::new(); count];
        for info in self.contents.values() {
            let shard = if count > 1 {
                fnv1a(&info.id.to_string()) as usize % count
            } else {
                0
            };
            shards[shard].push(info);
        }
        shards.retain(|shard| !shard.is_empty());
        shards.iter().map(|shard| build(shard, version)).collect()
    }
}

impl FromIterator<ContentInfo> for IndexBuilder {
    fn from_iter<I: IntoIterator<Item = ContentInfo>>(contents: I) -> Self {
        let mut this = Self::new();
        this.extend(contents);
        this
    }
}

impl Extend<ContentInfo> for IndexBuilder {
    fn extend<I: IntoIterator<Item = ContentInfo>>(&mut self, contents: I) {
        contents.into_iter().for_each(|info| self.add(info));
    }
}

/// The hash that spreads contents over shards: FNV-1a of 32 bits.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn build(contents: &[&ContentInfo], version: u8) -> KopiaResult<Vec<u8>> {
    for info in contents {
        check(info)?;
    }
    let key_size = contents
        .first()
        .map_or(255, |info| Key::of(&info.id).as_bytes().len());
    if contents
        .iter()
        .any(|info| Key::of(&info.id).as_bytes().len() != key_size)
    {
        return Err(invalid(
            "contents of an index have hashes of different length".to_owned(),
        ));
    }
    match version {
        1 => build_v1(contents, key_size),
        2 => build_v2(contents, key_size),
        _ => Err(KopiaError::Unsupported {
            feature: format!("index version {version}"),
            detail: "indexes are written in versions 1 and 2".to_owned(),
        }),
    }
}

fn check(info: &ContentInfo) -> KopiaResult<()> {
    let name = info.pack.as_str();
    let problem = if name.is_empty() || name.len() > usize::from(u8::MAX) {
        "has a pack whose name is empty or too long"
    } else if info.offset >= MAX_OFFSET {
        "begins too far within its pack"
    } else if u32::try_from(info.timestamp).is_err() {
        "has a time outside of 1970 to 2106"
    } else {
        return Ok(());
    };
    Err(invalid(format!("content {} {problem}", info.id)))
}

fn invalid(problem: String) -> KopiaError {
    KopiaError::Argument {
        name: "index",
        problem,
    }
}

/// Numbers things in the order in which they first come.
struct Numbering<T> {
    numbers: HashMap<T, u32>,
    order: Vec<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Numbering<T> {
    fn of(things: impl Iterator<Item = T>) -> Self {
        let mut this = Self {
            numbers: HashMap::new(),
            order: Vec::new(),
        };
        for thing in things {
            let next = u32::try_from(this.order.len()).unwrap_or(u32::MAX);
            let number = *this.numbers.entry(thing).or_insert(next);
            if number == next {
                this.order.push(thing);
            }
        }
        this
    }

    fn number(&self, thing: T) -> u32 {
        self.numbers.get(&thing).copied().unwrap_or_default()
    }
}

/// The offset of each name when all are written one after the other from `start`.
fn places<'a>(names: &[&'a str], start: usize) -> KopiaResult<Vec<(&'a str, u32)>> {
    let mut at = start;
    names
        .iter()
        .map(|name| {
            let offset = u32::try_from(at).map_err(|_| invalid("the index is too large".to_owned()))?;
            at += name.len();
            Ok((*name, offset))
        })
        .collect()
}

fn header(version: u8, key_size: usize, value_size: usize, count: usize) -> KopiaResult<Vec<u8>> {
    let sizes = u8::try_from(key_size).ok().zip(u16::try_from(value_size).ok());
    let (sizes, count) = sizes
        .zip(u32::try_from(count).ok())
        .ok_or_else(|| invalid("the index is too large".to_owned()))?;
    let mut output = vec![version, sizes.0];
    output.extend(sizes.1.to_be_bytes());
    output.extend(count.to_be_bytes());
    Ok(output)
}

fn build_v1(contents: &[&ContentInfo], key_size: usize) -> KopiaResult<Vec<u8>> {
    const VALUE: usize = 20;
    let packs = Numbering::of(contents.iter().map(|info| info.pack.as_str()));
    let mut output = header(1, key_size, VALUE, contents.len())?;
    let names = places(&packs.order, output.len() + contents.len() * (key_size + VALUE))?;
    for info in contents {
        if info.compression.0 != 0 || info.encryption_key != 0 {
            return Err(invalid(format!(
                "content {} does not fit into version 1",
                info.id
            )));
        }
        let (name, offset) = names[packs.number(info.pack.as_str()) as usize];
        output.extend(Key::of(&info.id).as_bytes());
        output.extend(&info.timestamp.to_be_bytes()[2..]);
        output.push(info.format_version);
        output.push(u8::try_from(name.len()).unwrap_or_default());
        output.extend(offset.to_be_bytes());
        output.extend((info.offset | u32::from(info.deleted) << 31).to_be_bytes());
        output.extend(info.packed_length.to_be_bytes());
    }
    output.extend(names.iter().flat_map(|(name, _)| name.bytes()));
    Ok(output)
}

fn build_v2(contents: &[&ContentInfo], key_size: usize) -> KopiaResult<Vec<u8>> {
    if contents.is_empty() {
        // kopia takes a version 2 without entries for damaged.
        return Err(invalid("there are no contents".to_owned()));
    }
    let packs = Numbering::of(contents.iter().map(|info| info.pack.as_str()));
    let format = |info: &ContentInfo| EntryFormat {
        compression: info.compression,
        version: info.format_version,
        encryption_key: info.encryption_key,
    };
    let formats = Numbering::of(contents.iter().map(|info| format(info)));
    let longest = contents
        .iter()
        .map(|info| info.packed_length.max(info.original_length))
        .max()
        .unwrap_or_default();
    if longest >= MAX_LENGTH || packs.order.len() > MAX_PACKS || formats.order.len() > MAX_FORMATS {
        return Err(invalid(
            "contents are too long, or there are too many packs or formats".to_owned(),
        ));
    }
    // The optional bytes of a value come one after the other: each needs those before it.
    let value_size = if longest >= LONG {
        19
    } else if packs.order.len() > 1 << 16 {
        18
    } else if formats.order.len() > 1 {
        17
    } else {
        16
    };
    let mut output = header(2, key_size, value_size, contents.len())?;
    output.extend(u32::try_from(packs.order.len()).unwrap_or_default().to_be_bytes());
    output.push(u8::try_from(formats.order.len()).unwrap_or_default());
    // The time that others are counted from; kopia never writes another.
    output.extend(0_u32.to_be_bytes());
    let tables = contents.len() * (key_size + value_size) + packs.order.len() * 5 + formats.order.len() * 6;
    let names = places(&packs.order, output.len() + tables)?;
    for info in contents {
        let [_, pack_high, pack_low @ ..] = packs.number(info.pack.as_str()).to_be_bytes();
        let [original_high, original @ ..] = info.original_length.to_be_bytes();
        let [packed_high, packed @ ..] = info.packed_length.to_be_bytes();
        let format = u8::try_from(formats.number(format(info))).unwrap_or_default();
        output.extend(Key::of(&info.id).as_bytes());
        let start = output.len();
        output.extend(u32::try_from(info.timestamp).unwrap_or_default().to_be_bytes());
        output.extend((info.offset | u32::from(info.deleted) << 31).to_be_bytes());
        output.extend(original);
        output.extend(packed);
        output.extend(pack_low);
        output.extend([format, pack_high, original_high << 4 | packed_high]);
        output.truncate(start + value_size);
    }
    for (name, offset) in &names {
        output.push(u8::try_from(name.len()).unwrap_or_default());
        output.extend(offset.to_be_bytes());
    }
    for format in &formats.order {
        output.extend(format.compression.0.to_be_bytes());
        output.extend([format.version, format.encryption_key]);
    }
    output.extend(names.iter().flat_map(|(name, _)| name.bytes()));
    Ok(output)
}
