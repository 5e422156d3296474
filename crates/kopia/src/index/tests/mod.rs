//! Tests of indexes, and the contents they are about.

mod committed;
mod golden;
mod parser;
mod runs;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::blob::BlobId;
use crate::compression::HeaderId;
use crate::content::{ContentId, ContentInfo, Hash, Prefix};

/// Content number `n` of the golden indexes; `testdata/index/README.md` says how those were made.
pub(super) fn content(n: u32, per_pack: u32) -> ContentInfo {
    let digest = |text: String| Sha256::digest(text.as_bytes());
    let prefix = match n {
        n if n.is_multiple_of(5) => Some(Prefix::DIRECTORY),
        n if n.is_multiple_of(7) => Some(Prefix::MANIFEST),
        _ => None,
    };
    let hash = Hash::new(&digest(format!("content {n}"))[..16]).unwrap();
    let pack = Hash::new(&digest(format!("pack {}", n / per_pack))[..16]).unwrap();
    ContentInfo {
        id: ContentId::new(prefix, hash),
        pack: BlobId::from(format!("p{pack}-s0123456789abcdef1")),
        offset: n * 1000,
        packed_length: n * 7 + 100,
        original_length: n * 7 + 72,
        compression: HeaderId::NONE,
        format_version: 1,
        encryption_key: 0,
        timestamp: 1_700_000_000 + i64::from(n),
        deleted: n.is_multiple_of(11),
    }
}

/// Any content that version 2 can have, out of a few ids and packs so that they meet.
pub(super) fn any_content() -> impl Strategy<Value = ContentInfo> {
    let prefix = prop_oneof![Just(None), Just(Prefix::new(b'g')), Just(Prefix::new(b'z'))];
    let id = (prefix, 0_u8..20, 0_u8..3).prop_map(|(prefix, first, last)| {
        let mut hash = [7; 16];
        // Contents that differ late share the eight bytes that runs keep in memory.
        (hash[0], hash[15]) = (first, last);
        ContentId::new(prefix, Hash::new(&hash).unwrap())
    });
    let pack = prop_oneof![
        9 => (0_u8..5).prop_map(|pack| format!("p{pack}")),
        1 => (60_usize..=255).prop_map(|length| "q".repeat(length)),
    ];
    (id, pack, 1000_i64..1004, any::<bool>()).prop_map(|(id, pack, timestamp, deleted)| {
        // All else follows from these: kopia leaves open which of two entries counts that differ in nothing else.
        let seed = Sha256::digest(format!("{id} {pack} {timestamp} {deleted}"));
        let number = |at: usize| u32::from_le_bytes(seed[at..at + 4].try_into().unwrap());
        ContentInfo {
            id,
            pack: pack.into(),
            offset: number(0) >> 2,
            packed_length: (number(4) >> 4).max(28),
            original_length: number(8) >> 4,
            compression: HeaderId(number(12) % 3),
            format_version: 1 + seed[16] % 3,
            encryption_key: seed[17] % 2,
            timestamp,
            deleted,
        }
    })
}
