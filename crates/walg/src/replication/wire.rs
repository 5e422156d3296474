//! Messages in and out of a connection.
//!
//! The frontend's messages and SCRAM come from `postgres-protocol`. The backend's are split here, because that crate
//! knows neither CopyBothResponse nor a limit for a message's length.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::error::{Peer, ReplicationError, ServerError};

/// Size of a connection's read buffer in bytes; data are handed out as slices of it.
pub const READ_BUFFER: usize = 256 << 10;

/// With less room than this a new buffer is begun rather than making small reads.
const SMALLEST_READ: usize = 16 << 10;

/// The longest message taken, in bytes. The server's own limit for data is 128 KiB; only a timeline history with more
/// than a hundred thousand entries would be longer.
const LONGEST_MESSAGE: usize = 8 << 20;

/// Anything a connection can run over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// One message of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The kind of message.
    pub(super) tag: u8,
    /// What follows the length.
    pub(super) body: Bytes,
}

/// Splits the next message off the buffer; how many bytes are missing when it is not whole.
pub(super) fn split_message(input: &mut BytesMut) -> Result<Result<Message, usize>, String> {
    let Some(&[tag, l0, l1, l2, l3]) = input.first_chunk::<5>() else {
        return Ok(Err(5 - input.len()));
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if !(4..=LONGEST_MESSAGE).contains(&length) {
        return Err(format!(
            "a message of kind {:?} and {length} bytes",
            char::from(tag)
        ));
    }
    let whole = length + 1;
    if input.len() < whole {
        return Ok(Err(whole - input.len()));
    }
    let mut message = input.split_to(whole);
    message.advance(5);
    Ok(Ok(Message {
        tag,
        body: message.freeze(),
    }))
}

/// Reads the parts of a message's body.
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn cstr(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (text, tail) = self.0.split_at(end);
        self.0 = tail.get(1..)?;
        Some(text)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// One row of a result.
#[derive(Debug)]
pub(super) struct Row(Vec<Option<Bytes>>);

impl Row {
    pub(super) fn parse(body: &Bytes) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let count = cursor.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let length = cursor.i32()?;
            let Ok(length) = usize::try_from(length) else {
                columns.push(None);
                continue;
            };
            let value = cursor.rest().get(..length)?;
            columns.push(Some(body.slice_ref(value)));
            cursor = Cursor::new(&cursor.rest()[length..]);
        }
        Some(Self(columns))
    }

    pub(super) fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column)?.as_ref()
    }

    pub(super) fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.text(column)?.parse().ok()
    }
}

/// A connection as a sequence of messages.
pub(super) struct Channel {
    socket: Box<dyn Socket>,
    input: BytesMut,
    /// Messages to send; kept across dropped futures so that no message goes out in halves.
    pub(super) output: BytesMut,
    idle: Duration,
    pub(super) peer: Peer,
    pub(super) parameters: BTreeMap<String, String>,
}

impl Channel {
    pub(super) fn new(socket: Box<dyn Socket>, peer: Peer, idle: Duration) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self {
            socket,
            input,
            output,
            idle,
            peer,
            parameters: BTreeMap::new(),
        }
    }

    /// Changes how long a read or write may wait; returns what it was.
    pub(super) fn set_idle(&mut self, idle: Duration) -> Duration {
        std::mem::replace(&mut self.idle, idle)
    }

    /// Sends what [`Channel::output`] holds. Cancel safe.
    pub(super) async fn flush(&mut self) -> Result<(), ReplicationError> {
        let Self {
            socket, output, idle, ..
        } = self;
        let send = async {
            while output.has_remaining() {
                if socket.write_buf(output).await? == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
            }
            socket.flush().await
        };
        match timeout(*idle, send).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(ReplicationError::Io {
                peer: self.peer.clone(),
                source,
            }),
            Err(_) => Err(ReplicationError::Idle {
                peer: self.peer.clone(),
                after: self.idle,
            }),
        }
    }

    /// The next message that is no notice, notification or parameter; those are dealt with here. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<Message, ReplicationError> {
        loop {
            match split_message(&mut self.input) {
                Err(what) => return Err(self.violation(what)),
                Ok(Err(missing)) => self.fill(missing).await?,
                Ok(Ok(message)) => match message.tag {
                    b'N' => self.notice(&message.body),
                    b'S' => self.parameter(&message.body)?,
                    b'A' => {}
                    _ => return Ok(message),
                },
            }
        }
    }

    async fn fill(&mut self, missing: usize) -> Result<(), ReplicationError> {
        if self.input.capacity() - self.input.len() < missing.max(SMALLEST_READ) {
            self.input.reserve(missing.max(READ_BUFFER));
        }
        match timeout(self.idle, self.socket.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(ReplicationError::Closed {
                peer: self.peer.clone(),
            }),
            Ok(Ok(_)) => Ok(()),
            // TLS that ends without its own good-bye: a server that died, not a broken network.
            Ok(Err(source)) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(ReplicationError::Closed {
                    peer: self.peer.clone(),
                })
            }
            Ok(Err(source)) => Err(ReplicationError::Io {
                peer: self.peer.clone(),
                source,
            }),
            Err(_) => Err(ReplicationError::Idle {
                peer: self.peer.clone(),
                after: self.idle,
            }),
        }
    }

    fn notice(&self, body: &[u8]) {
        if let Some(notice) = ServerError::parse(body) {
            if notice.severity == "WARNING" {
                tracing::warn!(server = %self.peer, code = notice.code, "{}", notice.message);
            } else {
                tracing::info!(server = %self.peer, code = notice.code, "{}", notice.message);
            }
        }
    }

    fn parameter(&mut self, body: &[u8]) -> Result<(), ReplicationError> {
        let mut cursor = Cursor::new(body);
        let (Some(name), Some(value)) = (cursor.cstr(), cursor.cstr()) else {
            return Err(self.violation("a parameter without a value"));
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.parameters.insert(text(name), text(value));
        Ok(())
    }

    pub(super) fn violation(&self, what: impl Into<String>) -> ReplicationError {
        ReplicationError::Protocol {
            peer: self.peer.clone(),
            what: what.into(),
        }
    }

    /// The error for a message that has no place here; the server's own where it is one.
    pub(super) fn unexpected(&self, message: &Message, command: &'static str) -> ReplicationError {
        if message.tag != b'E' {
            return self.violation(format!("message {:?} during {command}", char::from(message.tag)));
        }
        let peer = self.peer.clone();
        match ServerError::parse(&message.body).map(Box::new) {
            None => self.violation("an error without its fields"),
            Some(error) if error.is_denied() && error.is_fatal() => ReplicationError::Refused { peer, error },
            Some(error) => ReplicationError::Server { peer, command, error },
        }
    }
}
