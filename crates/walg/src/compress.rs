//! Compression in the formats that wal-g reads.
//!
//! A stream is cut into units of [`UNIT_BYTES`] that are compressed independently, on all cores, and put together
//! again: as the blocks of one LZ4 frame, or as Zstandard frames one after the other. Both carry checksums of the
//! content. LZ4's blocks carry none: the library of wal-g computes those over other bytes than the format says.

use std::hash::Hasher;
use std::io::{self, Read};
use std::str::FromStr;

use lz4_flex::block::{compress_into, get_maximum_output_size};
use twox_hash::XxHash32;

/// Bytes that are compressed at a time.
pub const UNIT_BYTES: usize = 1 << 20;

/// A frame of no data: magic number, a descriptor that says "one segment, with checksum", size 0, one last block of size 0, checksum (RFC 8878,
/// section 3.1).
const EMPTY_ZSTD_FRAME: [u8; 13] = [
    0x28, 0xB5, 0x2F, 0xFD, 0x24, 0x00, 0x01, 0x00, 0x00, 0x99, 0xE9, 0xD8, 0x51,
];

/// A compression, `WALG_COMPRESSION_METHOD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// LZ4 frames, wal-g's default: cheap.
    #[default]
    Lz4,
    /// Zstandard: smaller.
    Zstd {
        /// 1 to 19.
        level: i32,
    },
    /// As it is.
    None,
}

/// A compression that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compression \"{0}\" is not supported; lz4, zstd and none are")]
pub struct UnknownCodec(String);

impl Codec {
    /// Zstandard of this level, brought into its range.
    pub fn zstd(level: i32) -> Self {
        Self::Zstd {
            level: level.clamp(1, 19),
        }
    }

    /// The extension that wal-g gives to objects, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd { .. } => "zst",
            Self::None => "",
        }
    }

    /// The compression of an object, by what follows `stem` in its name.
    pub fn of_object(key: &str, stem: &str) -> Result<Self, UnknownCodec> {
        let rest = key.rsplit('/').next().unwrap_or(key);
        let rest = rest.strip_prefix(stem).unwrap_or(rest);
        match rest.strip_prefix('.').unwrap_or(rest) {
            "" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zst" => Ok(Self::zstd(3)),
            other => Err(UnknownCodec(other.to_owned())),
        }
    }

    /// What a compressed stream begins with.
    pub(crate) fn header(self) -> Vec<u8> {
        match self {
            Self::Lz4 => {
                // Version 1, independent blocks, a checksum of the content; blocks of at most 1 MiB.
                let descriptor = [0b0110_0100, 0b0110_0000];
                let check = XxHash32::oneshot(0, &descriptor).to_le_bytes()[1];
                let mut header = vec![0x04, 0x22, 0x4D, 0x18];
                header.extend(descriptor);
                header.push(check);
                header
            }
            Self::Zstd { .. } | Self::None => Vec::new(),
        }
    }

    /// What a compressed stream of this content ends with.
    pub(crate) fn trailer(self, content: &ContentHash) -> Vec<u8> {
        match self {
            Self::Lz4 => {
                let mut trailer = vec![0; 4];
                trailer.extend(content.hash.finish_32().to_le_bytes());
                trailer
            }
            // No frame at all is not a Zstandard stream.
            Self::Zstd { .. } if content.is_empty => EMPTY_ZSTD_FRAME.to_vec(),
            Self::Zstd { .. } | Self::None => Vec::new(),
        }
    }

    /// Compresses one unit of at most [`UNIT_BYTES`].
    pub(crate) fn compress(self, data: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(data),
            Self::Lz4 => Ok(lz4_block(&data)),
            Self::Zstd { level } => {
                let mut encoder = zstd::bulk::Compressor::new(level)?;
                encoder.include_checksum(true)?;
                let mut packed = encoder.compress(&data)?;
                packed.shrink_to_fit();
                Ok(packed)
            }
        }
    }

    /// A reader of what `source` compressed holds.
    pub(crate) fn reader<'a>(self, source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(source),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(source)),
            Self::Zstd { .. } => Box::new(zstd::stream::read::Decoder::new(source)?),
        })
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    /// Reads a method, or a method and a level: `lz4`, `zstd`, `zstd:9`, `none`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownCodec(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "lz4" => Ok(Self::Lz4),
                "zstd" => Ok(Self::zstd(3)),
                "none" => Ok(Self::None),
                _ => Err(unknown()),
            },
            Some(("zstd", level)) => {
                let level = level.parse().map_err(|_| unknown())?;
                (1..=19)
                    .contains(&level)
                    .then(|| Self::zstd(level))
                    .ok_or_else(unknown)
            }
            Some(_) => Err(unknown()),
        }
    }
}

/// What is known of everything that went into a stream.
#[derive(Clone, Debug)]
pub(crate) struct ContentHash {
    hash: XxHash32,
    is_empty: bool,
}

impl ContentHash {
    pub(crate) fn new() -> Self {
        Self {
            hash: XxHash32::with_seed(0),
            is_empty: true,
        }
    }

    /// Adds the next unit.
    pub(crate) fn add(&mut self, codec: Codec, data: &[u8]) {
        self.is_empty = false;
        if codec == Codec::Lz4 {
            self.hash.write(data);
        }
    }
}

/// One block of an LZ4 frame: length and data.
fn lz4_block(data: &[u8]) -> Vec<u8> {
    const STORED: u32 = 1 << 31;
    let mut block = vec![0; 4 + get_maximum_output_size(data.len())];
    let packed = compress_into(data, &mut block[4..])
        .ok()
        .filter(|&length| length < data.len());
    let length = packed.unwrap_or(data.len());
    if packed.is_none() {
        block[4..4 + length].copy_from_slice(data);
    }
    // A unit has at most 2^20 bytes.
    #[expect(clippy::cast_possible_truncation, reason = "at most UNIT_BYTES")]
    let word = if packed.is_some() {
        length as u32
    } else {
        length as u32 | STORED
    };
    block[..4].copy_from_slice(&word.to_le_bytes());
    block.truncate(4 + length);
    block.shrink_to_fit();
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(codec: Codec, data: &[u8]) -> Vec<u8> {
        let mut packed = codec.header();
        let mut content = ContentHash::new();
        for unit in data.chunks(UNIT_BYTES) {
            content.add(codec, unit);
            packed.extend(codec.compress(unit.to_vec()).unwrap());
        }
        packed.extend(codec.trailer(&content));
        packed
    }

    fn unpack(codec: Codec, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        codec.reader(packed)?.read_to_end(&mut data)?;
        Ok(data)
    }

    #[test]
    fn methods_are_read_as_written() {
        assert_eq!("zstd:9".parse(), Ok(Codec::zstd(9)));
        for wrong in ["", "brotli", "zstd:99", "lz4:1", "LZ4"] {
            assert!(wrong.parse::<Codec>().is_err(), "{wrong}");
        }
        assert_eq!(
            Codec::of_object("a/part_001.tar.zst", "part_001.tar"),
            Ok(Codec::zstd(3))
        );
        assert_eq!(
            Codec::of_object("a/part_001.tar", "part_001.tar"),
            Ok(Codec::None)
        );
        let error = Codec::of_object("a/part_001.tar.br", "part_001.tar").unwrap_err();
        assert_eq!(
            error.to_string(),
            "compression \"br\" is not supported; lz4, zstd and none are"
        );
    }

    #[test]
    fn several_units_make_one_stream() {
        let mut data = vec![7; 2 * UNIT_BYTES + 5];
        // A part that does not shrink.
        let mut state = 1_u32;
        for byte in &mut data[..UNIT_BYTES] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for codec in [Codec::Lz4, Codec::zstd(1), Codec::None] {
            assert_eq!(unpack(codec, &pack(codec, &data)).unwrap(), data, "{codec:?}");
        }
    }

    #[test]
    fn nothing_is_a_stream_too() {
        for codec in [Codec::Lz4, Codec::zstd(3), Codec::None] {
            assert_eq!(unpack(codec, &pack(codec, b"")).unwrap(), b"", "{codec:?}");
        }
        assert_eq!(Codec::zstd(1).compress(Vec::new()).unwrap(), EMPTY_ZSTD_FRAME);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        for codec in [Codec::Lz4, Codec::zstd(1)] {
            let mut packed = pack(codec, b"some text that is long enough, long enough, long enough");
            let middle = packed.len() / 2;
            packed[middle] ^= 1;
            assert!(unpack(codec, &packed).is_err(), "{codec:?}");
        }
    }

    proptest! {
        #[test]
        fn everything_comes_back(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for codec in [Codec::Lz4, Codec::zstd(3), Codec::None] {
                prop_assert_eq!(&unpack(codec, &pack(codec, &data)).unwrap(), &data);
            }
        }
    }
}
