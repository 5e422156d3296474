//! Reading an index as it is once decrypted: versions 1 and 2.
//!
//! Both begin with the version, the size of a key, the size of a value (big-endian, as every number) and the number of
//! entries; then come the entries, sorted by key. What follows the parts named here is ignored: kopia appends random
//! bytes to some indexes so that no two are equal.

use super::entry::{Entry, EntryFormat, MAX_KEY, id_of};
use super::scratch::{ReadAt, WINDOW, Window};
use crate::compression::HeaderId;
use crate::content::ContentInfo;
use crate::error::{KopiaError, KopiaResult};

/// Bytes of the header that both versions share; it is all of version 1.
const HEADER: u64 = 8;
/// Bytes of a value of version 1.
const V1_VALUE: usize = 20;
/// Bytes of the header of version 2.
const V2_HEADER: usize = 17;
/// Bytes that say where the name of a pack is: length, then offset.
const V2_PACK: usize = 5;
/// Bytes of a format: compression, version, key.
const V2_FORMAT: usize = 6;
/// The fewest and most bytes of a value of version 2.
const V2_VALUES: std::ops::RangeInclusive<usize> = 16..=19;

/// An index: which content is in which pack, sorted by content.
#[derive(Debug)]
pub struct IndexFile<S> {
    source: S,
    length: u64,
    name: String,
    key_size: usize,
    value_size: usize,
    count: u32,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    V1 {
        /// What encryption adds to a content; version 1 does not record the length of the data itself.
        overhead: u32,
        /// Where the distinct names of packs are, sorted.
        packs: Vec<(u32, u8)>,
    },
    V2 {
        packs: u32,
        packs_at: u64,
        formats: Vec<EntryFormat>,
        base_time: u32,
    },
}

impl<S: ReadAt> IndexFile<S> {
    /// Reads the header and checks that everything it announces is there. `name` is for messages; `overhead` is how many
    /// bytes the encryption of the repository adds to a content.
    pub fn open(source: S, length: u64, name: &str, overhead: u32) -> KopiaResult<Self> {
        let damaged = |problem: &str| KopiaError::corrupt(format_args!("index {name}"), problem);
        if length < HEADER {
            return Err(damaged("it is shorter than a header"));
        }
        let mut header = [0; V2_HEADER];
        let present = usize::try_from(length).map_or(V2_HEADER, |length| length.min(V2_HEADER));
        source.read_at(&mut header[..present], 0)?;
        let mut this = Self {
            key_size: usize::from(header[1]),
            value_size: usize::from(be16(&header[2..])),
            count: be32(&header[4..]),
            layout: Layout::V1 {
                overhead,
                packs: Vec::new(),
            },
            source,
            length,
            name: name.to_owned(),
        };
        if this.key_size <= 1 || (this.count > 0 && this.key_size > MAX_KEY) {
            return Err(this.damaged("the size of its keys makes no sense"));
        }
        match header[0] {
            1 => this.open_v1(overhead)?,
            2 if present < V2_HEADER => return Err(this.damaged("it is shorter than a header")),
            2 => this.open_v2(&header)?,
            version => {
                return Err(KopiaError::Unsupported {
                    feature: format!("index version {version}"),
                    detail: format!("index {name} has it"),
                });
            }
        }
        Ok(this)
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are no entries. kopia writes such an index when it has removed every content.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All contents, in order. An entry that is wrong or out of order is an error, and the last item.
    pub fn contents(&self) -> impl Iterator<Item = KopiaResult<ContentInfo>> {
        let mut entries = self.entries();
        let mut names = self.pack_names();
        let mut failed = false;
        std::iter::from_fn(move || {
            let next = if failed {
                Ok(None)
            } else {
                entries.next().and_then(|entry| {
                    entry
                        .map(|entry| names.get(entry.pack).map(|pack| entry.with_pack(pack.into())))
                        .transpose()
                })
            };
            failed |= next.is_err();
            next.transpose()
        })
    }

    pub(super) fn key_size(&self) -> usize {
        self.key_size
    }

    /// The entries in order, with packs by number.
    pub(super) fn entries(&self) -> Entries<'_, S> {
        Entries {
            index: self,
            window: Window::new(&self.source, self.length, WINDOW),
            next: 0,
            last: None,
        }
    }

    pub(super) fn pack_count(&self) -> u32 {
        match &self.layout {
            Layout::V1 { packs, .. } => u32::try_from(packs.len()).unwrap_or(u32::MAX),
            Layout::V2 { packs, .. } => *packs,
        }
    }

    pub(super) fn pack_names(&self) -> PackNames<'_, S> {
        PackNames {
            index: self,
            table: Window::new(&self.source, self.length, WINDOW),
            names: Window::new(&self.source, self.length, WINDOW),
        }
    }

    fn stride(&self) -> usize {
        self.key_size + self.value_size
    }

    fn open_v1(&mut self, overhead: u32) -> KopiaResult<()> {
        if self.count == 0 {
            return Ok(());
        }
        if self.value_size != V1_VALUE {
            return Err(self.damaged("the size of its values makes no sense"));
        }
        if HEADER + u64::from(self.count) * self.stride() as u64 > self.length {
            return Err(self.damaged("it is shorter than its entries"));
        }
        let packs = self.v1_packs()?;
        self.layout = Layout::V1 { overhead, packs };
        Ok(())
    }

    /// Version 1 has no list of packs: each entry says where the name is.
    fn v1_packs(&self) -> KopiaResult<Vec<(u32, u8)>> {
        let mut window = Window::new(&self.source, self.length, WINDOW);
        let mut packs: Vec<(u32, u8)> = Vec::new();
        let mut distinct = 0;
        for number in 0..self.count {
            let value = self.entry_bytes(&mut window, HEADER, number)?;
            let place = (be32(&value[self.key_size + 8..]), value[self.key_size + 7]);
            if packs.last() != Some(&place) {
                packs.push(place);
            }
            // Tidied when it has doubled, so that memory follows the number of packs, not of entries.
            if packs.len() > 2 * distinct + 1024 {
                packs.sort_unstable();
                packs.dedup();
                distinct = packs.len();
            }
        }
        packs.sort_unstable();
        packs.dedup();
        Ok(packs)
    }

    fn open_v2(&mut self, header: &[u8; V2_HEADER]) -> KopiaResult<()> {
        if !V2_VALUES.contains(&self.value_size) {
            return Err(self.damaged("the size of its values makes no sense"));
        }
        let packs = be32(&header[8..]);
        let formats = usize::from(header[12]);
        let packs_at = V2_HEADER as u64 + u64::from(self.count) * self.stride() as u64;
        let formats_at = packs_at + u64::from(packs) * V2_PACK as u64;
        if formats_at + (formats * V2_FORMAT) as u64 > self.length {
            return Err(self.damaged("it is shorter than its entries, packs and formats"));
        }
        let mut bytes = vec![0; formats * V2_FORMAT];
        self.source.read_at(&mut bytes, formats_at)?;
        self.layout = Layout::V2 {
            packs,
            packs_at,
            formats: bytes
                .chunks_exact(V2_FORMAT)
                .map(|format| EntryFormat {
                    compression: HeaderId(be32(format)),
                    version: format[4],
                    encryption_key: format[5],
                })
                .collect(),
            base_time: be32(&header[13..]),
        };
        Ok(())
    }

    fn entry_bytes<'w>(&self, window: &'w mut Window<&S>, first: u64, number: u32) -> KopiaResult<&'w [u8]> {
        let stride = self.stride();
        window
            .get(first + u64::from(number) * stride as u64, stride)?
            .ok_or_else(|| self.damaged("it is shorter than its entries"))
    }

    fn parse_value(&self, entry: &[u8]) -> KopiaResult<Entry> {
        let (key, value) = entry.split_at(self.key_size);
        let id = id_of(key).ok_or_else(|| self.damaged("an entry is of no content"))?;
        match &self.layout {
            Layout::V1 { overhead, packs } => {
                let packed_length = be32(&value[16..]);
                let pack = packs
                    .binary_search(&(be32(&value[8..]), value[7]))
                    .map_err(|_| self.damaged("an entry is of no pack"))?;
                Ok(Entry {
                    id,
                    pack: u32::try_from(pack).unwrap_or(u32::MAX),
                    offset: be32(&value[12..]) & 0x7fff_ffff,
                    packed_length,
                    original_length: packed_length
                        .checked_sub(*overhead)
                        .ok_or_else(|| self.damaged("a content is shorter than its encryption"))?,
                    format: EntryFormat {
                        compression: HeaderId::NONE,
                        version: value[6],
                        encryption_key: 0,
                    },
                    timestamp: i64::from(be16(value)) << 32 | i64::from(be32(&value[2..])),
                    deleted: value[12] & 0x80 != 0,
                })
            }
            Layout::V2 {
                packs,
                formats,
                base_time,
                ..
            } => {
                let extra = |at: usize| value.get(at).copied().map_or(0, u32::from);
                let pack = u32::from(be16(&value[14..])) | extra(17) << 16;
                if pack >= *packs {
                    return Err(self.damaged("an entry is of no pack"));
                }
                let format = formats
                    .get(extra(16) as usize)
                    .ok_or_else(|| self.damaged("an entry has no format"))?;
                Ok(Entry {
                    id,
                    pack,
                    offset: be32(&value[4..]) & 0x7fff_ffff,
                    packed_length: be24(&value[11..]) | (extra(18) & 0xf) << 24,
                    original_length: be24(&value[8..]) | (extra(18) >> 4) << 24,
                    format: *format,
                    timestamp: i64::from(be32(value)) + i64::from(*base_time),
                    deleted: value[4] & 0x80 != 0,
                })
            }
        }
    }

    fn damaged(&self, problem: &str) -> KopiaError {
        KopiaError::corrupt(format_args!("index {}", self.name), problem)
    }
}

/// Reads the entries of an index in order.
pub(super) struct Entries<'a, S> {
    index: &'a IndexFile<S>,
    window: Window<&'a S>,
    next: u32,
    last: Option<crate::content::ContentId>,
}

impl<S: ReadAt> Entries<'_, S> {
    /// The next entry; none after the last.
    pub(super) fn next(&mut self) -> KopiaResult<Option<Entry>> {
        if self.next == self.index.count {
            return Ok(None);
        }
        let first = match self.index.layout {
            Layout::V1 { .. } => HEADER,
            Layout::V2 { .. } => V2_HEADER as u64,
        };
        let bytes = self.index.entry_bytes(&mut self.window, first, self.next)?;
        let entry = self.index.parse_value(bytes)?;
        // Everything that looks something up relies on the order, ours as well as kopia's.
        if self.last.is_some_and(|last| last >= entry.id) {
            return Err(self.index.damaged("its entries are not in order"));
        }
        self.next += 1;
        self.last = Some(entry.id);
        Ok(Some(entry))
    }
}

/// Reads the names of packs.
pub(super) struct PackNames<'a, S> {
    index: &'a IndexFile<S>,
    table: Window<&'a S>,
    names: Window<&'a S>,
}

impl<S: ReadAt> PackNames<'_, S> {
    /// The name of a pack.
    pub(super) fn get(&mut self, number: u32) -> KopiaResult<&str> {
        let (offset, length) = self.place(number)?;
        let name = self
            .names
            .get(u64::from(offset), usize::from(length))?
            .filter(|name| is_blob_name(name))
            .and_then(|name| std::str::from_utf8(name).ok());
        name.ok_or_else(|| self.index.damaged("a pack has no name"))
    }

    /// The length of the longest name.
    pub(super) fn longest(&mut self) -> KopiaResult<u8> {
        (0..self.index.pack_count()).try_fold(0, |longest, number| Ok(self.place(number)?.1.max(longest)))
    }

    fn place(&mut self, number: u32) -> KopiaResult<(u32, u8)> {
        let place = match &self.index.layout {
            Layout::V1 { packs, .. } => packs.get(number as usize).copied(),
            Layout::V2 { packs_at, .. } => self
                .table
                .get(packs_at + u64::from(number) * V2_PACK as u64, V2_PACK)?
                .map(|place| (be32(&place[1..]), place[0])),
        };
        place.ok_or_else(|| self.index.damaged("an entry is of no pack"))
    }
}

/// Whether this may be the name of a blob: it becomes part of a key or of a path.
fn is_blob_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/')
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn be24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl<'a> IndexFile<&'a [u8]> {
    /// An index that is in memory; see [`open`](Self::open).
    pub fn parse(data: &'a [u8], name: &str, overhead: u32) -> KopiaResult<Self> {
        Self::open(data, data.len() as u64, name, overhead)
    }
}
