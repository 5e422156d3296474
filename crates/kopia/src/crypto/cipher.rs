//! The encryption of contents.

use std::fmt;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::crypto::keys::{Key, hkdf_sha256};
use crate::error::{KopiaError, KopiaResult};

/// Bytes of the random number before the ciphertext.
pub(super) const NONCE: usize = aead::NONCE_LEN;
/// Bytes of the tag behind it.
pub(super) const TAG: usize = 16;
/// Bytes that encryption adds.
const OVERHEAD: usize = NONCE + TAG;

/// What the key for contents is derived from the repository's key with; as a salt, the purpose is empty.
const PURPOSE: &[u8] = b"encryption";

/// Which cipher encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// The encryption of a repository, with its key.
///
/// Sealed data is a random nonce of 12 bytes, the ciphertext, and a tag of 16 bytes. The key of each content is the
/// HMAC-SHA256 of its `iv` ([`content_iv`](crate::crypto::content_iv) or [`blob_iv`](crate::crypto::blob_iv)), which is
/// authenticated too.
pub struct ContentCipher {
    algorithm: Algorithm,
    keys: hmac::Key,
    random: SystemRandom,
}

impl ContentCipher {
    /// kopia's default algorithm.
    pub const DEFAULT: &str = "AES256-GCM-HMAC-SHA256";

    /// Every algorithm, by kopia's names.
    pub const ALGORITHMS: [&str; 2] = [Self::DEFAULT, "CHACHA20-POLY1305-HMAC-SHA256"];

    /// The encryption of this name, with the master key of the repository.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](KopiaError::Unsupported) if kopia has no such encryption, or has it no more.
    pub fn new(algorithm: &str, master_key: &[u8]) -> KopiaResult<Self> {
        let algorithm = match algorithm {
            Self::DEFAULT => Algorithm::Aes256Gcm,
            "CHACHA20-POLY1305-HMAC-SHA256" => Algorithm::ChaCha20Poly1305,
            other => {
                return Err(KopiaError::Unsupported {
                    feature: format!("the encryption {other:?}"),
                    detail: "kopia has no such encryption, or has given it up".into(),
                });
            }
        };
        let secret = hkdf_sha256(master_key, PURPOSE, &[])?;
        Ok(Self {
            algorithm,
            keys: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            random: SystemRandom::new(),
        })
    }

    /// kopia's name of the algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Aes256Gcm => Self::ALGORITHMS[0],
            Algorithm::ChaCha20Poly1305 => Self::ALGORITHMS[1],
        }
    }

    /// Bytes that sealed data is longer than the data: 28.
    pub fn overhead(&self) -> usize {
        OVERHEAD
    }

    /// Bytes that [`seal_framed`](Self::seal_framed) wants free before the data; it wants the rest of the
    /// [`overhead`](Self::overhead) behind it.
    pub fn headroom(&self) -> usize {
        NONCE
    }

    /// Encrypts in place: the plaintext in `buffer` becomes what is stored. The buffer grows by
    /// [`overhead`](Self::overhead); with that much spare capacity nothing is allocated.
    pub fn seal(&self, iv: &[u8], buffer: &mut Vec<u8>) -> KopiaResult<()> {
        let length = buffer.len();
        buffer.resize(length + OVERHEAD, 0);
        buffer.copy_within(..length, NONCE);
        self.seal_framed(iv, buffer)
    }

    /// Encrypts in place without moving anything: the plaintext in `data` becomes ciphertext and tag, which is 16 bytes
    /// longer. What is stored before it is given back: [`headroom`](Self::headroom) bytes.
    pub fn seal_detached(&self, iv: &[u8], data: &mut Vec<u8>) -> KopiaResult<[u8; NONCE]> {
        let mut nonce = [0; NONCE];
        self.random.fill(&mut nonce).map_err(no_random)?;
        self.key(iv)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(iv), data)
            .map_err(|ring::error::Unspecified| unfit("it is too long to be encrypted"))?;
        Ok(nonce)
    }

    /// Encrypts in place without moving anything: `framed` is [`headroom`](Self::headroom) bytes of any value, the
    /// plaintext, and 16 bytes of any value; it becomes what is stored.
    pub fn seal_framed(&self, iv: &[u8], framed: &mut [u8]) -> KopiaResult<()> {
        let (nonce, rest) = framed
            .split_first_chunk_mut::<NONCE>()
            .ok_or_else(|| unfit("there is no room for the nonce"))?;
        let (plaintext, tag) = rest
            .split_last_chunk_mut::<TAG>()
            .ok_or_else(|| unfit("there is no room for the tag"))?;
        self.random.fill(nonce).map_err(no_random)?;
        let sealed = self.key(iv)?.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(iv),
            plaintext,
        );
        let sealed = sealed.map_err(|ring::error::Unspecified| unfit("it is too long to be encrypted"))?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Decrypts in place; the plaintext is a part of `sealed`. `what` names the content or blob for the error.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](KopiaError::Corrupt) if the data is not what was sealed with this `iv`.
    pub fn open<'a>(
        &self,
        iv: &[u8],
        sealed: &'a mut [u8],
        what: impl fmt::Display,
    ) -> KopiaResult<&'a mut [u8]> {
        if sealed.len() < OVERHEAD {
            return Err(too_short(what, sealed.len()));
        }
        let (nonce, rest) = sealed.split_at_mut(NONCE);
        let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else {
            return Err(forged(what));
        };
        self.key(iv)?
            .open_in_place(nonce, Aad::from(iv), rest)
            .map_err(|ring::error::Unspecified| forged(what))
    }

    /// As [`open`](Self::open), for a buffer of one's own: the plaintext takes the place of what was sealed.
    pub fn open_vec(&self, iv: &[u8], mut sealed: Vec<u8>, what: impl fmt::Display) -> KopiaResult<Vec<u8>> {
        let length = self.open(iv, &mut sealed, what)?.len();
        sealed.copy_within(NONCE..NONCE + length, 0);
        sealed.truncate(length);
        Ok(sealed)
    }

    /// The cipher for one content.
    fn key(&self, iv: &[u8]) -> KopiaResult<LessSafeKey> {
        let algorithm = match self.algorithm {
            Algorithm::Aes256Gcm => &aead::AES_256_GCM,
            Algorithm::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, hmac::sign(&self.keys, iv).as_ref());
        let key = key.map_err(|ring::error::Unspecified| KopiaError::Argument {
            name: "key",
            problem: "it has the wrong length".into(),
        })?;
        Ok(LessSafeKey::new(key))
    }

    /// The algorithm and the key for one content, for ciphers that work piece by piece.
    pub(super) fn parts(&self, iv: &[u8]) -> (Algorithm, Key) {
        let mut key = Key::default();
        key.copy_from_slice(hmac::sign(&self.keys, iv).as_ref());
        (self.algorithm, key)
    }
}

impl fmt::Debug for ContentCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContentCipher").field(&self.algorithm).finish()
    }
}

/// The system has no random numbers.
fn no_random(_: ring::error::Unspecified) -> KopiaError {
    let source = std::io::Error::other("the system gave none");
    KopiaError::io("get random numbers from", "the system", source)
}

/// A plaintext that cannot be encrypted.
fn unfit(problem: &str) -> KopiaError {
    KopiaError::Argument {
        name: "plaintext",
        problem: problem.into(),
    }
}

/// Sealed data that cannot even hold nonce and tag.
pub(super) fn too_short(what: impl fmt::Display, length: usize) -> KopiaError {
    KopiaError::corrupt(
        what,
        format_args!("{length} bytes are too few for anything encrypted"),
    )
}

/// Sealed data with a wrong tag.
pub(super) fn forged(what: impl fmt::Display) -> KopiaError {
    KopiaError::corrupt(what, "it is not what was encrypted (its tag does not match)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else() {
        for algorithm in ContentCipher::ALGORITHMS {
            let cipher = ContentCipher::new(algorithm, &[3; 32]).unwrap();
            for plain in [&b""[..], b"x", &[5; 1000]] {
                let mut sealed = plain.to_vec();
                cipher.seal(b"0123456789abcdef", &mut sealed).unwrap();
                assert_eq!(sealed.len(), plain.len() + cipher.overhead());
                let open = |iv: &[u8], data: &[u8]| cipher.open_vec(iv, data.to_vec(), "content 0");
                assert_eq!(open(b"0123456789abcdef", &sealed).unwrap(), plain);
                assert!(open(b"1123456789abcdef", &sealed).is_err());
                for position in [0, 12, sealed.len() - 1] {
                    let mut forged = sealed.clone();
                    forged[position] ^= 0x80;
                    assert!(open(b"0123456789abcdef", &forged).is_err(), "{position}");
                }
                for length in [0, 11, 12, 27] {
                    assert!(open(b"0123456789abcdef", &sealed[..length]).is_err(), "{length}");
                }
            }
        }
    }

    #[test]
    fn sealing_within_the_capacity_moves_no_memory() {
        let cipher = ContentCipher::new(ContentCipher::DEFAULT, &[3; 32]).unwrap();
        let mut buffer = Vec::with_capacity(1000 + cipher.overhead());
        buffer.resize(1000, 1);
        let before = buffer.as_ptr();
        cipher.seal(&[0; 16], &mut buffer).unwrap();
        assert_eq!(buffer.as_ptr(), before);
        let mut detached = Vec::with_capacity(1000 + TAG);
        detached.resize(1000, 1);
        let before = detached.as_ptr();
        let nonce = cipher.seal_detached(&[0; 16], &mut detached).unwrap();
        assert_eq!(detached.as_ptr(), before);
        let sealed = [&nonce, &detached[..]].concat();
        assert_eq!(cipher.open_vec(&[0; 16], sealed, "content 0").unwrap(), [1; 1000]);
        assert!(cipher.seal_framed(&[0; 16], &mut [0; 27]).is_err());
        assert!(cipher.seal_framed(&[0; 16], &mut [0; 28]).is_ok());
    }

    #[test]
    fn deprecated_encryptions_are_refused_by_name() {
        for name in ["NONE", "SALSA20-HMAC", "AES256-GCM"] {
            let error = ContentCipher::new(name, &[3; 32]).unwrap_err();
            assert!(matches!(error, KopiaError::Unsupported { .. }) && error.to_string().contains(name));
        }
    }
}
