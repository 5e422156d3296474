//! `START_REPLICATION`: WAL as the server writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{parse_row, send_query};
use super::error::{Peer, ReplicationError};
use super::wire::{Channel, Cursor};
use crate::lsn::Lsn;

const COMMAND: &str = "START_REPLICATION";

/// How many chunks a stream reads ahead of a slow caller.
pub const WAL_READ_AHEAD: usize = 4;

/// The longest time between two status updates.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Microseconds between the epochs of Unix and of PostgreSQL (2000-01-01).
const EPOCH_MICROS: u64 = 946_684_800_000_000;

/// A piece of WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalChunk {
    /// The position of the first byte.
    pub start: Lsn,
    /// The bytes, at most 128 KiB.
    pub data: Bytes,
    /// How far the server's WAL had come when it sent this.
    pub server_end: Lsn,
}

impl WalChunk {
    /// The position behind the last byte.
    pub fn end(&self) -> Lsn {
        self.start.plus(self.data.len() as u64)
    }
}

/// Where the WAL goes on after the end of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTimeline {
    /// The timeline that follows.
    pub timeline: u32,
    /// Where it begins; nothing behind this position on the old timeline counts.
    pub start: Lsn,
}

/// A stream of WAL.
///
/// A task of its own reads the connection, at most [`WAL_READ_AHEAD`] chunks ahead, and answers the server: status
/// updates go out every 10 s (or three times per `wal_sender_timeout`, if that is shorter) and whenever the server asks,
/// however slow the caller is. They report as written what has been received, and as flushed only what the caller has
/// [acknowledged](WalStream::acknowledge); with nothing acknowledged the server neither moves a slot nor counts the
/// stream as a synchronous standby. A server that shuts down waits until a stream has taken all WAL, so a caller should
/// not pause for long. Dropping the stream ends the task and closes the connection.
#[derive(Debug)]
pub struct WalStream {
    chunks: mpsc::Receiver<WalChunk>,
    acknowledged: Arc<AtomicU64>,
    task: Option<AbortOnDropHandle<Result<Option<NextTimeline>, ReplicationError>>>,
    next_timeline: Option<NextTimeline>,
    ended: bool,
    peer: Peer,
}

impl WalStream {
    pub(super) async fn start(
        mut channel: Channel,
        slot: Option<&str>,
        start: Lsn,
        timeline: u32,
        wal_sender_timeout: &str,
    ) -> Result<Self, ReplicationError> {
        let slot = slot.map(|name| format!("SLOT \"{name}\" ")).unwrap_or_default();
        send_query(
            &mut channel,
            &format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}"),
        )?;
        channel.flush().await?;
        let first = channel.receive().await?;
        let peer = channel.peer.clone();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (sender, chunks) = mpsc::channel(WAL_READ_AHEAD);
        let task = match first.tag {
            b'W' => {
                let receiver = Receiver {
                    channel,
                    received: start,
                    acknowledged: Arc::clone(&acknowledged),
                    ticks: ticks(status_interval(wal_sender_timeout)),
                };
                tokio::spawn(receiver.run(sender))
            }
            // Nothing is left of a timeline that ended here: the server names the next one at once.
            b'T' => tokio::spawn(async move { finish(&mut channel).await }),
            _ => return Err(channel.unexpected(&first, COMMAND)),
        };
        let task = Some(AbortOnDropHandle::new(task));
        Ok(Self {
            chunks,
            acknowledged,
            task,
            next_timeline: None,
            ended: false,
            peer,
        })
    }

    /// The next piece of WAL; None at the end of the timeline. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<WalChunk>, ReplicationError> {
        match self.chunks.recv().await {
            Some(chunk) => Ok(Some(chunk)),
            None => self.outcome().await.map(|()| None),
        }
    }

    /// Tells the server that the WAL before `position` is stored safely and need not be kept for this stream.
    /// The server learns of it with the next status update. Positions never go back.
    pub fn acknowledge(&self, position: Lsn) {
        self.acknowledged.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Where the WAL goes on, once [`WalStream::next`] has answered None.
    pub fn next_timeline(&self) -> Option<NextTimeline> {
        self.next_timeline
    }

    /// Ends the stream in order, dropping what has not been taken yet.
    pub async fn finish(mut self) -> Result<(), ReplicationError> {
        self.chunks.close();
        // Room in the channel does not matter any more, but chunks in it keep their buffers alive.
        while self.chunks.recv().await.is_some() {}
        self.outcome().await
    }

    async fn outcome(&mut self) -> Result<(), ReplicationError> {
        if let Some(task) = &mut self.task {
            let result = task.await;
            self.task = None;
            // The task has no way to be aborted while this value lives; it can only have panicked.
            let lost = |error: tokio::task::JoinError| ReplicationError::Io {
                peer: self.peer.clone(),
                source: std::io::Error::other(error),
            };
            self.next_timeline = result.map_err(lost)??;
            self.ended = true;
        }
        if self.ended {
            Ok(())
        } else {
            Err(ReplicationError::Abandoned {
                peer: self.peer.clone(),
            })
        }
    }
}

/// The task behind a stream.
struct Receiver {
    channel: Channel,
    /// Everything before this position has been received.
    received: Lsn,
    acknowledged: Arc<AtomicU64>,
    ticks: Interval,
}

/// What a message of the copy stream means.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Wal(WalChunk),
    Keepalive { reply: bool },
}

impl Receiver {
    async fn run(mut self, sender: mpsc::Sender<WalChunk>) -> Result<Option<NextTimeline>, ReplicationError> {
        loop {
            // Room first: nothing is read that could not be handed over.
            let permit = tokio::select! {
                biased;
                permit = sender.reserve() => permit.ok(),
                _ = self.ticks.tick() => {
                    self.send_status(true).await?;
                    continue;
                }
            };
            let Some(permit) = permit else {
                return self.leave().await;
            };
            let message = tokio::select! {
                // The clock first: a busy stream always has a message ready.
                biased;
                _ = self.ticks.tick() => {
                    drop(permit);
                    self.send_status(true).await?;
                    continue;
                }
                message = self.channel.receive() => message?,
                () = sender.closed() => {
                    drop(permit);
                    return self.leave().await;
                }
            };
            match message.tag {
                b'd' => {
                    let event = copy_event(message.body);
                    match event.ok_or_else(|| self.channel.violation("a piece of wal"))? {
                        Event::Keepalive { reply: true } => self.send_status(false).await?,
                        Event::Keepalive { reply: false } => {}
                        Event::Wal(chunk) => {
                            self.received = self.received.max(chunk.end());
                            permit.send(chunk);
                        }
                    }
                }
                // The timeline ends here.
                b'c' => {
                    frontend::copy_done(&mut self.channel.output);
                    self.channel.flush().await?;
                    return finish(&mut self.channel).await;
                }
                b'C' => {
                    return Err(ReplicationError::ShuttingDown {
                        peer: self.channel.peer.clone(),
                    });
                }
                _ => return Err(self.channel.unexpected(&message, COMMAND)),
            }
        }
    }

    /// Sends what has been received and acknowledged. The periodic ones ask the server to answer: without that a
    /// quiet server says nothing, for it pings only clients that it has not heard of, and would seem dead.
    async fn send_status(&mut self, reply: bool) -> Result<(), ReplicationError> {
        if self.received.0 != 0 {
            let flushed = self.acknowledged.load(Ordering::Relaxed).min(self.received.0);
            let body = status_update(self.received, Lsn(flushed), reply);
            let data =
                frontend::CopyData::new(body).map_err(|error| self.channel.violation(error.to_string()))?;
            data.write(&mut self.channel.output);
        }
        self.channel.flush().await
    }

    /// Ends the stream from this side.
    async fn leave(mut self) -> Result<Option<NextTimeline>, ReplicationError> {
        self.send_status(false).await?;
        frontend::copy_done(&mut self.channel.output);
        self.channel.flush().await?;
        loop {
            let message = self.channel.receive().await?;
            match message.tag {
                b'd' => {}
                b'c' => return finish(&mut self.channel).await,
                // A server that shuts down at this moment ends the stream too.
                b'C' => return Ok(None),
                _ => return Err(self.channel.unexpected(&message, COMMAND)),
            }
        }
    }
}

/// Reads what follows the copy stream, and says good-bye.
async fn finish(channel: &mut Channel) -> Result<Option<NextTimeline>, ReplicationError> {
    let mut next = None;
    loop {
        let message = channel.receive().await?;
        match message.tag {
            b'T' | b'C' => {}
            b'D' => {
                let row = parse_row(channel, &message.body)?;
                let timeline = row.parsed(0).zip(row.parsed(1));
                let (timeline, start) = timeline.ok_or_else(|| channel.violation("the next timeline"))?;
                next = Some(NextTimeline { timeline, start });
            }
            b'Z' => break,
            _ => return Err(channel.unexpected(&message, COMMAND)),
        }
    }
    frontend::terminate(&mut channel.output);
    channel.flush().await?;
    Ok(next)
}

fn copy_event(mut body: Bytes) -> Option<Event> {
    let mut cursor = Cursor::new(&body);
    match cursor.u8()? {
        b'w' => {
            let (start, server_end, _sent) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
            body.advance(1 + 3 * 8);
            Some(Event::Wal(WalChunk {
                start: Lsn(start),
                data: body,
                server_end: Lsn(server_end),
            }))
        }
        b'k' => {
            let (_server_end, _sent) = (cursor.u64()?, cursor.u64()?);
            Some(Event::Keepalive {
                reply: cursor.u8()? != 0,
            })
        }
        _ => None,
    }
}

/// A standby status update: written, flushed, applied (nothing ever is), the time, whether an answer is wanted.
fn status_update(received: Lsn, flushed: Lsn, reply: bool) -> BytesMut {
    let mut body = BytesMut::with_capacity(34);
    body.put_u8(b'r');
    body.put_u64(received.0);
    body.put_u64(flushed.0);
    body.put_u64(0);
    body.put_u64(postgres_now());
    body.put_u8(u8::from(reply));
    body
}

/// Microseconds since 2000; the server shows them in `pg_stat_replication.reply_time` and decides nothing by them.
#[expect(
    clippy::disallowed_methods,
    reason = "a time stamp on the wire, not a decision"
)]
fn postgres_now() -> u64 {
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(unix.as_micros())
        .unwrap_or(u64::MAX)
        .saturating_sub(EPOCH_MICROS)
}

/// A third of `wal_sender_timeout` as the server shows it (`1min`, `2500ms`; `0` is none), at most 10 s.
fn status_interval(wal_sender_timeout: &str) -> Duration {
    let split = wal_sender_timeout
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(wal_sender_timeout.len());
    let (number, unit) = wal_sender_timeout.split_at(split);
    let number: u64 = number.parse().unwrap_or(0);
    let millis = match unit {
        "" | "ms" => number,
        "s" => number.saturating_mul(1000),
        _ => return STATUS_INTERVAL,
    };
    if millis == 0 {
        return STATUS_INTERVAL;
    }
    Duration::from_millis(millis / 3).clamp(Duration::from_millis(10), STATUS_INTERVAL)
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_copy_stream_are_read() {
        let mut wal = vec![b'w'];
        for number in [0x16B_6C50u64, 0x200_0000, 7] {
            wal.extend(number.to_be_bytes());
        }
        wal.extend(b"record");
        let chunk = WalChunk {
            start: Lsn(0x16B_6C50),
            data: Bytes::from_static(b"record"),
            server_end: Lsn(0x200_0000),
        };
        assert_eq!(chunk.end(), Lsn(0x16B_6C56));
        assert_eq!(copy_event(wal.clone().into()), Some(Event::Wal(chunk)));
        wal.truncate(24);
        assert_eq!(copy_event(wal.into()), None);

        let mut ping = vec![b'k'];
        ping.extend([0; 16]);
        assert_eq!(copy_event(ping.clone().into()), None);
        ping.push(1);
        assert_eq!(copy_event(ping.into()), Some(Event::Keepalive { reply: true }));
        assert_eq!(copy_event(Bytes::new()), None);
    }

    #[test]
    fn a_status_update_has_the_bytes_of_the_protocol() {
        let body = status_update(Lsn(0x0102), Lsn(0x01), true);
        assert_eq!(body.len(), 34);
        assert_eq!(&body[..17], b"r\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x01");
        assert_eq!(body[33], 1);
    }

    #[test]
    fn status_updates_come_three_times_within_the_servers_patience() {
        for (setting, millis) in [
            ("1min", 10_000),
            ("6s", 2000),
            ("2500ms", 833),
            ("0", 10_000),
            ("1ms", 10),
            ("1h", 10_000),
            ("", 10_000),
        ] {
            assert_eq!(
                status_interval(setting),
                Duration::from_millis(millis),
                "{setting}"
            );
        }
    }
}
