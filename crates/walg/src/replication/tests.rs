//! The client against a scripted server: what it says is written down here byte by byte, in any cutting.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use holdfast_fault::{Class, Fault as _};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::wire::{Channel, Row, split_message};
use super::*;
use crate::lsn::Lsn;

/// Builds what a server says.
#[derive(Clone, Default)]
struct Script(BytesMut);

impl Script {
    fn message(mut self, tag: u8, body: &[u8]) -> Self {
        self.0.put_u8(tag);
        self.0.put_u32(u32::try_from(body.len()).unwrap() + 4);
        self.0.put_slice(body);
        self
    }

    fn row(self, columns: &[Option<&str>]) -> Self {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            match column {
                None => body.put_i32(-1),
                Some(text) => {
                    body.put_i32(i32::try_from(text.len()).unwrap());
                    body.extend(text.as_bytes());
                }
            }
        }
        self.message(b'T', b"\0\0").message(b'D', &body)
    }

    fn complete(self) -> Self {
        self.message(b'C', b"SELECT\0")
    }

    fn ready(self) -> Self {
        self.message(b'Z', b"I")
    }

    fn error(self, severity: &str, code: &str, text: &str) -> Self {
        self.message(b'E', format!("SX\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
    }

    fn hello(version: &str) -> Self {
        Self::default()
            .message(b'R', &[0; 4])
            .message(b'S', format!("server_version\0{version}\0").as_bytes())
            .message(b'K', &[0; 8])
            .ready()
    }

    /// The answer to BASE_BACKUP up to the first file.
    fn backup(self) -> Self {
        self.row(&[Some("0/2000028"), Some("3")])
            .complete()
            .row(&[Some("16390"), Some("/ts"), Some("7")])
            .message(b'D', b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x0212")
            .complete()
            .message(b'H', b"\0\0\0")
    }

    fn streaming(self) -> Self {
        self.row(&[Some("30ms")])
            .complete()
            .ready()
            .message(b'W', b"\0\0\0")
    }

    fn wal(self, start: u64, data: &[u8]) -> Self {
        let mut body = vec![b'w'];
        for number in [start, start + data.len() as u64, 0] {
            body.extend(number.to_be_bytes());
        }
        body.extend(data);
        self.message(b'd', &body)
    }
}

fn options() -> ConnectOptions {
    let mut options = ConnectOptions::new("db", "standby");
    options.password = Some("secret".into());
    options.idle_timeout = Duration::from_secs(20);
    options
}

/// A connection to a server that says this, in pieces of at most `piece` bytes; and the server's end.
async fn connect(
    script: Script,
    piece: usize,
    options: &ConnectOptions,
) -> (
    Result<Connection, ReplicationError>,
    tokio::task::JoinHandle<DuplexStream>,
) {
    let (client, mut server) = duplex(piece);
    let (mut kept, mut from_client) = duplex(1 << 20);
    let server = tokio::spawn(async move {
        // Reads all the time, for a small pipe would block the client's writes otherwise.
        let (mut incoming, mut outgoing) = tokio::io::split(&mut server);
        let copy = async { tokio::io::copy(&mut incoming, &mut kept).await };
        let talk = async {
            outgoing.write_all(&script.0).await.ok();
            // Silence, not the end: that is the test's to decide.
            std::future::pending::<()>().await;
        };
        tokio::select! { _ = copy => {}, () = talk => {} }
        from_client.flush().await.ok();
        drop(kept);
        from_client
    });
    let peer = Peer::new(&options.host, options.port, &options.user);
    let channel = Channel::new(Box::new(client), peer, options.idle_timeout);
    (
        Connection::establish(channel, options, &auth::EndPoint::Plain).await,
        server,
    )
}

async fn connected(script: Script, piece: usize) -> Connection {
    connect(script, piece, &options()).await.0.unwrap()
}

/// Everything the client said before it hung up.
async fn heard(server: tokio::task::JoinHandle<DuplexStream>) -> Vec<u8> {
    let mut all = Vec::new();
    server.await.unwrap().read_to_end(&mut all).await.unwrap();
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A TCP server that answers the first eight bytes (a request for TLS) like this and then is silent.
async fn listener(answer: &'static [u8]) -> (ConnectOptions, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = ConnectOptions::new("127.0.0.1", "standby");
    options.port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u64().await.unwrap();
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    });
    (options, task)
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named() {
    let (mut options, silent) = listener(b"").await;
    options.connect_timeout = Duration::from_millis(50);
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Transient, "ConnectTimedOut")
    );
    assert_eq!(
        error.to_string(),
        format!("no connection to 127.0.0.1:{} within 0.05 s", options.port)
    );

    silent.abort();
    assert!(silent.await.unwrap_err().is_cancelled());
    options.connect_timeout = Duration::from_secs(20);
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Transient, "ConnectFailed")
    );
    assert!(error.to_string().contains(&options.port.to_string()), "{error}");
}

#[tokio::test]
async fn no_plain_text_goes_out_where_tls_is_required() {
    let (mut options, _server) = listener(b"N").await;
    options.ssl_mode = SslMode::Require;
    let error = Connection::connect(&options).await.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Invalid, "TlsUnavailable")
    );
    // Bytes slipped in behind the answer are not taken for the server's.
    let (mut options, _server) = listener(b"SR\0\0\0\x08\0\0\0\0").await;
    options.ssl_mode = SslMode::Require;
    assert_eq!(
        Connection::connect(&options).await.unwrap_err().reason(),
        "TlsFailed"
    );
}

#[test]
fn everything_can_run_in_a_task() {
    fn sendable<T: Send>(_: impl FnOnce(Connection, ConnectOptions, BaseBackupOptions) -> T) {}
    sendable(|_, options, _| async move { Connection::connect(&options).await });
    sendable(|connection, _, options| async move { connection.base_backup(&options).await });
    sendable(|connection, _, _| async move { connection.start_physical(None, Lsn(0), 1).await });
    sendable(|mut connection, _, _| async move { connection.identify_system().await });
}

#[tokio::test]
async fn an_old_server_is_refused_by_its_version() {
    let error = connect(Script::hello("14.9 (Debian 14.9-1)"), 64, &options())
        .await
        .0
        .unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Invalid, "UnsupportedVersion")
    );
    assert!(
        error
            .to_string()
            .starts_with("db:5432 is PostgreSQL 14.9 (Debian 14.9-1);"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bare_password_is_not_sent_without_tls() {
    let (result, server) = connect(Script::default().message(b'R', &[0, 0, 0, 3]), 64, &options()).await;
    let error = result.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Denied, "CleartextPasswordRefused")
    );
    let heard = heard(server).await;
    assert!(heard.windows(7).any(|part| part == b"standby"));
    assert!(!heard.windows(6).any(|part| part == b"secret"));
}

#[tokio::test]
async fn a_refused_user_is_named_without_the_password() {
    let script = Script::default().error("FATAL", "28P01", "password authentication failed");
    let error = connect(script, 64, &options()).await.0.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Denied, "AuthenticationFailed")
    );
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("db:5432 refuses user \"standby\"") && !text.contains("secret"),
        "{text}"
    );
}

#[tokio::test]
async fn commands_answer_and_errors_leave_the_connection_usable() {
    let script = Script::hello("17.6")
        .row(&[Some("7710587755684496445"), Some("2"), Some("1A/FF000028"), None])
        .complete()
        .ready()
        .error("ERROR", "42501", "must be superuser")
        .ready()
        .row(&[Some("64MB")])
        .complete()
        .message(b'N', b"SX\0VWARNING\0C01000\0Mnote\0\0")
        .ready()
        .row(&[Some("on")])
        .complete()
        .ready()
        .error("FATAL", "57P01", "terminating connection");
    let (connection, server) = connect(script, 1 << 16, &options()).await;
    let mut connection = connection.unwrap();
    assert_eq!(connection.server_version(), 170_006);
    let identity = connection.identify_system().await.unwrap();
    assert_eq!(
        identity,
        SystemIdentity {
            system_id: 7_710_587_755_684_496_445,
            timeline: 2,
            xlogpos: Lsn(0x1A_FF00_0028)
        }
    );
    assert!(
        connection
            .show("data_directory")
            .await
            .unwrap_err()
            .is_permission_denied()
    );
    assert_eq!(connection.wal_segment_size().await.unwrap().bytes(), 64 << 20);
    assert!(connection.is_in_recovery().await.unwrap());
    assert!(matches!(
        connection.show("a; b").await,
        Err(ReplicationError::Options(_))
    ));
    // The server hangs up after a fatal error; the error is what is told.
    server.abort();
    let error = connection.identify_system().await.unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.reason()),
        (Some("57P01"), "ServerShutDown")
    );
}

#[tokio::test]
async fn a_dropped_command_makes_the_connection_unusable() {
    let mut connection = connected(Script::hello("17.6"), 64).await;
    let pending = futures::FutureExt::now_or_never(connection.identify_system());
    assert!(pending.is_none());
    assert_eq!(
        connection.identify_system().await.unwrap_err().reason(),
        "ConnectionAbandoned"
    );
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let mut options = options();
    options.idle_timeout = Duration::from_millis(20);
    let (connection, _server) = connect(Script::hello("17.6"), 64, &options).await;
    let error = connection.unwrap().identify_system().await.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Transient, "ServerSilent")
    );
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_backup_is_the_servers_own() {
    let script = Script::hello("15.20")
        .backup()
        .message(b'd', b"nbase.tar\0\0")
        .error(
            "ERROR",
            "XX001",
            "checksum verification failure during base backup",
        );
    let connection = connected(script, 64).await;
    let mut backup = connection
        .base_backup(&BaseBackupOptions::default())
        .await
        .unwrap();
    assert!(matches!(
        backup.next().await,
        Ok(Some(BackupEvent::Archive { .. }))
    ));
    let error = backup.next().await.unwrap_err();
    assert_eq!(
        (error.sqlstate(), error.reason()),
        (Some("XX001"), "DataCorrupted")
    );
    assert_eq!(error.class(), Class::Invalid);
    assert_eq!(backup.next().await.unwrap_err().reason(), "ConnectionAbandoned");
    assert_eq!(backup.end(), None);
}

#[tokio::test]
async fn a_backup_that_the_server_breaks_off_is_no_backup() {
    let (connection, server) = connect(
        Script::hello("15.20").backup().message(b'd', b"dxy"),
        64,
        &options(),
    )
    .await;
    let mut backup = connection
        .unwrap()
        .base_backup(&BaseBackupOptions::default())
        .await
        .unwrap();
    assert_eq!(
        backup.next().await.unwrap(),
        Some(BackupEvent::Data(Bytes::from_static(b"xy")))
    );
    server.abort();
    let error = backup.next().await.unwrap_err();
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Transient, "ConnectionLost")
    );
}

#[tokio::test]
async fn a_stream_tells_where_the_next_timeline_begins() {
    let script = Script::hello("17.6")
        .streaming()
        .wal(0x200_0000, b"abc")
        .message(b'd', &[b"k".as_slice(), &[0; 17]].concat())
        .wal(0x200_0003, b"de")
        .message(b'c', b"")
        .row(&[Some("4"), Some("0/2000005")])
        .complete()
        .complete()
        .ready();
    let (connection, server) = connect(script, 64, &options()).await;
    let mut stream = connection
        .unwrap()
        .start_physical(Some("s"), Lsn(0x200_0000), 3)
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.unwrap() {
        assert_eq!(chunk.start.0, 0x200_0000 + got.len() as u64);
        got.extend(chunk.data);
    }
    assert_eq!(got, b"abcde");
    assert_eq!(
        stream.next_timeline(),
        Some(NextTimeline {
            timeline: 4,
            start: Lsn(0x200_0005)
        })
    );
    assert_eq!(stream.next().await.unwrap(), None);
    let heard = heard(server).await;
    let command = b"START_REPLICATION SLOT \"s\" PHYSICAL 0/2000000 TIMELINE 3\0";
    assert!(heard.windows(command.len()).any(|part| part == command));
    assert!(heard.ends_with(b"c\0\0\0\x04X\0\0\0\x04"), "{heard:?}");
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_a_stream_with_that_reason() {
    let script = Script::hello("17.6").streaming().message(b'C', b"COPY 0\0");
    let mut stream = connected(script, 64)
        .await
        .start_physical(None, Lsn(0x200_0000), 3)
        .await
        .unwrap();
    assert_eq!(stream.next().await.unwrap_err().reason(), "ServerShutDown");
    assert_eq!(stream.next().await.unwrap_err().reason(), "ConnectionAbandoned");
}

#[tokio::test]
async fn status_updates_go_out_while_the_caller_does_nothing() {
    let (client, mut server) = duplex(1 << 20);
    let mut script = Script::hello("17.6").streaming();
    for piece in 0..10 {
        script = script.wal(0x200_0000 + piece, b"x");
    }
    server.write_all(&script.0).await.unwrap();
    let options = options();
    let channel = Channel::new(
        Box::new(client),
        Peer::new("db", 5432, "standby"),
        options.idle_timeout,
    );
    let connection = Connection::establish(channel, &options, &auth::EndPoint::Plain)
        .await
        .unwrap();
    let stream = connection.start_physical(None, Lsn(0x200_0000), 1).await.unwrap();
    stream.acknowledge(Lsn(0x200_0001));
    // Nothing is ever taken from the stream: it stops reading when it is full, and goes on reporting.
    let (mut input, mut updates) = (BytesMut::new(), Vec::new());
    skip_startup(&mut server, &mut input).await;
    while updates.len() < 3 {
        let message = loop {
            if let Ok(message) = split_message(&mut input).unwrap() {
                break message;
            }
            let read = tokio::time::timeout(Duration::from_secs(20), server.read_buf(&mut input)).await;
            assert!(read.expect("a status update in time").unwrap() > 0);
        };
        if message.tag == b'd' && message.body[1..9] == (0x200_0000 + WAL_READ_AHEAD as u64).to_be_bytes() {
            updates.push(message.body);
        }
    }
    for update in updates {
        assert_eq!((update[0], update.len(), update[33]), (b'r', 34, 1));
        assert_eq!(update[9..17], 0x200_0001u64.to_be_bytes());
    }
    // Leaving in order drops what is left and says so.
    let goodbye = Script::default().message(b'c', b"").complete().ready();
    server.write_all(&goodbye.0).await.unwrap();
    stream.finish().await.unwrap();
    input.clear();
    while server.read_buf(&mut input).await.unwrap() > 0 {}
    assert!(input.ends_with(b"c\0\0\0\x04X\0\0\0\x04"), "{input:?}");
}

/// The startup message has no tag.
async fn skip_startup(server: &mut DuplexStream, input: &mut BytesMut) {
    let length = server.read_u32().await.unwrap() as usize;
    while input.len() < length - 4 {
        assert!(server.read_buf(input).await.unwrap() > 0);
    }
    drop(input.split_to(length - 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_backup_reads_the_same_in_any_cutting(piece in 1usize..100, sizes in proptest::collection::vec(0usize..3000, 0..6)) {
        runtime().block_on(async {
            let mut script = Script::hello("15.20").backup().message(b'd', b"n16390.tar\0/ts\0");
            let mut expected = vec![BackupEvent::Archive { name: "16390.tar".into(), location: Some("/ts".into()) }];
            for (nth, size) in sizes.iter().enumerate() {
                let data = vec![u8::try_from(nth).unwrap(); *size];
                script = script
                    .message(b'd', &[b"d", data.as_slice()].concat())
                    .message(b'd', &[b"p", (nth as u64).to_be_bytes().as_slice()].concat());
                expected.push(BackupEvent::Data(data.into()));
                expected.push(BackupEvent::Progress(nth as u64));
            }
            script = script
                .message(b'd', b"nbase.tar\0\0")
                .message(b'd', b"m")
                .message(b'd', b"d{}")
                .message(b'c', b"")
                .row(&[Some("0/3000100"), Some("3")])
                .complete()
                .complete()
                .ready();
            expected.push(BackupEvent::Archive { name: "base.tar".into(), location: None });
            expected.push(BackupEvent::ManifestStarted);
            expected.push(BackupEvent::Data(Bytes::from_static(b"{}")));

            let connection = connected(script, piece).await;
            let mut backup = connection.base_backup(&BaseBackupOptions::default()).await.unwrap();
            assert_eq!((backup.start_lsn(), backup.timeline()), (Lsn(0x200_0028), 3));
            let base = Tablespace { oid: None, location: None, size_kib: Some(12) };
            let other = Tablespace { oid: Some(16390), location: Some("/ts".into()), size_kib: Some(7) };
            assert_eq!(backup.tablespaces(), [other, base]);
            let mut events = Vec::new();
            while let Some(event) = backup.next().await.unwrap() {
                events.push(event);
            }
            assert_eq!(events, expected);
            assert_eq!(backup.end(), Some(BackupEnd { finish_lsn: Lsn(0x300_0100), timeline: 3 }));
        });
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut input = BytesMut::from(bytes.as_slice());
        while let Ok(Ok(_)) = split_message(&mut input) {}
        let bytes = Bytes::from(bytes);
        Row::parse(&bytes);
        ServerError::parse(&bytes);
    }
}

#[test]
fn a_length_that_no_server_sends_is_refused_before_it_is_allocated() {
    for input in [
        b"HTTP/1.1 400 Bad Request".as_slice(),
        b"d\0\0\0\x03",
        b"d\x7f\xff\xff\xff",
    ] {
        assert!(split_message(&mut BytesMut::from(input)).is_err());
    }
    assert_eq!(
        split_message(&mut BytesMut::from(b"d\0\0\0\x09ab".as_slice())),
        Ok(Err(3))
    );
    assert_eq!(split_message(&mut BytesMut::new()), Ok(Err(5)));
}
