//! A connection to a walsender and the commands that answer at once.

use bytes::Bytes;
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::base_backup::{BaseBackup, BaseBackupOptions};
use super::error::{Peer, ReplicationError};
use super::options::{ConnectOptions, SslMode};
use super::wal_stream::WalStream;
use super::wire::{Channel, Row, Socket};
use super::{auth, tls};
use crate::lsn::{Lsn, SegmentSize};

/// The oldest server with today's `BASE_BACKUP` protocol.
const OLDEST_SERVER: u32 = 15_00_00;

/// What `IDENTIFY_SYSTEM` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The number that all servers of one cluster share.
    pub system_id: u64,
    /// The timeline the server is on.
    pub timeline: u32,
    /// How far the server's WAL is flushed (primary) or replayed (standby).
    pub xlogpos: Lsn,
}

/// The history file of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    /// For example `00000002.history`.
    pub file_name: String,
    /// The file's bytes.
    pub content: Bytes,
}

/// An authenticated connection in physical replication mode.
///
/// A command whose future is dropped half-way leaves the connection unusable; later ones answer
/// [`ReplicationError::Abandoned`].
pub struct Connection {
    pub(super) channel: Channel,
    version: u32,
    /// A command is under way, or was when its future was dropped.
    busy: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            channel,
            version,
            busy,
        } = self;
        f.debug_struct("Connection")
            .field("peer", &channel.peer)
            .field("version", version)
            .field("busy", busy)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, encrypts as the ssl mode says, authenticates (SCRAM-SHA-256 with channel binding where the server
    /// offers it, md5, or the bare password over TLS) and checks that the server is PostgreSQL 15 or later.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ReplicationError> {
        let peer = Peer::new(&options.host, options.port, &options.user);
        let tls = tls::configuration(options)?;
        // Boxed: the handshake's state is large and would sit in every caller's future.
        let establish = Box::pin(async {
            let stream = open(options, &peer).await?;
            let (socket, end_point): (Box<dyn Socket>, _) = match tls {
                None => (Box::new(stream), auth::EndPoint::Plain),
                Some(config) => match tls::negotiate(stream, config, options, &peer).await? {
                    tls::Negotiated::Tls(stream, hash) => (stream, auth::EndPoint::Tls(hash)),
                    tls::Negotiated::Plain(stream) => (Box::new(stream), auth::EndPoint::Plain),
                },
            };
            let channel = Channel::new(socket, peer.clone(), options.idle_timeout);
            Self::establish(channel, options, &end_point).await
        });
        match timeout(options.connect_timeout, establish).await {
            Ok(result) => result,
            Err(_) => Err(ReplicationError::ConnectTimeout {
                peer,
                after: options.connect_timeout,
            }),
        }
    }

    pub(super) async fn establish(
        mut channel: Channel,
        options: &ConnectOptions,
        end_point: &auth::EndPoint,
    ) -> Result<Self, ReplicationError> {
        let parameters = [
            ("user", options.user.as_str()),
            ("replication", "true"),
            ("application_name", options.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut channel.output)
            .map_err(|error| ReplicationError::Options(format!("user or application name: {error}")))?;
        channel.flush().await?;
        auth::authenticate(&mut channel, options, end_point).await?;
        let version = channel
            .parameters
            .get("server_version")
            .cloned()
            .unwrap_or_default();
        match parse_version(&version) {
            None => Err(channel.violation(format!("server version {version:?}"))),
            Some(number) if number < OLDEST_SERVER => Err(ReplicationError::UnsupportedVersion {
                peer: channel.peer.clone(),
                version,
            }),
            Some(number) => Ok(Self {
                channel,
                version: number,
                busy: false,
            }),
        }
    }

    /// The server's version as a number, for example 150020 for 15.20.
    pub fn server_version(&self) -> u32 {
        self.version
    }

    /// The server and the user.
    pub fn peer(&self) -> &Peer {
        &self.channel.peer
    }

    /// Which cluster this is, and how far it has come.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let rows = self.query("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM").await?;
        rows.first()
            .and_then(|row| {
                Some(SystemIdentity {
                    system_id: row.parsed(0)?,
                    timeline: row.parsed(1)?,
                    xlogpos: row.parsed(2)?,
                })
            })
            .ok_or_else(|| self.channel.violation("the answer to IDENTIFY_SYSTEM"))
    }

    /// The value of a setting. Some may be read by members of `pg_read_all_settings` only; see
    /// [`ReplicationError::is_permission_denied`].
    pub async fn show(&mut self, name: &str) -> Result<String, ReplicationError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if name.is_empty() || !name.chars().all(valid) {
            return Err(ReplicationError::Options(format!(
                "{name:?} is no name of a setting"
            )));
        }
        let rows = self.query("SHOW", &format!("SHOW {name}")).await?;
        rows.first()
            .and_then(|row| Some(row.text(0)?.to_owned()))
            .ok_or_else(|| self.channel.violation("the answer to SHOW"))
    }

    /// The size of the server's WAL segments.
    pub async fn wal_segment_size(&mut self) -> Result<SegmentSize, ReplicationError> {
        let setting = self.show("wal_segment_size").await?;
        SegmentSize::from_setting(&setting).map_err(|error| self.channel.violation(error.to_string()))
    }

    /// Whether the server is a standby (or otherwise in recovery) at this moment.
    pub async fn is_in_recovery(&mut self) -> Result<bool, ReplicationError> {
        Ok(self.show("in_hot_standby").await? == "on")
    }

    /// The history file of a timeline. Timeline 1 has none: the server answers with an error.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<TimelineHistory, ReplicationError> {
        let rows = self
            .query("TIMELINE_HISTORY", &format!("TIMELINE_HISTORY {timeline}"))
            .await?;
        rows.first()
            .and_then(|row| {
                Some(TimelineHistory {
                    file_name: row.text(0)?.to_owned(),
                    content: row.bytes(1)?.clone(),
                })
            })
            .ok_or_else(|| self.channel.violation("the answer to TIMELINE_HISTORY"))
    }

    /// Creates a physical slot that keeps WAL from the last checkpoint on, until this connection ends or
    /// [`WalStream::acknowledge`] lets it go. The name has 1 to 63 of the characters `a-z`, `0-9` and `_`.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<(), ReplicationError> {
        check_slot_name(name)?;
        let command = format!("CREATE_REPLICATION_SLOT \"{name}\" TEMPORARY PHYSICAL (RESERVE_WAL)");
        self.query("CREATE_REPLICATION_SLOT", &command).await.map(drop)
    }

    /// Starts a base backup; returns when the server has made its checkpoint and is about to send the first file.
    pub async fn base_backup(mut self, options: &BaseBackupOptions) -> Result<BaseBackup, ReplicationError> {
        self.take()?;
        BaseBackup::start(self.channel, options).await
    }

    /// Streams the WAL of a timeline from a position on. Ask for the start of a segment to get whole segments.
    ///
    /// The slot must be this connection's temporary one, or one that nobody uses.
    pub async fn start_physical(
        mut self,
        slot: Option<&str>,
        start: Lsn,
        timeline: u32,
    ) -> Result<WalStream, ReplicationError> {
        if let Some(name) = slot {
            check_slot_name(name)?;
        }
        let timeout = self.show("wal_sender_timeout").await?;
        self.take()?;
        WalStream::start(self.channel, slot, start, timeline, &timeout).await
    }

    /// Says good-bye, so that the server does not log a lost connection.
    pub async fn close(mut self) -> Result<(), ReplicationError> {
        frontend::terminate(&mut self.channel.output);
        self.channel.flush().await
    }

    /// Marks a command as begun.
    fn take(&mut self) -> Result<(), ReplicationError> {
        if self.busy {
            return Err(ReplicationError::Abandoned {
                peer: self.channel.peer.clone(),
            });
        }
        self.busy = true;
        Ok(())
    }

    /// Runs a command that answers with at most one result set.
    async fn query(&mut self, command: &'static str, text: &str) -> Result<Vec<Row>, ReplicationError> {
        self.take()?;
        send_query(&mut self.channel, text)?;
        self.channel.flush().await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let message = match self.channel.receive().await {
                Ok(message) => message,
                // After a fatal error the server hangs up: the error is what matters.
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            match message.tag {
                b'T' | b'C' => {}
                b'D' => rows.push(parse_row(&self.channel, &message.body)?),
                b'E' => failed = Some(self.channel.unexpected(&message, command)),
                b'Z' => break,
                _ => return Err(self.channel.unexpected(&message, command)),
            }
        }
        self.busy = false;
        match failed {
            Some(error) => Err(error),
            None => Ok(rows),
        }
    }
}

async fn open(options: &ConnectOptions, peer: &Peer) -> Result<TcpStream, ReplicationError> {
    let resolve = |source| ReplicationError::Resolve {
        peer: peer.clone(),
        source,
    };
    let addresses = lookup_host((options.host.as_str(), options.port))
        .await
        .map_err(resolve)?;
    let mut failure = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|source| ReplicationError::Io {
                    peer: peer.clone(),
                    source,
                })?;
                return Ok(stream);
            }
            Err(source) => failure = Some(source),
        }
    }
    Err(match failure {
        Some(source) => ReplicationError::Connect {
            peer: peer.clone(),
            source,
        },
        None => resolve(std::io::ErrorKind::NotFound.into()),
    })
}

/// Queues a simple query.
pub(super) fn send_query(channel: &mut Channel, text: &str) -> Result<(), ReplicationError> {
    frontend::query(text, &mut channel.output)
        .map_err(|error| ReplicationError::Options(format!("a replication command: {error}")))
}

pub(super) fn parse_row(channel: &Channel, body: &Bytes) -> Result<Row, ReplicationError> {
    Row::parse(body).ok_or_else(|| channel.violation("a row shorter than it says"))
}

/// A string literal of the replication grammar, which knows no escape but the doubled quote.
pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn check_slot_name(name: &str) -> Result<(), ReplicationError> {
    let valid = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
        return Err(ReplicationError::Options(format!(
            "{name:?} is no name of a replication slot"
        )));
    }
    Ok(())
}

/// `15.20 (Debian 15.20-1)`, `17beta2`, `9.6.24`: 150020, 170000, 90624.
fn parse_version(text: &str) -> Option<u32> {
    let numbers = text.split([' ', 'b', 'r', 'd']).next()?;
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
    let major = parts.next()??;
    let second = parts.next().unwrap_or(Some(0))?;
    let third = parts.next().unwrap_or(Some(0))?;
    Some(if major >= 10 {
        major * 10_000 + second
    } else {
        major * 10_000 + second * 100 + third
    })
}

impl SslMode {
    /// Whether a connection without TLS will not do.
    pub(super) fn insists(self) -> bool {
        !matches!(self, Self::Disable | Self::Prefer)
    }
}

#[cfg(test)]
mod tests {
    use super::{check_slot_name, parse_version, quote_literal};

    #[test]
    fn versions_of_all_kinds_become_numbers() {
        for (text, number) in [
            ("15.20 (Debian 15.20-0+deb12u1)", Some(150_020)),
            ("17.6", Some(170_006)),
            ("18beta2", Some(180_000)),
            ("19devel", Some(190_000)),
            ("18rc1", Some(180_000)),
            ("9.6.24", Some(90_624)),
            ("14.9", Some(140_009)),
            ("", None),
            ("PostgreSQL", None),
        ] {
            assert_eq!(parse_version(text), number, "{text}");
        }
    }

    #[test]
    fn nothing_breaks_out_of_a_literal_or_a_slot_name() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert!(check_slot_name("holdfast_1").is_ok());
        for wrong in ["", "a\"b", "A", "a b", &"a".repeat(64)] {
            assert!(check_slot_name(wrong).is_err(), "{wrong}");
        }
    }
}
