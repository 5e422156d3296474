//! Recovery data: each pack ends with an index of its own contents, so that indexes can be made anew from packs alone.
//!
//! After the contents and a random padding to a multiple of 4 KiB come the encrypted index (with 32 random bytes behind
//! it) and the *postamble*: the varints 1, length of the IV, the IV, offset and length of the encrypted index; a CRC-32
//! of those, big-endian; and one byte, the length of the postamble without it. The IV is the whole hash of the index.

use bytes::Bytes;

use crate::blob::{BlobId, BlobStorage};
use crate::content::{ContentInfo, Hash};
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;
use crate::index::{IndexBuilder, IndexFile};

/// What the random bytes behind an index count.
const INDEX_SUFFIX: usize = 32;
/// The only version of the postamble.
const VERSION: u64 = 1;
/// CRC and length of a postamble.
const TRAILER: usize = 4;
/// The end of a pack that is read first; most indexes of packs are in it.
const FIRST_READ: u64 = 64 * 1024;
/// No index of a pack is longer: it would be of more than a million contents.
const MAX_INDEX: u64 = 64 << 20;

/// The encrypted index of a pack, and the postamble that leads to it.
///
/// `offset` is where the index begins in the pack.
pub(crate) fn seal_recovery_data(
    format: &RepositoryFormat,
    contents: impl IntoIterator<Item = ContentInfo>,
    random: [u8; INDEX_SUFFIX],
    offset: u32,
) -> KopiaResult<Vec<u8>> {
    let mut builder = IndexBuilder::new();
    builder.extend(contents);
    let mut data = builder.build(format.index_version)?;
    drop(builder);
    data.extend(random);
    let hash = format.hasher.hash(&data);
    let iv = recovery_iv(&hash);
    format.cipher.seal(iv, &mut data)?;
    let length = u32::try_from(data.len()).map_err(|_| KopiaError::Argument {
        name: "pack",
        problem: "its index is too long".into(),
    })?;
    data.extend(encode_postamble(&Postamble {
        iv: hash,
        offset,
        length,
    }));
    Ok(data)
}

/// What leads to the index of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Postamble {
    iv: Hash,
    offset: u32,
    length: u32,
}

fn encode_postamble(postamble: &Postamble) -> Vec<u8> {
    let iv = postamble.iv.as_bytes();
    let mut out = Vec::with_capacity(64);
    put_varint(&mut out, VERSION);
    put_varint(&mut out, iv.len() as u64);
    out.extend(iv);
    put_varint(&mut out, u64::from(postamble.offset));
    put_varint(&mut out, u64::from(postamble.length));
    out.extend(crc32(&out).to_be_bytes());
    // At most 1 + 1 + 32 + 5 + 5 + 4 bytes.
    out.push(u8::try_from(out.len()).unwrap_or(u8::MAX));
    out
}

/// The postamble at the end of `tail`, if there is one.
fn find_postamble(tail: &[u8]) -> Option<Postamble> {
    let (length, rest) = tail.split_last()?;
    let begin = rest.len().checked_sub(usize::from(*length))?;
    let (payload, crc) = rest[begin..].split_last_chunk::<TRAILER>()?;
    if crc32(payload) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut payload = payload;
    if take_varint(&mut payload)? != VERSION {
        return None;
    }
    let length = usize::try_from(take_varint(&mut payload)?).ok()?;
    let iv = Hash::new(payload.split_off(..length)?)?;
    let offset = u32::try_from(take_varint(&mut payload)?).ok()?;
    let length = u32::try_from(take_varint(&mut payload)?).ok()?;
    Some(Postamble { iv, offset, length })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take_varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *data.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

/// The contents of a pack, read from the pack itself.
///
/// `size` is that of the blob, in bytes.
///
/// # Errors
///
/// [`Corrupt`](KopiaError::Corrupt) if the pack has no recovery data, or wrong ones; those of the storage.
pub async fn read_recovery_data(
    storage: &dyn BlobStorage,
    format: &RepositoryFormat,
    pack: &BlobId,
    size: u64,
) -> KopiaResult<Vec<ContentInfo>> {
    let wrong = |problem: &str| KopiaError::corrupt(format_args!("pack {pack}"), problem);
    let begin = size.saturating_sub(FIRST_READ);
    let tail = storage.get_range(pack, begin, size - begin).await?;
    let postamble = find_postamble(&tail).ok_or_else(|| wrong("it does not end with recovery data"))?;
    let (offset, length) = (u64::from(postamble.offset), u64::from(postamble.length));
    if offset + length > size || length > MAX_INDEX {
        return Err(wrong("its recovery data point outside of it"));
    }
    let sealed: Bytes = match offset.checked_sub(begin).and_then(|at| usize::try_from(at).ok()) {
        Some(at) => tail.slice(at..at + usize::try_from(length).unwrap_or_default()),
        None => storage.get_range(pack, offset, length).await?,
    };
    let what = format!("index in pack {pack}");
    let data = format
        .cipher
        .open_vec(recovery_iv(&postamble.iv), sealed.into(), &what)?;
    let overhead = u32::try_from(format.cipher.overhead()).unwrap_or_default();
    let index = IndexFile::parse(&data, &what, overhead)?;
    index.contents().collect()
}

/// What of the hash of the index encrypts it: all of it, other than for contents and blobs.
fn recovery_iv(hash: &Hash) -> &[u8] {
    hash.as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile::{self, Bound};

    #[test]
    fn a_postamble_is_found_again() {
        for (iv, offset, length) in [
            (&[7; 16][..], 0, 0),
            (&[9; 32], u32::MAX, 127),
            (&[], 128, u32::MAX),
        ] {
            let iv = Hash::new(iv).unwrap();
            let postamble = Postamble { iv, offset, length };
            let mut pack = vec![1, 2, 3];
            pack.extend(encode_postamble(&postamble));
            assert_eq!(find_postamble(&pack).unwrap(), postamble);
            for at in 3..pack.len() {
                let mut damaged = pack.clone();
                damaged[at] ^= 1;
                assert_eq!(find_postamble(&damaged), None, "{at}");
            }
            assert_eq!(find_postamble(&pack[4..]), None);
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_the_end_of_a_pack(mut tail in proptest::collection::vec(any::<u8>(), 0..100), right in any::<bool>()) {
            if right {
                // Arbitrary bytes with a valid checksum reach the fields.
                tail.extend(crc32(&tail).to_be_bytes());
                tail.push(u8::try_from(tail.len()).unwrap());
            }
            let _ = find_postamble(&tail);
        }

        #[test]
        fn varints_are_read_as_they_are_written(value in any::<u64>(), more in any::<u8>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out.push(more);
            let mut rest = &out[..];
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert_eq!(rest, &[more][..]);
        }
    }

    #[test]
    fn hostile_ends_of_packs_are_harmless() {
        let iv = Hash::new(&[7; 32]).unwrap();
        let postamble = Postamble {
            iv,
            offset: 5_000_000,
            length: 70_000,
        };
        let golden = [&[9; 100], &encode_postamble(&postamble)[..]].concat();
        hostile::check(&[&golden], Bound::new(1024, 1), |tail| {
            find_postamble(tail);
            // With a valid checksum and length the fields are reached.
            let Some((payload, _)) = tail.split_last_chunk::<5>() else {
                return;
            };
            let payload = &payload[payload.len().saturating_sub(200)..];
            let mut right = payload.to_vec();
            right.extend(crc32(payload).to_be_bytes());
            right.push(u8::try_from(right.len()).unwrap());
            find_postamble(&right);
        });
    }
}
