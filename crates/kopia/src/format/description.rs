//! The blob `kopia.repository`, and what it keeps encrypted with a key made from the password.

use data_encoding::BASE64;
use hmac::Mac;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use holdfast_store::Secret;

use crate::crypto::keys::{self, Key, hkdf_sha256};
use crate::error::{KopiaError, KopiaResult};

/// The only encryption of the description.
pub(super) const ENCRYPTION: &str = "AES256_GCM";

const NONCE: usize = 12;
/// What kopia's recovery finds the description by; not secret at all.
const RECOVERY_KEY: &[u8] = b"kopia-repository";
/// A longer description is not put into packs.
const MAX_RECOVERY: usize = 65_000;

/// The JSON of `kopia.repository`.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Description {
    #[serde(default)]
    tool: String,
    #[serde(default, rename = "buildVersion")]
    build_version: String,
    #[serde(default, rename = "buildInfo")]
    build_info: String,
    /// The id of the repository; also the salt of its keys.
    #[serde(default, rename = "uniqueID", with = "base64")]
    pub(super) unique_id: Vec<u8>,
    #[serde(default, rename = "keyAlgo")]
    key_derivation: String,
    #[serde(default)]
    encryption: String,
    #[serde(default, rename = "encryptedBlockFormat", with = "base64")]
    encrypted_config: Vec<u8>,
    /// What a later kopia may have added; kept when the blob is written anew.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Description {
    /// That of a new repository, without its configuration.
    pub(super) fn new(unique_id: Vec<u8>, key_derivation: &str) -> Self {
        Self {
            tool: env!("CARGO_PKG_REPOSITORY").into(),
            build_version: env!("CARGO_PKG_VERSION").into(),
            build_info: String::new(),
            unique_id,
            key_derivation: key_derivation.into(),
            encryption: ENCRYPTION.into(),
            encrypted_config: Vec::new(),
            other: Map::new(),
        }
    }

    pub(super) fn parse(json: &[u8]) -> KopiaResult<Self> {
        serde_json::from_slice(json).map_err(|error| KopiaError::corrupt(super::REPOSITORY, error))
    }

    /// The bytes of the blob, laid out as kopia does.
    pub(super) fn to_json(&self) -> KopiaResult<Vec<u8>> {
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|error| KopiaError::corrupt(super::REPOSITORY, error))?;
        json.push(b'\n');
        Ok(json)
    }

    /// The key that the password stands for. It takes some 0.2 s, so it is computed where it blocks nobody.
    pub(super) async fn key(&self, password: &Secret) -> KopiaResult<Key> {
        if self.encryption != ENCRYPTION {
            return Err(KopiaError::Unsupported {
                feature: format!("the encryption {:?} of its description", self.encryption),
                detail: format!("known is {ENCRYPTION}"),
            });
        }
        let (password, salt, algorithm) = (
            password.clone(),
            self.unique_id.clone(),
            self.key_derivation.clone(),
        );
        let derived =
            tokio::task::spawn_blocking(move || keys::from_password(&password, &salt, &algorithm)).await;
        match derived {
            Ok(key) => key,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(KopiaError::Cancelled),
        }
    }

    /// The configuration of the repository as JSON; none if the key is wrong.
    pub(super) fn config(&self, key: &Key) -> KopiaResult<Option<Vec<u8>>> {
        self.open(key, &self.encrypted_config)
    }

    /// Puts another configuration in, or the same with another key.
    pub(super) fn set_config(&mut self, key: &Key, json: &[u8]) -> KopiaResult<()> {
        self.encrypted_config = self.seal(key, json)?;
        Ok(())
    }

    /// Encrypts a blob of the format. The layout is nonce, ciphertext, tag.
    pub(super) fn seal(&self, key: &Key, plaintext: &[u8]) -> KopiaResult<Vec<u8>> {
        let impossible = |ring::error::Unspecified| KopiaError::Argument {
            name: "format",
            problem: "it cannot be encrypted".into(),
        };
        let mut nonce = [0; NONCE];
        SystemRandom::new().fill(&mut nonce).map_err(impossible)?;
        let (cipher, associated) = self.cipher(key)?;
        let mut ciphertext = plaintext.to_vec();
        cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated),
                &mut ciphertext,
            )
            .map_err(impossible)?;
        Ok([&nonce, &ciphertext[..]].concat())
    }

    /// Decrypts a blob of the format; none if the key is wrong or the blob damaged, which cannot be told apart.
    pub(super) fn open(&self, key: &Key, sealed: &[u8]) -> KopiaResult<Option<Vec<u8>>> {
        let Some((nonce, ciphertext)) = sealed.split_first_chunk::<NONCE>() else {
            return Ok(None);
        };
        let (cipher, associated) = self.cipher(key)?;
        let mut plaintext = ciphertext.to_vec();
        let opened = cipher
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated),
                &mut plaintext,
            )
            .map(|opened| opened.len());
        Ok(opened.ok().map(|length| {
            plaintext.truncate(length);
            plaintext
        }))
    }

    /// The cipher of the blobs of the format, and what is authenticated with them.
    fn cipher(&self, key: &Key) -> KopiaResult<(LessSafeKey, Key)> {
        let aes = hkdf_sha256(key, &self.unique_id, b"AES")?;
        let associated = hkdf_sha256(key, &self.unique_id, b"CHECKSUM")?;
        let aes =
            UnboundKey::new(&AES_256_GCM, &aes).map_err(|ring::error::Unspecified| KopiaError::Argument {
                name: "key",
                problem: "it has the wrong length".into(),
            })?;
        Ok((LessSafeKey::new(aes), associated))
    }
}

/// A description as format version 1 keeps a copy of it at the begin of every pack, for recovery: its length, itself, a
/// checksum, its length again.
pub(super) fn recovery_copy(json: &[u8]) -> KopiaResult<Vec<u8>> {
    let mut checksum = hmac::Hmac::<sha2::Sha256>::new_from_slice(RECOVERY_KEY)
        .map_err(|error| KopiaError::corrupt(super::REPOSITORY, error))?;
    checksum.update(json);
    let checksum = checksum.finalize().into_bytes();
    let length = json.len() + checksum.len();
    let short = u16::try_from(length).ok().filter(|_| length <= MAX_RECOVERY);
    let Some(short) = short.map(u16::to_le_bytes) else {
        return Err(KopiaError::corrupt(
            super::REPOSITORY,
            format_args!("{length} bytes are too many for packs"),
        ));
    };
    Ok([&short, json, &checksum, &short].concat())
}

/// Bytes in JSON, as Go writes them: base64, or null if there are none.
pub(super) mod base64 {
    use super::{BASE64, Deserialize, Deserializer, Serializer};

    pub(in crate::format) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&BASE64.encode_display(bytes))
    }

    pub(in crate::format) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        BASE64
            .decode(text.as_bytes())
            .map_err(|error| serde::de::Error::custom(format_args!("base64: {error}")))
    }
}
