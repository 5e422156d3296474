use proptest::prelude::*;

use super::*;
use crate::hostile::{self, Bound};

/// Compressible, but not trivially.
fn text(lines: usize) -> Vec<u8> {
    let line = |line| format!("line {} of {}\n", line * 7919 % 1009, line % 13).into_bytes();
    (0..lines).flat_map(line).collect()
}

const WRITABLE: [&str; 4] = [
    "zstd",
    "zstd-fastest",
    "zstd-better-compression",
    "zstd-best-compression",
];

/// What kopia compressed for the golden data: zeros beyond a block of S2, lines, noise.
fn golden_text() -> Vec<u8> {
    let lines = (0..700).flat_map(|line| format!("kopia {} reads {}\n", line % 37, line % 11).into_bytes());
    std::iter::repeat_n(0, 1_200_000)
        .chain(lines)
        .chain(noise(300))
        .collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn what_kopia_compressed_is_read() {
    let golden = include_str!("../../testdata/format/compressed.json");
    let golden: std::collections::BTreeMap<String, String> = serde_json::from_str(golden).unwrap();
    assert_eq!(golden.len(), COMPRESSORS.len());
    let text = golden_text();
    for (name, compressed) in golden {
        let compressed = data_encoding::BASE64.decode(compressed.as_bytes()).unwrap();
        assert_eq!(compressed[..4], by_name(&name).unwrap().0.to_be_bytes());
        let decompressed = decompress(&compressed, text.len(), &name).unwrap();
        assert!(decompressed == text, "{name}");
        assert!(decompressed.capacity() <= text.len(), "{name}");
        assert!(decompress(&compressed, text.len() - 1, &name).is_err(), "{name}");
        // A cut stream is never taken for a whole one, but for the end marks that hold no data.
        let cut = decompress(&compressed[..compressed.len() / 2], text.len(), &name);
        assert!(!matches!(cut, Ok(data) if data.len() == text.len()), "{name}");
    }
}

#[test]
fn what_is_written_is_read() {
    let data = text(5000);
    for name in WRITABLE {
        let id = by_name(name).unwrap();
        let compressed = compress(id, &data).unwrap().unwrap();
        assert!(compressed.len() < data.len() / 2);
        assert_eq!(compressed[..4], id.0.to_be_bytes());
        assert_eq!(decompress(&compressed, data.len(), "content").unwrap(), data);
        let error = decompress(&compressed, data.len() - 1, "content c").unwrap_err();
        assert!(error.to_string().contains("content c"), "{error}");
    }
}

#[test]
fn what_does_not_get_smaller_stays() {
    let noise = noise(100_000);
    for data in [&[][..], &[0; 4], &[0; 5], &[0; 10], &noise] {
        let mut out = b"before".to_vec();
        assert!(!compress_into(HeaderId::ZSTD, data, &mut out).unwrap());
        assert_eq!(out, b"before");
    }
    assert_eq!(compress(HeaderId::NONE, &[0; 1000]).unwrap(), None);
    let mut out = b"before".to_vec();
    assert!(compress_into(HeaderId::ZSTD, &[0; 1000], &mut out).unwrap());
    assert!(out.starts_with(b"before\0\0\x11\0"));
}

#[test]
fn names_and_numbers_belong_together() {
    for (id, name, _) in COMPRESSORS {
        assert_eq!(by_name(name), Some(id));
        assert_eq!(id.name(), Some(name));
        assert_eq!(id.is_writable(), WRITABLE.contains(&name));
    }
    assert_eq!(by_name(""), Some(HeaderId::NONE));
    assert_eq!(by_name("none"), Some(HeaderId::NONE));
    assert_eq!(by_name("zip"), None);
    let error = compress(by_name("s2-default").unwrap(), b"data").unwrap_err();
    assert!(matches!(error, KopiaError::Unsupported { .. }) && error.to_string().contains("s2-default"));
    let error = decompress(&[0, 0, 0x20, 0], 10, "content c").unwrap_err();
    assert!(matches!(error, KopiaError::Unsupported { .. }) && error.to_string().contains("0x2000"));
}

#[test]
fn frames_that_lie_about_their_length_are_refused() {
    let data = text(100);
    let mut compressed = compress(HeaderId::ZSTD, &data).unwrap().unwrap();
    // Two frames after one another are one content.
    let (header, frame) = compressed.split_at(4);
    let twice = [header, frame, frame].concat();
    assert_eq!(decompress(&twice, 2 * data.len(), "").unwrap(), data.repeat(2));
    assert!(decompress(&twice, 2 * data.len() - 1, "").is_err());
    // The declared length follows the magic number and the descriptor.
    compressed[9..11].fill(0xff);
    assert!(decompress(&compressed, 1 << 20, "").is_err());
}

/// A stream of many chunks to skip must not exhaust the stack, nor a long block the memory.
#[test]
fn hostile_s2_streams_are_harmless() {
    let header = HeaderId(0x1200).0.to_be_bytes();
    let begin = *b"\xff\x06\0\0S2sTwO";
    let padding = b"\xfe\0\0\0".repeat(1 << 20);
    let stream = [&header[..], &begin, &padding].concat();
    assert_eq!(decompress(&stream, 10, "").unwrap(), b"");
    let long = b"\0\x0a\0\0\0\0\0\0\xff\xff\xff\x7f\0\0";
    assert!(decompress(&[&header[..], &begin, long].concat(), usize::MAX, "").is_err());
    assert!(decompress(&[&header[..], &long[..]].concat(), usize::MAX, "").is_err());
    assert!(decompress(&header, 10, "").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_data_is_no_reason_to_panic(
        compressor in 0..COMPRESSORS.len(),
        data in proptest::collection::vec(any::<u8>(), 0..300),
        limit in 0_usize..1000,
    ) {
        let header = COMPRESSORS[compressor].0.0.to_be_bytes();
        if let Ok(decompressed) = decompress(&[&header, &data[..]].concat(), limit, "") {
            prop_assert!(decompressed.len() <= limit && decompressed.capacity() <= limit);
        }
    }
}

/// Data compressed by each family, shorter than the golden data, so that many cases are fast.
fn short() -> Vec<Vec<u8>> {
    use std::io::Write as _;

    let text = text(60);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    gzip.write_all(&text).unwrap();
    deflate.write_all(&text).unwrap();
    lz4.write_all(&text).unwrap();
    let zstd = compress(HeaderId::ZSTD, &text).unwrap().unwrap();
    let with = |id: u32, data: Vec<u8>| [&id.to_be_bytes()[..], &data].concat();
    let short = vec![
        with(0x1000, gzip.finish().unwrap()),
        with(0x1500, deflate.finish().unwrap()),
        with(0x1400, lz4.finish().unwrap()),
        zstd,
    ];
    for compressed in &short {
        assert_eq!(decompress(compressed, text.len(), "").unwrap(), text);
    }
    short
}

/// What the decoders themselves take: the longest blocks of LZ4 have 8 MiB, and there are two buffers.
const DECODERS: u64 = 20 << 20;

#[test]
fn hostile_data_is_harmless() {
    const LIMIT: usize = 100_000;
    for golden in short() {
        // The header stays, so that each decoder is known to keep its own bound.
        let (header, golden) = golden.split_first_chunk::<HEADER>().unwrap();
        let lz4 = *header == 0x1400_u32.to_be_bytes();
        let decoders = if lz4 { DECODERS } else { 128 << 10 };
        hostile::check(&[golden], Bound::new(2 * LIMIT as u64 + decoders, 2), |data| {
            if let Ok(decompressed) = decompress(&[header, data].concat(), LIMIT, "") {
                assert!(decompressed.len() <= LIMIT && decompressed.capacity() <= LIMIT);
            }
        });
    }
    // S2 is only read, so there is nothing shorter than kopia's.
    let golden = include_str!("../../testdata/format/compressed.json");
    let golden: std::collections::BTreeMap<String, String> = serde_json::from_str(golden).unwrap();
    for name in ["s2-default", "s2-better"] {
        let golden = data_encoding::BASE64.decode(golden[name].as_bytes()).unwrap();
        let (header, golden) = golden.split_first_chunk::<HEADER>().unwrap();
        let limit = golden_text().len();
        let bound = Bound::new(2 * limit as u64 + (128 << 10), 2);
        hostile::check_few(&[golden], bound, |data| {
            drop(decompress(&[header, data].concat(), limit, ""));
        });
    }
}

/// Little data that would become much takes no more than the limit.
#[test]
fn bombs_take_no_more_than_the_limit() {
    use std::io::Write as _;

    const LIMIT: usize = 1 << 20;
    let zeros = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    gzip.write_all(&zeros).unwrap();
    deflate.write_all(&zeros).unwrap();
    lz4.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap();
    // Two members, of which the first is within the limit.
    let mut first = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    first.write_all(&zeros[..LIMIT]).unwrap();
    let two = [first.finish().unwrap(), gzip.clone()].concat();
    let zstd = compress(HeaderId::ZSTD, &zeros).unwrap().unwrap();
    // A frame of one block that repeats a byte, which says that it has a window of 2 GiB and no length.
    let window = b"\x28\xb5\x2f\xfd\x00\xa8\x03\xff\xff\x00".to_vec();
    // A block of S2 that says it has 4 MiB.
    let s2 = b"\xff\x06\0\0S2sTwO\0\x0a\0\0\0\0\0\0\x80\x80\x80\x02\0\0".to_vec();
    let with = |id: u32, data: &[u8]| [&id.to_be_bytes()[..], data].concat();
    for (name, data) in [
        ("gzip", with(0x1000, &gzip)),
        ("two of gzip", with(0x1000, &two)),
        ("deflate", with(0x1500, &deflate.finish().unwrap())),
        ("lz4", with(0x1400, &lz4.finish().unwrap())),
        ("zstd", zstd),
        ("zstd window", with(0x1100, &window)),
        ("s2", with(0x1200, &s2)),
    ] {
        let mut error = None;
        let most = allocation_counter::measure(|| error = decompress(&data, LIMIT, "").err()).bytes_max;
        let decoder = if name == "lz4" { DECODERS } else { 128 << 10 };
        assert!(most <= 2 * LIMIT as u64 + decoder, "{name}: {most}");
        assert!(error.is_some(), "{name}");
    }
}
