//! Sessions: who is writing packs that no index mentions yet.
//!
//! kopia's maintenance deletes packs that no index mentions, unless the session in their name is alive. So a marker blob is
//! stored before the first pack of a session and deleted after the index that mentions its packs. Its name is `s`, the
//! keyed hash of its contents, `-`, and the name of the session; it holds encrypted JSON.

use data_encoding::HEXLOWER;
use futures::lock::Mutex;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::blob::{BlobId, BlobStorage};
use crate::crypto::{blob_iv, content_iv};
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;

/// What names of session markers begin with.
pub const SESSION_PREFIX: &str = "s";

/// Random bytes in the name of a session.
const RANDOM: usize = 8;
/// Months in names of sessions are counted from here: 2000-01-01.
const FIRST_MONTH: i64 = 946_684_800;
/// A month has 30 days.
const MONTH_SECONDS: i64 = 30 * 24 * 3600;
/// A marker is a few hundred bytes; more than this is none.
const MAX_MARKER: u64 = 64 * 1024;
/// A session that goes on is marked anew after this time. kopia believes a marker for four days.
const REFRESH: SignedDuration = SignedDuration::from_hours(1);

/// The name of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A name made of random bytes and the month.
    pub(crate) fn new(random: [u8; RANDOM], now: Timestamp) -> Self {
        let month = (now.as_second() - FIRST_MONTH).max(0) / MONTH_SECONDS;
        Self(format!("s{}{month:x}", HEXLOWER.encode(&random)))
    }

    /// The session that a blob belongs to, by its name.
    pub fn of_blob(blob: &BlobId) -> Option<Self> {
        let mut parts = blob.as_str().split('-').skip(1);
        parts
            .find(|part| part.starts_with('s'))
            .map(|part| Self(part.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a session marker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// When it began.
    #[serde(rename = "startTime")]
    pub started: Timestamp,
    /// When it was known to be alive.
    #[serde(rename = "checkpointTime")]
    pub alive: Timestamp,
    /// Whose session it is.
    #[serde(rename = "username")]
    pub user: String,
    /// On which host.
    #[serde(rename = "hostname")]
    pub host: String,
}

/// A session of ours.
#[derive(Debug)]
pub(crate) struct Session {
    info: SessionInfo,
    marker: Mutex<Marker>,
}

/// The marker blobs of a session that may be stored.
#[derive(Debug, Default)]
struct Marker {
    alive: Option<Timestamp>,
    /// The last one is valid; the others could not be deleted yet.
    blobs: Vec<BlobId>,
}

impl Session {
    pub(crate) fn new(random: [u8; RANDOM], user: &str, host: &str, now: Timestamp) -> Self {
        let info = SessionInfo {
            id: SessionId::new(random, now),
            started: now,
            alive: now,
            user: user.to_owned(),
            host: host.to_owned(),
        };
        Self {
            info,
            marker: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.info.id
    }

    /// Makes sure that a marker is stored, and not an old one. To be called before each pack.
    pub(crate) async fn mark(
        &self,
        storage: &dyn BlobStorage,
        format: &RepositoryFormat,
        now: Timestamp,
    ) -> KopiaResult<()> {
        let mut marker = self.marker.lock().await;
        if marker
            .alive
            .is_some_and(|alive| now.duration_since(alive) < REFRESH)
        {
            return Ok(());
        }
        let info = SessionInfo {
            alive: now,
            ..self.info.clone()
        };
        let (blob, sealed) = seal_marker(format, &info)?;
        // From here on it may exist, whatever the answer is.
        if marker.blobs.last() != Some(&blob) {
            marker.blobs.push(blob.clone());
        }
        storage.put(&blob, vec![sealed.into()], None).await?;
        marker.alive = Some(now);
        while marker.blobs.len() > 1 {
            storage.delete(&marker.blobs[0]).await?;
            marker.blobs.remove(0);
        }
        Ok(())
    }

    /// Deletes the markers: everything that the session stored is in an index.
    pub(crate) async fn unmark(&self, storage: &dyn BlobStorage) -> KopiaResult<()> {
        let mut marker = self.marker.lock().await;
        marker.alive = None;
        while let Some(blob) = marker.blobs.last() {
            storage.delete(blob).await?;
            marker.blobs.pop();
        }
        Ok(())
    }
}

/// Name and bytes of a marker.
fn seal_marker(format: &RepositoryFormat, info: &SessionInfo) -> KopiaResult<(BlobId, Vec<u8>)> {
    let mut data = serde_json::to_vec(info).map_err(|error| KopiaError::Argument {
        name: "session",
        problem: error.to_string(),
    })?;
    let hash = format.hasher.hash(&data);
    format.cipher.seal(content_iv(&hash), &mut data)?;
    let name = format!("{SESSION_PREFIX}{hash}-{}", info.id.as_str());
    Ok((BlobId::from(name), data))
}

/// The sessions that are marked as alive, whoever they belong to; of each the newest marker. One that is gone by the time
/// it is read is none.
///
/// # Errors
///
/// Those of the storage; [`Corrupt`](KopiaError::Corrupt) naming a marker that cannot be read.
pub async fn list_sessions(
    storage: &dyn BlobStorage,
    format: &RepositoryFormat,
) -> KopiaResult<Vec<SessionInfo>> {
    let mut sessions: Vec<SessionInfo> = Vec::new();
    for blob in storage.list(SESSION_PREFIX).await? {
        let data = match storage.get(&blob.id, MAX_MARKER).await {
            Ok(data) => data,
            Err(KopiaError::BlobNotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        let what = || format!("session marker {}", blob.id);
        let data = format
            .cipher
            .open_vec(&blob_iv(&blob.id)?, data.to_vec(), what())?;
        let info = read_marker(&data).map_err(|error| KopiaError::corrupt(what(), error))?;
        match sessions.iter_mut().find(|known| known.id == info.id) {
            Some(known) if known.alive >= info.alive => {}
            Some(known) => *known = info,
            None => sessions.push(info),
        }
    }
    Ok(sessions)
}

/// Reads a marker once it is decrypted.
fn read_marker(json: &[u8]) -> serde_json::Result<SessionInfo> {
    serde_json::from_slice(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{self, Bound};

    #[test]
    fn names_hold_the_month() {
        let now: Timestamp = "2024-05-06T07:08:09Z".parse().unwrap();
        let id = SessionId::new([0, 1, 2, 3, 4, 5, 6, 0xff], now);
        // 8,892 days since 2000 are 296 months of 30 days.
        assert_eq!(id.as_str(), "s00010203040506ff128");
        assert_eq!(
            SessionId::new([0; 8], Timestamp::UNIX_EPOCH).as_str(),
            "s00000000000000000"
        );
    }

    #[test]
    fn blobs_name_their_session() {
        let of = |name: &str| SessionId::of_blob(&name.into()).map(|id| id.0);
        assert_eq!(of("p00ff-s0011128").as_deref(), Some("s0011128"));
        assert_eq!(of("xn0_00ff-s0011128-c1").as_deref(), Some("s0011128"));
        assert_eq!(of("p00ff"), None);
        assert_eq!(of("xn0_00ff-c1"), None);
    }

    #[test]
    fn hostile_markers_are_harmless() {
        let golden = br#"{"id":"s00010203040506ff128","startTime":"2024-05-06T07:08:09.123456789Z","checkpointTime":"2024-05-06T08:08:09+02:00","username":"me","hostname":"here"}"#;
        read_marker(golden).unwrap();
        hostile::check(&[golden], Bound::new(4096, 10), |json| drop(read_marker(json)));
        let names = [&b"p00ff-s0011128"[..], b"xn0_00ff-s0011128-c1"];
        hostile::check(&names, Bound::new(1024, 10), |name| {
            SessionId::of_blob(&BlobId::from(&*String::from_utf8_lossy(name)));
        });
    }
}
