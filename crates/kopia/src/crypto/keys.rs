//! Keys derived from other keys and from passwords.

use holdfast_store::Secret;
use ring::hkdf;

use crate::error::{KopiaError, KopiaResult};

/// A key of 256 bits.
pub(crate) type Key = [u8; 32];

/// Name of the key derivation that kopia uses for new repositories: scrypt with N = 65536, r = 8, p = 1. It takes 64 MiB
/// of memory while it runs.
pub(crate) const SCRYPT: &str = "scrypt-65536-8-1";
/// Name of the other one: PBKDF2 with HMAC-SHA256, 600 000 rounds.
pub(crate) const PBKDF2: &str = "pbkdf2-sha256-600000";

const PBKDF2_ROUNDS: u32 = 600_000;
/// kopia refuses a shorter salt.
const MIN_SALT: usize = 16;

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        size_of::<Key>()
    }
}

/// A key for one purpose, by HKDF-SHA256.
pub(crate) fn hkdf_sha256(secret: &[u8], salt: &[u8], info: &[u8]) -> KopiaResult<Key> {
    let mut key = Key::default();
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], KeyLength)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|ring::error::Unspecified| KopiaError::Argument {
            name: "key",
            problem: "it cannot be derived".into(),
        })?;
    Ok(key)
}

/// The key that a password stands for. Slow by intent: some 0.2 s.
pub(crate) fn from_password(password: &Secret, salt: &[u8], algorithm: &str) -> KopiaResult<Key> {
    if salt.len() < MIN_SALT {
        return Err(KopiaError::corrupt(
            "the repository's format",
            format_args!("its id has {} bytes, too few for a salt", salt.len()),
        ));
    }
    let password = password.expose().as_bytes();
    let mut key = Key::default();
    match algorithm {
        SCRYPT => {
            let failed = |problem: String| KopiaError::Argument {
                name: "key derivation",
                problem,
            };
            let parameters =
                scrypt::Params::new(16, 8, 1, key.len()).map_err(|error| failed(error.to_string()))?;
            scrypt::scrypt(password, salt, &parameters, &mut key)
                .map_err(|error| failed(error.to_string()))?;
        }
        PBKDF2 => pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, salt, PBKDF2_ROUNDS, &mut key),
        other => {
            return Err(KopiaError::Unsupported {
                feature: format!("the key derivation {other:?}"),
                detail: format!("known are {SCRYPT} and {PBKDF2}"),
            });
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_derivations_and_short_salts_are_refused() {
        let password = Secret::new("password");
        for algorithm in ["", "testing-only-insecure", "scrypt-1024-8-1"] {
            let error = from_password(&password, &[0; 32], algorithm).unwrap_err();
            assert!(matches!(error, KopiaError::Unsupported { .. }), "{error}");
        }
        assert!(from_password(&password, &[0; 15], PBKDF2).is_err());
    }
}
