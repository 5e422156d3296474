//! Hashing and encryption of contents.
//!
//! A repository has one hash and one encryption, chosen when it was created. The hash is keyed, so names of contents
//! tell nothing to who lacks the key. Every content is encrypted with a key of its own, derived from the key of the
//! repository and from the content's name: [`content_iv`] for what is in packs, [`blob_iv`] for blobs that are encrypted
//! as a whole.

mod cipher;
mod hash;
pub(crate) mod keys;
mod stream;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::blob::BlobId;
use crate::content::Hash;
use crate::error::{KopiaError, KopiaResult};

pub use cipher::ContentCipher;
pub use hash::ContentHasher;
pub use stream::OpenIntoFile;

/// Bytes of a name that take part in encryption.
pub const IV_LENGTH: usize = 16;

/// What of a content's hash takes part in its encryption: the last 16 bytes.
pub fn content_iv(hash: &Hash) -> &[u8] {
    let bytes = hash.as_bytes();
    &bytes[bytes.len().saturating_sub(IV_LENGTH)..]
}

/// What of a blob's name takes part in the encryption of the blob as a whole (indexes, session markers): the 32
/// hexadecimal digits before the first dash.
///
/// # Errors
///
/// [`Corrupt`](KopiaError::Corrupt) if there are no such digits.
pub fn blob_iv(blob: &BlobId) -> KopiaResult<[u8; IV_LENGTH]> {
    let name = blob.as_str();
    let before = name.split_once('-').map_or(name, |(before, _)| before);
    let iv = before
        .len()
        .checked_sub(IV_LENGTH * 2)
        .and_then(|begin| before.as_bytes().get(begin..))
        .and_then(|digits| HEXLOWER_PERMISSIVE.decode(digits).ok())
        .and_then(|bytes| <[u8; IV_LENGTH]>::try_from(bytes).ok());
    iv.ok_or_else(|| KopiaError::corrupt(format_args!("blob {blob}"), "its name holds no hash"))
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use serde_json::Value;

    use super::*;

    /// The input of the golden data.
    fn pattern(length: usize) -> Vec<u8> {
        (0..length)
            .map(|index| u8::try_from((index * 7 + index / 256) % 251).unwrap())
            .collect()
    }

    fn golden(json: &str) -> Vec<Value> {
        serde_json::from_str(json).unwrap()
    }

    fn number(value: &Value) -> usize {
        usize::try_from(value.as_u64().unwrap()).unwrap()
    }

    #[test]
    fn hashes_are_kopias() {
        let mut seen = std::collections::BTreeSet::new();
        for case in golden(include_str!("../../testdata/format/hashes.json")) {
            let algorithm = case["algorithm"].as_str().unwrap();
            let hasher = ContentHasher::new(algorithm, &pattern(number(&case["secret"]))).unwrap();
            let data = pattern(number(&case["length"]));
            let expected = case["hash"].as_str().unwrap();
            assert_eq!(hasher.hash(&data).to_string(), expected, "{case}");
            let many = hasher.hash_many(&[&data, b"", &data]);
            assert_eq!(many[2].to_string(), expected, "{case}");
            seen.insert(algorithm.to_owned());
        }
        assert_eq!(seen.len(), ContentHasher::ALGORITHMS.len());
    }

    #[test]
    fn what_kopia_sealed_opens() {
        let cases = golden(include_str!("../../testdata/format/sealed.json"));
        for case in &cases {
            let cipher = ContentCipher::new(case["algorithm"].as_str().unwrap(), &pattern(32)).unwrap();
            let sealed = BASE64
                .decode(case["sealed"].as_str().unwrap().as_bytes())
                .unwrap();
            let plain = pattern(number(&case["length"]));
            let iv = pattern(16);
            let file = tempfile::tempfile().unwrap();
            let mut streamed = cipher.open_into(&iv, file, "index".as_ref(), "blob");
            streamed.push(&sealed).unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut streamed.finish().unwrap(), &mut content).unwrap();
            assert_eq!(content, plain, "{case}");
            assert_eq!(cipher.open_vec(&iv, sealed, "content").unwrap(), plain, "{case}");
        }
        assert_eq!(cases.len(), 3 * ContentCipher::ALGORITHMS.len());
    }

    #[test]
    fn the_end_of_the_hash_encrypts() {
        let hash = |bytes: &[u8]| Hash::new(bytes).unwrap();
        let long: Vec<u8> = (0..32).collect();
        assert_eq!(content_iv(&hash(&long)), &long[16..]);
        assert_eq!(content_iv(&hash(&long[..16])), &long[..16]);
        assert_eq!(
            content_iv(&hash(&long[..3])),
            &long[..3],
            "a damaged name is no reason to panic"
        );
    }

    #[test]
    fn the_digits_before_the_first_dash_encrypt_a_blob() {
        let iv = |name: &str| blob_iv(&BlobId::from(name));
        let digits = "000102030405060708090a0b0c0d0e0f";
        let expected: Vec<u8> = (0..16).collect();
        assert_eq!(iv(digits).unwrap().as_slice(), expected);
        assert_eq!(
            iv(&format!("xn0_ff{digits}-s01-c1")).unwrap().as_slice(),
            expected
        );
        for wrong in [
            "",
            "-",
            "xn0_",
            &digits[1..],
            &format!("{digits}x"),
            "é0102030405060708090a0b0c0d0e0f",
        ] {
            assert!(iv(wrong).is_err(), "{wrong}");
        }
    }
}
