//! How the server can tell that the body of a PUT came as it was sent.
//!
//! | | body is covered by | on our side, for 20 MiB |
//! |---|---|---|
//! | TLS, server checks CRC32C | `x-amz-checksum-crc32c`, itself signed | about 1 ms |
//! | TLS, server ignores CRC32C | SHA-256 in the signature | about 15 ms |
//! | plain HTTP | SHA-256 in the signature: a checksum would not stop somebody who changes both | about 15 ms |
//! | with a retention | `Content-MD5`, which every server knows and S3 demands; in plain HTTP SHA-256 too | about 47 ms |
//!
//! Whether a server checks CRC32C is learned from the first PUT: that one carries both, and a server that checks
//! repeats the checksum in its answer. One that stops doing so later gets the object again, signed. Parts of multipart
//! uploads are always signed: S3 wants the checksum announced when the upload begins, which the library cannot.
//!
//! Figures: optimised code on one core of a Xeon with SHA extensions: CRC32C 20,000 MiB/s, SHA-256 1,360 MiB/s, MD5
//! 430 MiB/s; `cargo test -p holdfast-store --release -- --ignored speed --nocapture` measures again.

use std::sync::atomic::{AtomicU8, Ordering};

use data_encoding::BASE64;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest as _, Md5};
use object_store::PutPayload;

use crate::error::{StoreError, StoreResult};

/// The header of the checksum, in requests and answers.
pub(crate) const CRC32C: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");

/// From this size on, digests are computed on a thread for blocking work.
const LARGE: usize = 1 << 20;

/// Keeps an object from being deleted or replaced until a time (S3 object lock). The bucket must allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// How strict it is.
    pub mode: LockMode,
    /// Until when.
    pub until: jiff::Timestamp,
}

/// How strict an [`ObjectLock`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody can shorten it.
    Compliance,
    /// Those with a special right can.
    Governance,
}

/// What covers the body of one PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) sha256: bool,
    pub(crate) crc32c: bool,
    pub(crate) md5: bool,
}

/// What is known about the server.
#[derive(Debug)]
pub(crate) struct Integrity {
    secure: bool,
    state: AtomicU8,
}

const UNKNOWN: u8 = 0;
const CHECKS: u8 = 1;
const IGNORES: u8 = 2;

impl Integrity {
    /// `secure` is TLS.
    pub(crate) fn new(secure: bool) -> Self {
        Self {
            secure,
            state: AtomicU8::new(UNKNOWN),
        }
    }

    /// What must cover the next body.
    pub(crate) fn cover(&self, locked: bool) -> Cover {
        let state = self.state.load(Ordering::Relaxed);
        let crc32c = self.secure && !locked && state != IGNORES;
        Cover {
            sha256: !(self.secure && (locked || state == CHECKS)),
            crc32c,
            md5: locked,
        }
    }

    /// Learns from an answer whether the server checked. False if nobody checked this body: it must be sent again.
    pub(crate) fn learn(&self, cover: Cover, echoed: bool) -> bool {
        if !cover.crc32c {
            return true;
        }
        let state = if echoed { CHECKS } else { IGNORES };
        self.state.store(state, Ordering::Relaxed);
        echoed || cover.sha256
    }

    /// The server refused a request; whether it may have been for the checksum, so that it is worth another without.
    pub(crate) fn refused(&self, cover: Cover) -> bool {
        let unsure = cover.crc32c && cover.sha256;
        if unsure {
            self.state.store(IGNORES, Ordering::Relaxed);
        }
        unsure
    }
}

/// What a PUT carries beside its body; travels to [`crate::wire`] among the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) headers: HeaderMap,
    /// None: the signature does not cover the body.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Whether the server repeated the checksum it was sent; among the extensions of the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echoed(pub(crate) bool);

impl Proof {
    /// Computes what `cover` asks for, away from the async threads if that takes long.
    pub(crate) async fn of(
        payload: &PutPayload,
        cover: Cover,
        lock: Option<&ObjectLock>,
        location: &str,
    ) -> StoreResult<Self> {
        let failed = |problem: String| StoreError::Inconsistent {
            location: location.to_owned(),
            problem,
        };
        let (mut headers, sha256) = if payload.content_length() < LARGE {
            digests(payload, cover)
        } else {
            let payload = payload.clone();
            tokio::task::spawn_blocking(move || digests(&payload, cover))
                .await
                .map_err(|error| failed(format!("computing its checksum failed: {error}")))?
        };
        if let Some(lock) = lock {
            let mode = match lock.mode {
                LockMode::Compliance => "COMPLIANCE",
                LockMode::Governance => "GOVERNANCE",
            };
            let until = lock.until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode));
            headers.insert(
                "x-amz-object-lock-retain-until-date",
                HeaderValue::from_str(&until).map_err(|error| failed(error.to_string()))?,
            );
        }
        Ok(Self { headers, sha256 })
    }
}

fn digests(payload: &PutPayload, cover: Cover) -> (HeaderMap, Option<[u8; 32]>) {
    let mut headers = HeaderMap::new();
    if cover.crc32c {
        let crc = payload
            .iter()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        headers.extend(base64(&crc.to_be_bytes()).map(|value| (CRC32C, value)));
    }
    if cover.md5 {
        let mut md5 = Md5::new();
        payload.iter().for_each(|piece| md5.update(piece));
        let name = HeaderName::from_static("content-md5");
        headers.extend(base64(&md5.finalize()).map(|value| (name, value)));
    }
    (headers, cover.sha256.then(|| sha256(payload.iter())))
}

/// SHA-256 of a body in pieces.
pub(crate) fn sha256<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for piece in pieces {
        context.update(piece.as_ref());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// None never: base64 is ASCII.
fn base64(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_str(&BASE64.encode(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn cover(sha256: bool, crc32c: bool, md5: bool) -> Cover {
        Cover { sha256, crc32c, md5 }
    }

    #[test]
    fn a_server_that_checks_spares_us_the_signing() {
        let tls = Integrity::new(true);
        let first = tls.cover(false);
        assert_eq!(first, cover(true, true, false));
        assert!(tls.learn(first, true));
        let second = tls.cover(false);
        assert_eq!(second, cover(false, true, false));
        assert!(tls.learn(second, true));
        assert!(!tls.refused(second));
        // It stops checking: this body was checked by nobody.
        assert!(!tls.learn(second, false));
        assert_eq!(tls.cover(false), cover(true, false, false));
        assert_eq!(tls.cover(true), cover(false, false, true));
    }

    #[test]
    fn a_server_that_does_not_check_gets_signed_bodies() {
        let ignores = Integrity::new(true);
        assert!(ignores.learn(ignores.cover(false), false));
        assert_eq!(ignores.cover(false), cover(true, false, false));
        let refuses = Integrity::new(true);
        assert!(refuses.refused(refuses.cover(false)));
        assert_eq!(refuses.cover(false), cover(true, false, false));
        assert!(!refuses.refused(refuses.cover(false)));
        let plain = Integrity::new(false);
        assert_eq!(plain.cover(false), cover(true, false, false));
        assert_eq!(plain.cover(true), cover(true, false, true));
    }

    #[tokio::test]
    async fn headers_are_what_s3_documents() {
        let lock = ObjectLock {
            mode: LockMode::Compliance,
            until: "2031-02-03T04:05:06.789Z".parse().unwrap(),
        };
        let payload: PutPayload = ["123", "456789"].into_iter().map(Bytes::from).collect();
        let proof = Proof::of(&payload, cover(true, true, true), Some(&lock), "x")
            .await
            .unwrap();
        let header = |name: &str| proof.headers[name].to_str().unwrap();
        // The check value of CRC-32C for "123456789" is e3069283.
        assert_eq!(
            header("x-amz-checksum-crc32c"),
            BASE64.encode(&[0xe3, 0x06, 0x92, 0x83])
        );
        assert_eq!(header("content-md5"), "JfnnlDI7RTiF9RgfG2JNCw==");
        assert_eq!(header("x-amz-object-lock-mode"), "COMPLIANCE");
        assert_eq!(
            header("x-amz-object-lock-retain-until-date"),
            "2031-02-03T04:05:06Z"
        );
        let digest = data_encoding::HEXLOWER.encode(&proof.sha256.unwrap());
        assert_eq!(
            digest,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }

    #[test]
    #[ignore = "measures, checks nothing"]
    fn speed() {
        let payload: PutPayload = (0..20).map(|index| Bytes::from(vec![index; 1 << 20])).collect();
        for (name, cover) in [
            ("SHA-256", cover(true, false, false)),
            ("CRC32C", cover(false, true, false)),
            ("MD5", cover(false, false, true)),
        ] {
            let start = std::time::Instant::now();
            for _ in 0..10 {
                std::hint::black_box(digests(&payload, cover));
            }
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "{name}: {:.1} ms for 20 MiB, {:.0} MiB/s",
                seconds * 100.0,
                200.0 / seconds
            );
        }
    }
}
