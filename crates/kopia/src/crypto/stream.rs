//! Decryption of what is too large for memory: piece by piece, into a file.
//!
//! An authenticated cipher promises nothing about any byte before the tag at the very end is checked. So the plaintext
//! goes into a file that the caller gets only when the tag was right.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use aes::Aes256;
use chacha20::ChaCha20;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use ghash::GHash;
use ghash::universal_hash::{KeyInit, UniversalHash};
use poly1305::Poly1305;

use crate::crypto::cipher::{Algorithm, ContentCipher, NONCE, TAG, forged, too_short};
use crate::crypto::keys::Key;
use crate::error::{KopiaError, KopiaResult};

/// Bytes that are decrypted at a time: a multiple of the block of either cipher.
const PIECE: usize = 256 << 10;

/// The decryption of one blob into a file, at most 512 KiB of it in memory. Dropped before [`finish`](Self::finish), or
/// if anything fails, it leaves the file empty.
#[derive(Debug)]
pub struct OpenIntoFile {
    /// None when it was handed over.
    file: Option<File>,
    path: PathBuf,
    what: String,
    iv: Vec<u8>,
    key: (Algorithm, Key),
    /// None until the nonce is here.
    state: Option<State>,
    /// What came and is not decrypted yet; the last 16 bytes may be the tag.
    pending: Vec<u8>,
    received: usize,
}

impl ContentCipher {
    /// Decrypts what will come in pieces into `file`, which is at `path` (for messages only). `what` names the blob.
    pub fn open_into(
        &self,
        iv: &[u8],
        file: File,
        path: &Path,
        what: impl std::fmt::Display,
    ) -> OpenIntoFile {
        OpenIntoFile {
            file: Some(file),
            path: path.into(),
            what: what.to_string(),
            iv: iv.into(),
            key: self.parts(iv),
            state: None,
            pending: Vec::with_capacity(PIECE + TAG),
            received: 0,
        }
    }
}

impl OpenIntoFile {
    /// Takes the next bytes of the blob, any number of them.
    pub fn push(&mut self, mut sealed: &[u8]) -> KopiaResult<()> {
        self.received = self.received.saturating_add(sealed.len());
        while !sealed.is_empty() {
            let room = PIECE + TAG - self.pending.len();
            let (now, later) = sealed.split_at(room.min(sealed.len()));
            self.pending.extend_from_slice(now);
            sealed = later;
            if self.state.is_none()
                && let Some((nonce, _)) = self.pending.split_first_chunk::<NONCE>()
            {
                self.state = Some(State::new(&self.key, nonce, &self.iv));
                self.pending.drain(..NONCE);
            }
            if self.pending.len() == PIECE + TAG {
                self.decrypt(PIECE)?;
            }
        }
        Ok(())
    }

    /// Checks the tag and hands over the file, at its beginning.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](KopiaError::Corrupt) if the tag is wrong; the file is empty then.
    pub fn finish(mut self) -> KopiaResult<File> {
        let length = self.pending.len().checked_sub(TAG);
        let Some((length, true)) = length.map(|length| (length, self.state.is_some())) else {
            return Err(too_short(&self.what, self.received));
        };
        self.decrypt(length)?;
        let genuine = match (self.state.take(), self.pending.first_chunk::<TAG>()) {
            (Some(state), Some(tag)) => state.verify(tag),
            _ => false,
        };
        if !genuine {
            return Err(forged(&self.what));
        }
        let Some(mut file) = self.file.take() else {
            return Err(too_short(&self.what, self.received));
        };
        file.rewind()
            .map_err(|error| KopiaError::io("rewind", &self.path, error))?;
        Ok(file)
    }

    /// Decrypts the first `length` pending bytes into the file.
    fn decrypt(&mut self, length: usize) -> KopiaResult<()> {
        if let (Some(state), Some(file)) = (&mut self.state, &mut self.file) {
            let piece = &mut self.pending[..length];
            state.decrypt(piece);
            file.write_all(piece)
                .map_err(|error| KopiaError::io("write", &self.path, error))?;
        }
        self.pending.drain(..length);
        Ok(())
    }
}

impl Drop for OpenIntoFile {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = file.set_len(0)
        {
            // The caller has no file to read from; what is left on the disk is its own to delete.
            tracing::warn!(path = %self.path.display(), %error, "unverified data could not be removed");
        }
    }
}

/// The cipher and its message authentication, at some point of the blob.
struct State {
    mode: Mode,
    associated: u64,
    decrypted: u64,
}

enum Mode {
    // GCM encrypts its hash with the first block of the key stream; so does the mask.
    Gcm {
        stream: Box<Ctr32BE<Aes256>>,
        hash: GHash,
        mask: [u8; TAG],
    },
    ChaCha {
        stream: ChaCha20,
        hash: Box<Poly1305>,
    },
}

impl State {
    fn new((algorithm, key): &(Algorithm, Key), nonce: &[u8; NONCE], associated: &[u8]) -> Self {
        let mut mode = match algorithm {
            Algorithm::Aes256Gcm => gcm(key, nonce),
            Algorithm::ChaCha20Poly1305 => chacha(key, nonce),
        };
        match &mut mode {
            Mode::Gcm { hash, .. } => hash.update_padded(associated),
            Mode::ChaCha { hash, .. } => hash.update_padded(associated),
        }
        Self {
            mode,
            associated: associated.len() as u64,
            decrypted: 0,
        }
    }

    /// Decrypts a piece, whose length is a multiple of the block except for the last.
    fn decrypt(&mut self, piece: &mut [u8]) {
        match &mut self.mode {
            Mode::Gcm { stream, hash, .. } => {
                hash.update_padded(piece);
                stream.apply_keystream(piece);
            }
            Mode::ChaCha { stream, hash } => {
                hash.update_padded(piece);
                stream.apply_keystream(piece);
            }
        }
        self.decrypted += piece.len() as u64;
    }

    fn verify(self, tag: &[u8; TAG]) -> bool {
        let mut lengths = [0; 16];
        let (first, second) = lengths.split_at_mut(8);
        match self.mode {
            Mode::Gcm { mut hash, mask, .. } => {
                first.copy_from_slice(&(self.associated * 8).to_be_bytes());
                second.copy_from_slice(&(self.decrypted * 8).to_be_bytes());
                hash.update(&[lengths.into()]);
                let mut unmasked = *tag;
                unmasked
                    .iter_mut()
                    .zip(mask)
                    .for_each(|(byte, mask)| *byte ^= mask);
                hash.verify(&unmasked.into()).is_ok()
            }
            Mode::ChaCha { mut hash, .. } => {
                first.copy_from_slice(&self.associated.to_le_bytes());
                second.copy_from_slice(&self.decrypted.to_le_bytes());
                hash.update(&[lengths.into()]);
                hash.verify(&(*tag).into()).is_ok()
            }
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} bytes)", self.decrypted)
    }
}

/// NIST SP 800-38D: the hash key is the encryption of zeros, the counter begins at 1 with the block that masks the tag.
fn gcm(key: &Key, nonce: &[u8; NONCE]) -> Mode {
    let mut hash_key = [0; 16];
    Ctr32BE::<Aes256>::new(key.into(), &[0; 16].into()).apply_keystream(&mut hash_key);
    let mut counter = [0; 16];
    counter[..NONCE].copy_from_slice(nonce);
    counter[15] = 1;
    let mut stream = Box::new(Ctr32BE::<Aes256>::new(key.into(), &counter.into()));
    let mut mask = [0; TAG];
    stream.apply_keystream(&mut mask);
    Mode::Gcm {
        stream,
        hash: GHash::new(&hash_key.into()),
        mask,
    }
}

/// RFC 8439: the key of the hash is the begin of the first block of the key stream; the data begins with the second.
fn chacha(key: &Key, nonce: &[u8; NONCE]) -> Mode {
    let mut stream = ChaCha20::new(key.into(), nonce.into());
    let mut hash_key = [0; 32];
    stream.apply_keystream(&mut hash_key);
    stream.seek(64);
    Mode::ChaCha {
        stream,
        hash: Box::new(Poly1305::new(&hash_key.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::hostile::{self, Bound};

    fn sealed(cipher: &ContentCipher, length: usize) -> (Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..=250).cycle().take(length).collect();
        let mut sealed = plain.clone();
        cipher.seal(&[7; 16], &mut sealed).unwrap();
        (plain, sealed)
    }

    fn open(cipher: &ContentCipher, iv: [u8; 16], sealed: &[u8], step: usize) -> (KopiaResult<Vec<u8>>, u64) {
        let file = tempfile::tempfile().unwrap();
        let mut open = cipher.open_into(&iv, file.try_clone().unwrap(), Path::new("index"), "blob x");
        let result = sealed
            .chunks(step)
            .try_for_each(|piece| open.push(piece))
            .and_then(|()| open.finish())
            .map(|mut opened| {
                let mut plain = Vec::new();
                opened.read_to_end(&mut plain).unwrap();
                plain
            });
        (result, file.metadata().unwrap().len())
    }

    #[test]
    fn pieces_of_any_size_give_the_whole() {
        for algorithm in ContentCipher::ALGORITHMS {
            let cipher = ContentCipher::new(algorithm, &[1; 32]).unwrap();
            for length in [0, 1, 15, 16, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 100] {
                let (plain, sealed) = sealed(&cipher, length);
                for step in [1 << 20, PIECE + 28, 4099] {
                    assert_eq!(
                        open(&cipher, [7; 16], &sealed, step).0.unwrap(),
                        plain,
                        "{algorithm} {length}"
                    );
                }
            }
            let (plain, sealed) = sealed(&cipher, 50);
            assert_eq!(open(&cipher, [7; 16], &sealed, 1).0.unwrap(), plain);
        }
    }

    #[test]
    fn forged_data_leaves_an_empty_file() {
        for algorithm in ContentCipher::ALGORITHMS {
            let cipher = ContentCipher::new(algorithm, &[1; 32]).unwrap();
            let (_, sealed) = sealed(&cipher, PIECE + 100);
            for position in [0, 11, 12, PIECE, sealed.len() - 17, sealed.len() - 1] {
                let mut forged = sealed.clone();
                forged[position] ^= 1;
                let (result, left) = open(&cipher, [7; 16], &forged, 10_000);
                assert!(matches!(result, Err(KopiaError::Corrupt { .. })), "{position}");
                assert_eq!(left, 0, "{position}");
            }
            for length in [0, 5, 12, 27, sealed.len() - 1] {
                let (result, left) = open(&cipher, [7; 16], &sealed[..length], 10_000);
                assert!(matches!(result, Err(KopiaError::Corrupt { .. })), "{length}");
                assert_eq!(left, 0, "{length}");
            }
            assert!(open(&cipher, [8; 16], &sealed, 10_000).0.is_err(), "another name");
        }
    }

    #[test]
    fn an_unfinished_one_leaves_an_empty_file() {
        let cipher = ContentCipher::new(ContentCipher::DEFAULT, &[1; 32]).unwrap();
        let (_, sealed) = sealed(&cipher, 3 * PIECE);
        let file = tempfile::tempfile().unwrap();
        let mut open = cipher.open_into(&[7; 16], file.try_clone().unwrap(), Path::new("index"), "blob x");
        open.push(&sealed[..2 * PIECE]).unwrap();
        assert_ne!(file.metadata().unwrap().len(), 0);
        drop(open);
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn hostile_ciphertext_is_never_taken_for_genuine() {
        for algorithm in ContentCipher::ALGORITHMS {
            let cipher = ContentCipher::new(algorithm, &[1; 32]).unwrap();
            let (_, genuine) = sealed(&cipher, 500);
            let memory = Bound::new(4096, 4);
            hostile::check(&[&genuine], memory, |bytes| {
                let opened = cipher.open_vec(&[7; 16], bytes.to_vec(), "blob");
                assert_eq!(opened.is_ok(), bytes == genuine);
            });
            let pieces = Bound::new(2 * (PIECE + TAG) as u64, 4);
            hostile::check_few(&[&genuine], pieces, |bytes| {
                let opened = open(&cipher, [7; 16], bytes, 100).0;
                assert_eq!(opened.is_ok(), bytes == genuine);
            });
        }
    }
}
