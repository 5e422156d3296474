use proptest::prelude::*;

use super::*;

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
