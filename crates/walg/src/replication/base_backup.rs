//! `BASE_BACKUP`: the data directory as tar archives.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use postgres_protocol::message::frontend;

use super::connection::{parse_row, quote_literal, send_query};
use super::error::ReplicationError;
use super::wire::{Channel, Cursor, Message, Row};
use crate::lsn::Lsn;

const COMMAND: &str = "BASE_BACKUP";

/// The checksum that the manifest holds for each file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestChecksums {
    /// CRC-32C: cheap, finds accidents.
    #[default]
    Crc32c,
    /// SHA-256: costs the server CPU time, finds forgeries too.
    Sha256,
}

/// What a base backup should hold.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command, independent of the others"
)]
pub struct BaseBackupOptions {
    /// A name that `backup_label` records.
    pub label: String,
    /// Checkpoint at once, instead of spreading its writes over minutes.
    pub fast_checkpoint: bool,
    /// Have the server estimate [`Tablespace::size_kib`] and report [`BackupEvent::Progress`].
    pub progress: bool,
    /// Send a manifest after the archives.
    pub manifest: bool,
    /// The manifest's checksums.
    pub manifest_checksums: ManifestChecksums,
    /// The highest rate at which the server sends, in KiB/s (32 to 1048576).
    pub max_rate_kib: Option<u32>,
    /// Include the WAL of the backup in the base archive; at the end, so that it must still be there.
    pub wal: bool,
    /// Have the server wait until the WAL of the backup is archived, where it archives at all.
    pub wait: bool,
    /// Describe tablespaces by a file `tablespace_map` instead of symbolic links.
    pub tablespace_map: bool,
    /// Have the server verify the checksums of data pages; it fails at the end when it found wrong ones.
    pub verify_checksums: bool,
    /// Bounds the wait for the checkpoint in place of [`super::ConnectOptions::idle_timeout`], and with `wait` the wait for
    /// the archive.
    pub checkpoint_timeout: Duration,
}

impl Default for BaseBackupOptions {
    /// A fast checkpoint, a manifest with CRC-32C, progress, no WAL, no waiting for an archive.
    fn default() -> Self {
        Self {
            label: "holdfast".to_owned(),
            fast_checkpoint: true,
            progress: true,
            manifest: true,
            manifest_checksums: ManifestChecksums::default(),
            max_rate_kib: None,
            wal: false,
            wait: false,
            tablespace_map: true,
            verify_checksums: true,
            checkpoint_timeout: Duration::from_mins(30),
        }
    }
}

impl BaseBackupOptions {
    fn command(&self) -> String {
        let mut options = vec![
            format!("LABEL {}", quote_literal(&self.label)),
            format!(
                "CHECKPOINT '{}'",
                if self.fast_checkpoint { "fast" } else { "spread" }
            ),
            format!("PROGRESS {}", self.progress),
            format!("WAL {}", self.wal),
            format!("WAIT {}", self.wait),
            format!("TABLESPACE_MAP {}", self.tablespace_map),
            format!("VERIFY_CHECKSUMS {}", self.verify_checksums),
        ];
        if self.manifest {
            let checksums = match self.manifest_checksums {
                ManifestChecksums::Crc32c => "CRC32C",
                ManifestChecksums::Sha256 => "SHA256",
            };
            options.push(format!("MANIFEST 'yes', MANIFEST_CHECKSUMS '{checksums}'"));
        }
        if let Some(rate) = self.max_rate_kib {
            options.push(format!("MAX_RATE {rate}"));
        }
        format!("BASE_BACKUP ({})", options.join(", "))
    }
}

/// A directory that becomes an archive of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// The tablespace's OID; none for the data directory itself.
    pub oid: Option<u32>,
    /// Where it is on the server; none for the data directory itself.
    pub location: Option<String>,
    /// The server's estimate in KiB, when progress was asked for.
    pub size_kib: Option<u64>,
}

/// What comes next in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupEvent {
    /// The data of an archive follow.
    Archive {
        /// `base.tar`, or the OID of a tablespace with `.tar`.
        name: String,
        /// Where the tablespace is on the server; none for `base.tar`.
        location: Option<String>,
    },
    /// A piece of the archive or manifest that began last, of at most 32 KiB as servers are today.
    Data(Bytes),
    /// The data of the manifest (JSON) follow.
    ManifestStarted,
    /// Bytes of the current archive that the server has gone through; about once a second.
    Progress(u64),
}

/// Where a backup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// WAL up to here is needed to make the backup consistent.
    pub finish_lsn: Lsn,
    /// The timeline of that position.
    pub timeline: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Copy,
    Trailer,
    Done,
}

/// A base backup under way. Dropping it cancels the backup.
pub struct BaseBackup {
    channel: Channel,
    start: BackupEnd,
    tablespaces: Vec<Tablespace>,
    phase: Phase,
    end: Option<BackupEnd>,
}

impl std::fmt::Debug for BaseBackup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseBackup")
            .field("peer", &self.channel.peer)
            .field("start", &self.start)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl BaseBackup {
    pub(super) async fn start(
        mut channel: Channel,
        options: &BaseBackupOptions,
    ) -> Result<Self, ReplicationError> {
        if options.label.contains(['\0', '\n', '\r']) || options.label.len() > 1024 {
            return Err(ReplicationError::Options(
                "a backup label is one line of at most 1024 bytes".to_owned(),
            ));
        }
        send_query(&mut channel, &options.command())?;
        channel.flush().await?;
        let idle = channel.set_idle(options.checkpoint_timeout);
        let start = result_set(&mut channel).await?;
        let start = position(&start).ok_or_else(|| channel.violation("the start of a backup"))?;
        let tablespaces = result_set(&mut channel).await?;
        let tablespaces = tablespaces
            .iter()
            .map(|row| Tablespace {
                oid: row.parsed(0),
                location: row.text(1).map(str::to_owned),
                size_kib: row.parsed(2),
            })
            .collect();
        let copy = channel.receive().await?;
        if copy.tag != b'H' {
            return Err(channel.unexpected(&copy, COMMAND));
        }
        if !options.wait {
            channel.set_idle(idle);
        }
        Ok(Self {
            channel,
            start,
            tablespaces,
            phase: Phase::Copy,
            end: None,
        })
    }

    /// Where the backup starts: recovery needs the WAL from the segment of this position on.
    pub fn start_lsn(&self) -> Lsn {
        self.start.finish_lsn
    }

    /// The timeline on which the backup starts.
    pub fn timeline(&self) -> u32 {
        self.start.timeline
    }

    /// The archives to come; the data directory itself is one of them.
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Where the backup ended, once [`BaseBackup::next`] has answered None.
    pub fn end(&self) -> Option<BackupEnd> {
        self.end
    }

    /// The next event; None when the backup is complete. Cancel safe.
    ///
    /// Only None means that the server considers the backup good: it reports wrong page checksums at the very end.
    pub async fn next(&mut self) -> Result<Option<BackupEvent>, ReplicationError> {
        loop {
            if self.phase == Phase::Done {
                return match self.end {
                    Some(_) => Ok(None),
                    None => Err(ReplicationError::Abandoned {
                        peer: self.channel.peer.clone(),
                    }),
                };
            }
            let step = match self.channel.receive().await {
                Ok(message) => self.step(message),
                Err(error) => Err(error),
            };
            match step {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(Some(event)),
                Err(error) => {
                    self.end = None;
                    self.phase = Phase::Done;
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, message: Message) -> Result<Option<BackupEvent>, ReplicationError> {
        match (self.phase, message.tag) {
            (Phase::Copy, b'd') => {
                let event = copy_event(message.body);
                return event
                    .map(Some)
                    .ok_or_else(|| self.channel.violation("a piece of a backup"));
            }
            (Phase::Copy, b'c') => self.phase = Phase::Trailer,
            (Phase::Trailer, b'T' | b'C') => {}
            (Phase::Trailer, b'D') => {
                let row = parse_row(&self.channel, &message.body)?;
                self.end = position(&[row]);
            }
            (Phase::Trailer, b'Z') => {
                if self.end.is_none() {
                    return Err(self.channel.violation("a backup without an end"));
                }
                self.phase = Phase::Done;
            }
            _ => return Err(self.channel.unexpected(&message, COMMAND)),
        }
        Ok(None)
    }

    /// Says good-bye after the end, so that the server does not log a lost connection.
    pub async fn close(mut self) -> Result<(), ReplicationError> {
        frontend::terminate(&mut self.channel.output);
        self.channel.flush().await
    }
}

/// One event of the copy stream; the bytes are not copied.
fn copy_event(mut body: Bytes) -> Option<BackupEvent> {
    let kind = *body.first()?;
    body.advance(1);
    let mut cursor = Cursor::new(&body);
    Some(match kind {
        b'd' => BackupEvent::Data(body),
        b'p' => BackupEvent::Progress(cursor.u64()?),
        b'm' => BackupEvent::ManifestStarted,
        b'n' => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let name = text(cursor.cstr()?);
            let location = Some(text(cursor.cstr()?)).filter(|location| !location.is_empty());
            BackupEvent::Archive { name, location }
        }
        _ => return None,
    })
}

/// Reads one result set up to its end.
async fn result_set(channel: &mut Channel) -> Result<Vec<Row>, ReplicationError> {
    let mut rows = Vec::new();
    loop {
        let message = channel.receive().await?;
        match message.tag {
            b'T' => {}
            b'D' => rows.push(parse_row(channel, &message.body)?),
            b'C' => return Ok(rows),
            _ => return Err(channel.unexpected(&message, COMMAND)),
        }
    }
}

fn position(rows: &[Row]) -> Option<BackupEnd> {
    let row = rows.first()?;
    Some(BackupEnd {
        finish_lsn: row.parsed(0)?,
        timeline: row.parsed(1)?,
    })
}
