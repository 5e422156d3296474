//! Packs: blobs that hold many contents, one after the other.
//!
//! A pack begins with random bytes, so that equal contents do not make equal packs. Contents with a prefix are kept in
//! packs of their own, whose names begin with `q`, because clients keep metadata in a cache; the others begin with `p`.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use crate::blob::{BlobId, BlobStorage, Retention};
use crate::compression::HeaderId;
use crate::content::recovery::seal_recovery_data;
use crate::content::session::Session;
use crate::content::{ContentId, ContentInfo};
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;

/// Random bytes in the name of a pack.
const NAME: usize = 16;
/// Random bytes that a pack begins with.
const PREAMBLE: usize = 32;
/// The contents of a pack are padded to a multiple of this.
const PADDING: usize = 4096;
/// Shorter contents are copied into slabs, longer ones stay where they are.
const COPIED: usize = 64 << 10;
/// Size of a slab.
const SLAB: usize = 128 << 10;

/// More than what preamble, padding and recovery data of a pack take, without what they take for each content.
pub(crate) const PACK_COST: u64 = 8 << 10;
/// What a content takes beside its bytes: its entry in the recovery data (72 at most), and our notes of it until it is in
/// an index: where it is in its pack (64), and which pack that is (90 on average).
pub(crate) const CONTENT_COST: u64 = 72 + 64 + 90;

/// What kind of contents a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackKind {
    /// Data of files.
    Data,
    /// Contents with a prefix.
    Metadata,
}

impl PackKind {
    pub(crate) fn of(id: &ContentId) -> Self {
        match id.prefix() {
            None => Self::Data,
            Some(_) => Self::Metadata,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Data => 'p',
            Self::Metadata => 'q',
        }
    }
}

/// A content in a pack of ours; what is the same for all of a pack is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedContent {
    pub(crate) id: ContentId,
    pub(crate) offset: u32,
    pub(crate) packed_length: u32,
    pub(crate) original_length: u32,
    pub(crate) compression: HeaderId,
    pub(crate) timestamp: i64,
}

impl PackedContent {
    /// Its entry in an index.
    pub(crate) fn info(&self, pack: &BlobId, format: &RepositoryFormat) -> ContentInfo {
        ContentInfo {
            id: self.id,
            pack: pack.clone(),
            offset: self.offset,
            packed_length: self.packed_length,
            original_length: self.original_length,
            compression: self.compression,
            format_version: format.version,
            encryption_key: 0,
            timestamp: self.timestamp,
            deleted: false,
        }
    }
}

/// A content as it is stored: nonce, and ciphertext with tag.
#[derive(Debug)]
pub(crate) struct SealedContent {
    pub(crate) id: ContentId,
    pub(crate) nonce: [u8; 12],
    pub(crate) body: Vec<u8>,
    pub(crate) original_length: u32,
    pub(crate) compression: HeaderId,
}

impl SealedContent {
    /// Bytes that it takes in a pack.
    pub(crate) fn length(&self) -> u64 {
        (self.nonce.len() + self.body.len()) as u64
    }
}

/// A pack to which contents are appended.
#[derive(Debug)]
pub(crate) struct OpenPack {
    number: u64,
    name: BlobId,
    session: Arc<Session>,
    pieces: Vec<Bytes>,
    slab: BytesMut,
    length: u64,
    contents: Vec<PackedContent>,
}

impl OpenPack {
    /// An empty pack with a new name. Its number is ours alone and tells packs of a writer apart. It begins with
    /// `prefix`: the copy of the repository's description, in repositories that want it.
    pub(crate) fn begin(
        kind: PackKind,
        number: u64,
        session: &Arc<Session>,
        prefix: &[u8],
        random: &SystemRandom,
    ) -> KopiaResult<Self> {
        let name = HEXLOWER.encode(&random_bytes::<NAME>(random)?);
        let name = format!("{}{name}-{}", kind.letter(), session.id().as_str());
        let mut pack = Self {
            number,
            name: name.into(),
            session: Arc::clone(session),
            pieces: Vec::new(),
            slab: BytesMut::new(),
            length: 0,
            contents: Vec::new(),
        };
        pack.copy(prefix);
        pack.copy(&random_bytes::<PREAMBLE>(random)?);
        Ok(pack)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many contents it has.
    pub(crate) fn count(&self) -> usize {
        self.contents.len()
    }

    pub(crate) fn name(&self) -> &BlobId {
        &self.name
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Appends a content. Long ones are not copied.
    pub(crate) fn append(&mut self, content: SealedContent, timestamp: i64) -> KopiaResult<()> {
        let too_long = |_| KopiaError::Argument {
            name: "content",
            problem: format!("{} is too long for a pack", content.id),
        };
        let offset = u32::try_from(self.length).map_err(too_long)?;
        let packed_length = u32::try_from(content.length()).map_err(too_long)?;
        self.contents.push(PackedContent {
            id: content.id,
            offset,
            packed_length,
            original_length: content.original_length,
            compression: content.compression,
            timestamp,
        });
        self.copy(&content.nonce);
        if content.body.len() < COPIED {
            self.copy(&content.body);
        } else {
            self.length += content.body.len() as u64;
            self.end_piece();
            self.pieces.push(content.body.into());
        }
        Ok(())
    }

    /// Where a content is, and its bytes.
    pub(crate) fn find(&self, id: &ContentId) -> Option<(&PackedContent, Vec<u8>)> {
        let content = self.contents.iter().find(|content| content.id == *id)?;
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.slab[..]]);
        Some((content, section(pieces, content)))
    }

    /// No more contents; what is held for the pack is given by the caller.
    pub(crate) fn finish(mut self, held: u64) -> Pack {
        self.end_piece();
        Pack {
            number: self.number,
            name: self.name,
            session: self.session,
            pieces: self.pieces,
            length: self.length,
            contents: self.contents.into(),
            held,
            tail: OnceLock::new(),
        }
    }

    fn copy(&mut self, mut data: &[u8]) {
        self.length += data.len() as u64;
        while !data.is_empty() {
            let free = self.slab.capacity() - self.slab.len();
            if free == 0 {
                self.end_piece();
                self.slab = BytesMut::with_capacity(SLAB);
                continue;
            }
            let (now, later) = data.split_at(free.min(data.len()));
            self.slab.extend_from_slice(now);
            data = later;
        }
    }

    /// What is in the slab is a piece; the rest of the slab's memory is used on.
    fn end_piece(&mut self) {
        if !self.slab.is_empty() {
            self.pieces.push(self.slab.split().freeze());
        }
    }
}

/// A pack that is complete, to be stored.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) number: u64,
    pub(crate) name: BlobId,
    pub(crate) session: Arc<Session>,
    pieces: Vec<Bytes>,
    length: u64,
    pub(crate) contents: Arc<[PackedContent]>,
    /// Bytes that are held in memory for it, as the writer counts them.
    pub(crate) held: u64,
    /// Padding and recovery data; made once, so that storing it again stores the same.
    tail: OnceLock<Bytes>,
}

impl Pack {
    /// Stores the pack, its session marker before it; gives its size in bytes.
    pub(crate) async fn store(
        &self,
        storage: &dyn BlobStorage,
        format: &RepositoryFormat,
        random: &SystemRandom,
        retention: Option<&Retention>,
        now: Timestamp,
    ) -> KopiaResult<u64> {
        self.session.mark(storage, format, now).await?;
        let tail = if let Some(tail) = self.tail.get() {
            tail.clone()
        } else {
            let made = self.make_tail(format, random)?;
            self.tail.get_or_init(|| made).clone()
        };
        let size = self.length + tail.len() as u64;
        let mut pieces = self.pieces.clone();
        pieces.push(tail);
        storage.put(&self.name, pieces, retention).await?;
        Ok(size)
    }

    /// Where a content is, and its bytes.
    pub(crate) fn find(&self, id: &ContentId) -> Option<(&PackedContent, Vec<u8>)> {
        let content = self.contents.iter().find(|content| content.id == *id)?;
        Some((
            content,
            section(self.pieces.iter().map(|piece| &piece[..]), content),
        ))
    }

    fn make_tail(&self, format: &RepositoryFormat, random: &SystemRandom) -> KopiaResult<Bytes> {
        // What is a multiple already gets as much again, as kopia does.
        let over = usize::try_from(self.length % PADDING as u64).unwrap_or_default();
        let mut tail = random_bytes::<PADDING>(random)?.to_vec();
        tail.truncate(PADDING - over);
        let offset = u32::try_from(self.length + tail.len() as u64).map_err(|_| KopiaError::Argument {
            name: "pack",
            problem: format!("{} is too long", self.name),
        })?;
        let contents = self
            .contents
            .iter()
            .map(|content| content.info(&self.name, format));
        tail.extend(seal_recovery_data(
            format,
            contents,
            random_bytes(random)?,
            offset,
        )?);
        Ok(tail.into())
    }
}

/// The bytes of a content among the pieces of its pack.
fn section<'a>(pieces: impl Iterator<Item = &'a [u8]>, content: &PackedContent) -> Vec<u8> {
    let (mut skip, length) = (content.offset as usize, content.packed_length as usize);
    let mut bytes = Vec::with_capacity(length);
    for piece in pieces {
        let begin = skip.min(piece.len());
        skip -= begin;
        let end = piece.len().min(begin + (length - bytes.len()));
        bytes.extend_from_slice(&piece[begin..end]);
    }
    bytes
}

/// Bytes that nobody can foresee.
pub(crate) fn random_bytes<const N: usize>(random: &SystemRandom) -> KopiaResult<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|ring::error::Unspecified| {
        let source = std::io::Error::other("the system gave none");
        KopiaError::io("get random numbers from", "the system", source)
    })?;
    Ok(bytes)
}
