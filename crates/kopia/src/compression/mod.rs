//! Compression of contents.
//!
//! Compressed data begins with four bytes, big-endian, that say how: the [`HeaderId`]. The index of a pack has the same
//! number. kopia keeps the result only if it is smaller.

mod s2;
mod stream;
mod zstd;

use std::fmt;

use crate::error::{KopiaError, KopiaResult};

/// Bytes of the header.
const HEADER: usize = size_of::<u32>();

/// The number that says how data is compressed, as kopia writes it before the data and into the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderId(pub u32);

/// Families of formats: kopia's compressors differ in level or in the program that writes, not in what is read.
#[derive(Clone, Copy)]
enum Family {
    Gzip,
    /// With the level we write, which is near in speed and ratio to that of kopia's Go library.
    Zstd(i32),
    S2,
    Lz4,
    Deflate,
}

/// kopia's compressors: number, name in policies, format.
const COMPRESSORS: [(HeaderId, &str, Family); 18] = [
    (HeaderId(0x1000), "gzip", Family::Gzip),
    (HeaderId(0x1001), "gzip-best-speed", Family::Gzip),
    (HeaderId(0x1002), "gzip-best-compression", Family::Gzip),
    (HeaderId::ZSTD, "zstd", Family::Zstd(3)),
    (HeaderId::ZSTD_FASTEST, "zstd-fastest", Family::Zstd(1)),
    (HeaderId(0x1102), "zstd-better-compression", Family::Zstd(7)),
    (HeaderId(0x1103), "zstd-best-compression", Family::Zstd(11)),
    (HeaderId(0x1200), "s2-default", Family::S2),
    (HeaderId(0x1201), "s2-better", Family::S2),
    (HeaderId(0x1202), "s2-parallel-4", Family::S2),
    (HeaderId(0x1203), "s2-parallel-8", Family::S2),
    (HeaderId(0x1300), "pgzip", Family::Gzip),
    (HeaderId(0x1301), "pgzip-best-speed", Family::Gzip),
    (HeaderId(0x1302), "pgzip-best-compression", Family::Gzip),
    (HeaderId(0x1400), "lz4", Family::Lz4),
    (HeaderId(0x1500), "deflate-default", Family::Deflate),
    (HeaderId(0x1501), "deflate-best-speed", Family::Deflate),
    (HeaderId(0x1502), "deflate-best-compression", Family::Deflate),
];

impl HeaderId {
    /// Not compressed.
    pub const NONE: Self = Self(0);
    /// zstd, kopia's default level.
    pub const ZSTD: Self = Self(0x1100);
    /// zstd, the fastest of kopia's levels; what metadata is written with.
    pub const ZSTD_FASTEST: Self = Self(0x1101);

    /// Its name in policies; none if kopia has no such compressor.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::NONE => Some("none"),
            _ => COMPRESSORS
                .iter()
                .find(|known| known.0 == self)
                .map(|known| known.1),
        }
    }

    /// Whether [`compress`] knows it: zstd, and not to compress at all. All of kopia's can be read.
    pub fn is_writable(self) -> bool {
        self == Self::NONE || matches!(self.family(), Some(Family::Zstd(_)))
    }

    fn family(self) -> Option<Family> {
        COMPRESSORS
            .iter()
            .find(|known| known.0 == self)
            .map(|known| known.2)
    }
}

impl fmt::Display for HeaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// The compressor of this name in policies; `none` and the empty name are none.
pub fn by_name(name: &str) -> Option<HeaderId> {
    match name {
        "" | "none" => Some(HeaderId::NONE),
        _ => COMPRESSORS
            .iter()
            .find(|known| known.1 == name)
            .map(|known| known.0),
    }
}

/// Compresses, with the header; none if that is not smaller than the data, which then is to be kept as it is.
///
/// # Errors
///
/// [`Unsupported`](KopiaError::Unsupported) if the compressor is not [writable](HeaderId::is_writable).
pub fn compress(id: HeaderId, data: &[u8]) -> KopiaResult<Option<Vec<u8>>> {
    let mut out = Vec::new();
    Ok(compress_into(id, data, &mut out)?.then_some(out))
}

/// As [`compress`], behind what is in `out`. `out` is unchanged if the result is false; it never grows by more than the
/// length of the data.
pub fn compress_into(id: HeaderId, data: &[u8], out: &mut Vec<u8>) -> KopiaResult<bool> {
    let level = match (id, id.family()) {
        (HeaderId::NONE, _) => return Ok(false),
        (_, Some(Family::Zstd(level))) => level,
        _ => {
            return Err(KopiaError::Unsupported {
                feature: format!("to be written with the compression {id}"),
                detail: "only zstd is written".into(),
            });
        }
    };
    // At least one byte must be saved.
    let Some(room) = data.len().checked_sub(HEADER + 1) else {
        return Ok(false);
    };
    let begin = out.len();
    out.reserve(HEADER + room);
    out.extend_from_slice(&id.0.to_be_bytes());
    let smaller = zstd::compress(level, data, out, room);
    if !matches!(smaller, Ok(true)) {
        out.truncate(begin);
    }
    smaller
}

/// Decompresses data with its header into at most `limit` bytes, which is also the most that is allocated for it. `what`
/// names the content for the error.
///
/// # Errors
///
/// [`Unsupported`](KopiaError::Unsupported) if kopia has no such compressor, [`Corrupt`](KopiaError::Corrupt) if the data
/// is damaged or longer than the limit.
pub fn decompress(data: &[u8], limit: usize, what: impl fmt::Display) -> KopiaResult<Vec<u8>> {
    let Some((header, data)) = data.split_first_chunk::<HEADER>() else {
        return Err(KopiaError::corrupt(what, "it is too short to be compressed"));
    };
    let id = HeaderId(u32::from_be_bytes(*header));
    let decompressed = match id.family() {
        Some(Family::Gzip) => stream::gzip(data, limit),
        Some(Family::Zstd(_)) => zstd::decompress(data, limit),
        Some(Family::S2) => s2::decompress(data, limit),
        Some(Family::Lz4) => stream::lz4(data, limit),
        Some(Family::Deflate) => stream::deflate(data, limit),
        None => {
            return Err(KopiaError::Unsupported {
                feature: format!("the compression {id}"),
                detail: format!("{what} is compressed with it"),
            });
        }
    };
    decompressed.map_err(|problem| KopiaError::corrupt(what, format_args!("{id}: {problem}")))
}

fn too_long(limit: usize) -> String {
    format!("it is longer than {limit} bytes")
}

#[cfg(test)]
mod tests;
