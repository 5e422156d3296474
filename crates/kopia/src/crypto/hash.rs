//! The keyed hashes that name contents.

use std::fmt;

use blake2b_simd::many as blake2b_many;
use blake2s_simd::many as blake2s_many;
use hmac::Mac;
use ring::hmac as ring_hmac;

use crate::content::Hash;
use crate::error::{KopiaError, KopiaResult};

type HmacSha224 = hmac::Hmac<sha2::Sha224>;
type HmacSha3_224 = hmac::Hmac<sha3::Sha3_224>;
type HmacSha3_256 = hmac::Hmac<sha3::Sha3_256>;

/// What kopia derives a BLAKE3 key with if the secret is shorter than such a key.
const BLAKE3_CONTEXT: &str = "kopia blake3 derived key v1";

/// The longest hash of each algorithm is cut to this many bytes.
const SHORT: usize = 16;

/// The hash function of a repository, with its key.
pub struct ContentHasher {
    algorithm: &'static str,
    length: usize,
    keyed: Keyed,
}

enum Keyed {
    Blake2b(Box<blake2b_simd::Params>),
    Blake2s(Box<blake2s_simd::Params>),
    Blake3([u8; blake3::KEY_LEN]),
    HmacSha256(ring_hmac::Key),
    HmacSha224(Box<HmacSha224>),
    HmacSha3_224(Box<HmacSha3_224>),
    HmacSha3_256(Box<HmacSha3_256>),
}

impl ContentHasher {
    /// kopia's default algorithm.
    pub const DEFAULT: &str = "BLAKE2B-256-128";

    /// Every algorithm, by kopia's names.
    pub const ALGORITHMS: [&str; 11] = [
        Self::DEFAULT,
        "BLAKE2B-256",
        "BLAKE2S-128",
        "BLAKE2S-256",
        "BLAKE3-256",
        "BLAKE3-256-128",
        "HMAC-SHA256",
        "HMAC-SHA256-128",
        "HMAC-SHA224",
        "HMAC-SHA3-224",
        "HMAC-SHA3-256",
    ];

    /// The hash of this name, keyed with the repository's secret, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](KopiaError::Unsupported) if kopia has no such hash, [`Corrupt`](KopiaError::Corrupt) if the secret
    /// does not fit it.
    pub fn new(algorithm: &str, secret: &[u8]) -> KopiaResult<Self> {
        let Some(algorithm) = Self::ALGORITHMS.into_iter().find(|known| *known == algorithm) else {
            return Err(KopiaError::Unsupported {
                feature: format!("the hash {algorithm:?}"),
                detail: "kopia has no such hash".into(),
            });
        };
        let fitting = |fits: bool| {
            let problem = format_args!(
                "its secret of {} bytes does not fit the hash {algorithm}",
                secret.len()
            );
            fits.then_some(())
                .ok_or_else(|| KopiaError::corrupt("the repository's format", problem))
        };
        let (length, keyed) = match algorithm {
            "BLAKE2B-256" | "BLAKE2B-256-128" => {
                fitting(secret.len() <= blake2b_simd::KEYBYTES)?;
                let mut parameters = blake2b_simd::Params::new();
                parameters.hash_length(32).key(secret);
                let length = if algorithm == "BLAKE2B-256" { 32 } else { SHORT };
                (length, Keyed::Blake2b(Box::new(parameters)))
            }
            "BLAKE2S-256" | "BLAKE2S-128" => {
                let length = if algorithm == "BLAKE2S-256" { 32 } else { SHORT };
                // The short one is another function, not the other cut off, and Go's needs a key.
                fitting(secret.len() <= blake2s_simd::KEYBYTES && (length == 32 || !secret.is_empty()))?;
                let mut parameters = blake2s_simd::Params::new();
                parameters.hash_length(length).key(secret);
                (length, Keyed::Blake2s(Box::new(parameters)))
            }
            "BLAKE3-256" => (32, Keyed::Blake3(blake3_key(secret))),
            "BLAKE3-256-128" => (SHORT, Keyed::Blake3(blake3_key(secret))),
            "HMAC-SHA256" => (32, hmac_sha256(secret)),
            "HMAC-SHA256-128" => (SHORT, hmac_sha256(secret)),
            "HMAC-SHA224" => (28, Keyed::HmacSha224(Box::new(hmac_of(secret)?))),
            "HMAC-SHA3-224" => (28, Keyed::HmacSha3_224(Box::new(hmac_of(secret)?))),
            // HMAC-SHA3-256, the last of the list.
            _ => (32, Keyed::HmacSha3_256(Box::new(hmac_of(secret)?))),
        };
        Ok(Self {
            algorithm,
            length,
            keyed,
        })
    }

    /// kopia's name of the algorithm.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// Bytes of a hash: 16, 28 or 32.
    pub fn hash_len(&self) -> usize {
        self.length
    }

    /// Hashes one piece of data.
    pub fn hash(&self, data: &[u8]) -> Hash {
        match &self.keyed {
            Keyed::Blake2b(parameters) => self.cut(parameters.hash(data).as_bytes()),
            Keyed::Blake2s(parameters) => self.cut(parameters.hash(data).as_bytes()),
            Keyed::Blake3(key) => self.cut(blake3::keyed_hash(key, data).as_bytes()),
            Keyed::HmacSha256(key) => self.cut(ring_hmac::sign(key, data).as_ref()),
            Keyed::HmacSha224(keyed) => self.cut(&mac(keyed.as_ref(), data)),
            Keyed::HmacSha3_224(keyed) => self.cut(&mac(keyed.as_ref(), data)),
            Keyed::HmacSha3_256(keyed) => self.cut(&mac(keyed.as_ref(), data)),
        }
    }

    /// Hashes many pieces of data at once, in their order. BLAKE2 hashes as many of them side by side as the machine has
    /// lanes ([`lanes`](Self::lanes)), which costs little more than one; it is best if their lengths are similar.
    pub fn hash_many(&self, data: &[&[u8]]) -> Vec<Hash> {
        match &self.keyed {
            Keyed::Blake2b(parameters) if data.len() > 1 => {
                let jobs = data
                    .iter()
                    .map(|data| blake2b_many::HashManyJob::new(parameters, data));
                let mut jobs: Vec<_> = jobs.collect();
                blake2b_many::hash_many(&mut jobs);
                jobs.iter()
                    .map(|job| self.cut(job.to_hash().as_bytes()))
                    .collect()
            }
            Keyed::Blake2s(parameters) if data.len() > 1 => {
                let jobs = data
                    .iter()
                    .map(|data| blake2s_many::HashManyJob::new(parameters, data));
                let mut jobs: Vec<_> = jobs.collect();
                blake2s_many::hash_many(&mut jobs);
                jobs.iter()
                    .map(|job| self.cut(job.to_hash().as_bytes()))
                    .collect()
            }
            _ => data.iter().map(|data| self.hash(data)).collect(),
        }
    }

    /// How many pieces [`hash_many`](Self::hash_many) hashes side by side; 1 if that gains nothing.
    pub fn lanes(&self) -> usize {
        match &self.keyed {
            Keyed::Blake2b(_) => blake2b_many::degree(),
            Keyed::Blake2s(_) => blake2s_many::degree(),
            _ => 1,
        }
    }

    fn cut(&self, digest: &[u8]) -> Hash {
        Hash::truncate(digest, self.length)
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContentHasher").field(&self.algorithm).finish()
    }
}

fn blake3_key(secret: &[u8]) -> [u8; blake3::KEY_LEN] {
    match secret.first_chunk() {
        Some(key) => *key,
        None => blake3::derive_key(BLAKE3_CONTEXT, secret),
    }
}

fn hmac_sha256(secret: &[u8]) -> Keyed {
    Keyed::HmacSha256(ring_hmac::Key::new(ring_hmac::HMAC_SHA256, secret))
}

fn hmac_of<M: hmac::digest::KeyInit>(secret: &[u8]) -> KopiaResult<M> {
    M::new_from_slice(secret).map_err(|error| KopiaError::corrupt("the secret of the repository", error))
}

fn mac<M: Mac + Clone>(keyed: &M, data: &[u8]) -> hmac::digest::Output<M> {
    let mut mac = keyed.clone();
    mac.update(data);
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_hashed_like_each() {
        let data: Vec<u8> = (0..=u8::MAX).cycle().take(3000).collect();
        let lengths = [0, 1, 64, 127, 128, 129, 1024, 3000, 2, 5];
        let pieces: Vec<&[u8]> = lengths.iter().map(|length| &data[..*length]).collect();
        for algorithm in ContentHasher::ALGORITHMS {
            let hasher = ContentHasher::new(algorithm, &data[..32]).unwrap();
            for count in 0..=pieces.len() {
                let each: Vec<Hash> = pieces[..count].iter().map(|piece| hasher.hash(piece)).collect();
                assert_eq!(hasher.hash_many(&pieces[..count]), each, "{algorithm}");
                assert!(each.iter().all(|hash| hash.as_bytes().len() == hasher.hash_len()));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = ContentHasher::new("MD5", &[]).unwrap_err();
        assert!(matches!(error, KopiaError::Unsupported { .. }), "{error}");
        assert!(ContentHasher::new("BLAKE2B-256", &[0; 65]).is_err());
        assert!(ContentHasher::new("BLAKE2S-256", &[0; 33]).is_err());
        assert!(ContentHasher::new("BLAKE2S-128", &[]).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let hasher = ContentHasher::new(ContentHasher::DEFAULT, &[42; 32]).unwrap();
        assert_eq!(format!("{hasher:?}"), "ContentHasher(\"BLAKE2B-256-128\")");
    }
}
