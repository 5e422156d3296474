//! Indexes that kopia wrote.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::super::{IndexBuilder, IndexFile};
use super::content;
use crate::compression::HeaderId;
use crate::content::ContentInfo;

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/index/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// kopia's index has these contents, and ours with these contents is the same, byte for byte.
fn same(name: &str, version: u8, contents: &[ContentInfo]) {
    let golden = golden(name);
    let built: IndexBuilder = contents.iter().cloned().collect();
    assert_eq!(built.build(version).unwrap(), golden, "{name}");
    let index = IndexFile::parse(&golden, name, 28).unwrap();
    let read: Vec<_> = index.contents().collect::<Result<_, _>>().unwrap();
    assert_eq!(read, built.contents().cloned().collect::<Vec<_>>(), "{name}");
    assert_eq!(index.len() as usize, contents.len());
}

#[test]
fn kopias_indexes_are_read_and_written() {
    let plain: Vec<_> = (0..100).map(|n| content(n, 10)).collect();
    same("v1", 1, &plain);
    same("v2", 2, &plain);

    let mut formats = plain.clone();
    for info in formats.iter_mut().step_by(3) {
        info.compression = HeaderId::ZSTD;
        info.original_length += 5000;
    }
    same("v2-formats", 2, &formats);

    let mut long = plain;
    for info in &mut long {
        info.timestamp += 1000;
        info.packed_length += 1 << 24;
        info.original_length += 3 << 24;
    }
    same("v2-long", 2, &long);
}

#[test]
fn random_bytes_at_the_end_do_not_count() {
    let mut bytes = golden("v2");
    bytes.extend([0xa5; 32]);
    let index = IndexFile::parse(&bytes, "v2", 28).unwrap();
    assert_eq!(index.contents().flatten().count(), 100);
}

#[test]
fn shards_are_those_of_kopia() {
    let built: IndexBuilder = (0..100).map(|n| content(n, 10)).collect();
    let digests = |shards: Vec<Vec<u8>>| -> Vec<String> {
        shards
            .iter()
            .map(|shard| HEXLOWER.encode(&Sha256::digest(shard)))
            .collect()
    };
    assert_eq!(
        digests(built.shards_of(2, 30).unwrap()),
        [
            "6dfe43a0637f2578deabeb0db68f8ef75af53d5b4750a456e4574d47ff500810",
            "33682c57f4fddaac764541ae61c59ed5d98c12bd131c2ad4e4981703cb555840",
            "5b328dfc95b6f199f83432e1b43f0a2f361f1018313af5ad6b6d008a572f0d81",
            "f22b2868bcecebffc3f9de3752a046ed31280eb427953030277ff29d2d95063d",
        ]
    );

    // More packs than two bytes can number.
    let built: IndexBuilder = (0..70_000).map(|n| content(n, 1)).collect();
    let shards = built.shards(2).unwrap();
    let index = IndexFile::parse(&shards[0], "packs", 28).unwrap();
    assert!(index.contents().map(Result::unwrap).eq(built.contents().cloned()));
    assert_eq!(
        digests(shards),
        ["da5fc79dc63eb3ea8dac5150274cccb6c94e6b67ef92c3b5c1143e3efd0a748d"]
    );
    assert!(IndexBuilder::new().shards(2).unwrap().is_empty());
}
