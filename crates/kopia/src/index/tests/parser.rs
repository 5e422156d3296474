//! Indexes that are not what they ought to be.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{IndexBuilder, IndexFile};
use super::{any_content, content};
use crate::blob::BlobId;
use crate::content::{ContentInfo, Hash};
use crate::error::{KopiaError, KopiaResult};
use crate::hostile::{self, Bound};

fn read(bytes: &[u8]) -> KopiaResult<Vec<ContentInfo>> {
    IndexFile::parse(bytes, "xn0_00", 28)?.contents().collect()
}

fn build(count: u32, version: u8) -> Vec<u8> {
    let contents: IndexBuilder = (0..count).map(|n| content(n, 3)).collect();
    contents.build(version).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read(contents in vec(any_content(), 1..60)) {
        let built: IndexBuilder = contents.into_iter().collect();
        let bytes = built.build(2).unwrap();
        let expected: Vec<_> = built.contents().cloned().collect();
        prop_assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn version_1_keeps_what_it_can(contents in vec(any_content(), 0..60)) {
        let built: IndexBuilder = contents
            .into_iter()
            .map(|info| ContentInfo {
                original_length: info.packed_length - 28,
                compression: crate::compression::HeaderId::NONE,
                encryption_key: 0,
                ..info
            })
            .collect();
        let bytes = built.build(1).unwrap();
        let expected: Vec<_> = built.contents().cloned().collect();
        prop_assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn any_bytes_are_an_index_or_an_error(mut bytes in vec(any::<u8>(), 0..400), version in 1_u8..3) {
        let _ = read(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn any_changed_byte_gives_an_index_or_an_error(version in 1_u8..3, at in any::<Index>(), byte in any::<u8>()) {
        let mut bytes = build(20, version);
        *at.get_mut(&mut bytes) = byte;
        if let Ok(contents) = read(&bytes) {
            prop_assert!(contents.is_sorted_by(|a, b| a.id < b.id));
        }
    }

    #[test]
    fn a_part_of_an_index_is_damaged(version in 1_u8..3, at in any::<Index>()) {
        let bytes = build(20, version);
        let part = &bytes[..at.index(bytes.len())];
        let is_damaged = matches!(read(part), Err(KopiaError::Corrupt { .. }));
        prop_assert!(is_damaged);
    }
}

/// Errors name the index.
#[track_caller]
fn assert_damaged(bytes: &[u8], problem: &str) {
    let error = read(bytes).unwrap_err().to_string();
    assert!(
        error.contains("index xn0_00 is damaged") && error.contains(problem),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_said() {
    for (version, header) in [(1, 8), (2, 17)] {
        let bytes = build(4, version);
        let stride = if version == 1 { 37 } else { 33 };
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            bytes
        };
        assert_damaged(&bytes[..7], "shorter than a header");
        assert_damaged(&with(&|b| b[1] = 1), "size of its keys");
        assert_damaged(&with(&|b| b[1] = 34), "size of its keys");
        assert_damaged(&with(&|b| b[3] = 15), "size of its values");
        assert_damaged(&with(&|b| b[4] = 0xff), "shorter than its entries");
        assert_damaged(&with(&|b| b[header] = b'f'), "of no content");
        assert_damaged(&with(&|b| b[header] = b'z'), "not in order");
        assert_damaged(
            &with(&|b| b.copy_within(header + stride..header + 2 * stride, header)),
            "not in order",
        );
        assert_damaged(&with(&|b| *b.last_mut().unwrap() = b'/'), "a pack has no name");
    }
    let two = build(4, 2);
    assert_damaged(&two[..16], "shorter than a header");
    let mut no_pack = two.clone();
    no_pack[17 + 17 + 15] = 9;
    assert_damaged(&no_pack, "of no pack");
    let mut short = build(1, 1);
    let at = 8 + 17 + 16;
    short[at..at + 4].copy_from_slice(&27_u32.to_be_bytes());
    assert_damaged(&short, "shorter than its encryption");
    let mut new = two;
    new[0] = 3;
    assert!(matches!(read(&new), Err(KopiaError::Unsupported { .. })));
}

#[test]
fn an_index_may_be_empty() {
    // kopia writes a key size of 255 then.
    let bytes = IndexBuilder::new().build(1).unwrap();
    assert_eq!(bytes, [1, 255, 0, 20, 0, 0, 0, 0]);
    assert!(read(&bytes).unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |version: u8, change: fn(&mut ContentInfo)| {
        let mut info = content(1, 1);
        change(&mut info);
        let contents: IndexBuilder = [info, content(2, 1)].into_iter().collect();
        matches!(contents.build(version), Err(KopiaError::Argument { .. }))
    };
    for version in [1, 2] {
        assert!(!refused(version, |_| {}));
        assert!(refused(version, |info| info.pack = BlobId::from("")));
        assert!(refused(version, |info| info.pack = BlobId::from("p".repeat(256))));
        assert!(refused(version, |info| info.offset = 1 << 30));
        assert!(refused(version, |info| info.timestamp = -1));
        assert!(refused(version, |info| info.timestamp = 1 << 32));
        assert!(refused(version, |info| {
            info.id = crate::content::ContentId::new(None, Hash::new(&[1; 32]).unwrap());
        }));
    }
    assert!(refused(1, |info| info.compression = crate::compression::HeaderId::ZSTD));
    assert!(refused(1, |info| info.encryption_key = 1));
    assert!(refused(2, |info| info.packed_length = 1 << 28));
    assert!(refused(2, |info| info.original_length = 1 << 28));
    assert!(IndexBuilder::new().build(2).is_err());
    assert!(matches!(
        [content(1, 1)].into_iter().collect::<IndexBuilder>().build(3),
        Err(KopiaError::Unsupported { .. })
    ));
}

#[test]
fn hostile_indexes_are_harmless() {
    let golden = [
        &include_bytes!("../../../testdata/index/v1")[..],
        include_bytes!("../../../testdata/index/v2"),
        include_bytes!("../../../testdata/index/v2-formats"),
        include_bytes!("../../../testdata/index/v2-long"),
    ];
    // Read in order, in windows of 64 KiB: one for entries, two for names of packs.
    hostile::check(&golden, Bound::new(16 << 10, 8), |bytes| {
        let Ok(index) = IndexFile::parse(bytes, "xn0_00", 28) else {
            return;
        };
        for info in index.contents() {
            drop(info);
        }
        let mut names = index.pack_names();
        drop(names.longest());
        for number in 0..index.pack_count().min(100) {
            let _ = names.get(number);
        }
    });
}
