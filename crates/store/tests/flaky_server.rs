//! The store against an S3 server of a few lines that fails on purpose.

#![allow(
    clippy::unwrap_used,
    reason = "a test; the lint's own exception does not see helpers outside test functions"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_fault::{Class, Fault};
use holdfast_store::{Absent, PART_BYTES, RetryPolicy, Store, StoreConfig, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How the server treats a request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    /// Answers 503.
    Busy,
    /// Does what is asked, and closes the connection without an answer.
    Forgets,
    /// Closes the connection at once.
    HangsUp,
    /// Sends half of the body and closes the connection.
    Stutters,
    /// Sends a byte of the body every third of a second.
    Drips,
    /// Takes the request and never answers.
    Sleeps,
    /// Answers as S3 does for a bucket that does not exist.
    NoBucket,
    /// Answers as S3 does for a wrong secret.
    Refuses,
    /// Answers 400, as S3 does for the name of a bucket that cannot be one.
    BadName,
    /// Answers 400, as S3 does when a body came too slowly.
    TooSlow,
    /// Answers as S3 does when the object is another one than before.
    Replaced,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    /// Moods of requests to come, by method.
    moods: BTreeMap<&'static str, VecDeque<Mood>>,
    log: Vec<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.into(),
    })
}

struct Answer {
    status: &'static str,
    body: Bytes,
    length: usize,
}

impl Answer {
    fn new(status: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            length: body.len(),
            body,
        }
    }

    fn error(status: &'static str, code: &str) -> Self {
        Self::new(
            status,
            format!("<Error><Code>{code}</Code><Message>because</Message></Error>"),
        )
    }
}

impl Server {
    async fn start() -> (Self, Store) {
        Self::start_for(Duration::from_secs(20)).await
    }

    /// With a client that tries everything for so long.
    async fn start_for(total: Duration) -> (Self, Store) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let running = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(running.clone().serve(stream));
            }
        });
        let variables = [
            ("WALG_S3_PREFIX", "s3://backups/base"),
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let variables = variables
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let retry = RetryPolicy {
            total,
            attempt: Duration::from_millis(400),
            first_delay: Duration::from_millis(5),
            max_delay: Duration::from_millis(20),
        };
        let store = Store::open(&StoreConfig::from_variables(&variables).unwrap(), retry).unwrap();
        (server, store)
    }

    fn will(&self, method: &'static str, moods: impl IntoIterator<Item = Mood>) {
        self.0
            .lock()
            .unwrap()
            .moods
            .entry(method)
            .or_default()
            .extend(moods);
    }

    fn object(&self, key: &str) -> Option<Bytes> {
        self.0
            .lock()
            .unwrap()
            .objects
            .get(&format!("/backups/base/{key}"))
            .cloned()
    }

    fn count(&self, method: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .log
            .iter()
            .filter(|line| line.starts_with(method))
            .count()
    }

    fn open_uploads(&self) -> usize {
        self.0.lock().unwrap().uploads.len()
    }

    async fn serve(self, mut stream: TcpStream) {
        while let Some(request) = read_request(&mut stream).await {
            let mood = {
                let mut state = self.0.lock().unwrap();
                state
                    .log
                    .push(format!("{} {}?{}", request.method, request.path, request.query));
                state
                    .moods
                    .get_mut(request.method.as_str())
                    .and_then(VecDeque::pop_front)
            };
            let answer = match mood {
                Some(Mood::HangsUp) => return,
                Some(Mood::Sleeps) => std::future::pending().await,
                Some(Mood::Busy) => Answer::error("503 Slow Down", "SlowDown"),
                Some(Mood::NoBucket) => Answer::error("404 Not Found", "NoSuchBucket"),
                Some(Mood::Refuses) => Answer::error("403 Forbidden", "SignatureDoesNotMatch"),
                Some(Mood::BadName) => Answer::error("400 Bad Request", "InvalidBucketName"),
                Some(Mood::Replaced) => Answer::error("412 Precondition Failed", "PreconditionFailed"),
                Some(Mood::TooSlow) => Answer::error("400 Bad Request", "RequestTimeout"),
                Some(Mood::Forgets) => {
                    self.answer(&request);
                    return;
                }
                Some(Mood::Drips) => {
                    let answer = self.answer(&request);
                    let body = answer.body.clone();
                    let head = Answer {
                        body: Bytes::new(),
                        ..answer
                    };
                    self.send(&mut stream, &request, head).await;
                    for byte in body {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        if stream.write_all(&[byte]).await.is_err() {
                            return;
                        }
                    }
                    return;
                }
                Some(Mood::Stutters) => {
                    let mut answer = self.answer(&request);
                    answer.body = answer.body.slice(..answer.length / 2);
                    self.send(&mut stream, &request, answer).await;
                    return;
                }
                None => self.answer(&request),
            };
            self.send(&mut stream, &request, answer).await;
        }
    }

    async fn send(&self, stream: &mut TcpStream, request: &Request, answer: Answer) {
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Length: {}\r\nETag: \"tag\"\r\nLast-Modified: Sat, 21 Nov 2026 10:00:00 GMT\r\n\r\n",
            answer.status, answer.length
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        if request.method != "HEAD" {
            stream.write_all(&answer.body).await.unwrap();
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut state = self.0.lock().unwrap();
        let part = |name: &str| {
            request
                .query
                .split('&')
                .find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
        };
        match (request.method.as_str(), part("uploadId")) {
            ("POST", None) => {
                let id = format!("upload-{}", state.log.len());
                state.uploads.insert(id.clone(), BTreeMap::new());
                let body = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                Answer::new("200 OK", body)
            }
            ("POST", Some(id)) => match state.uploads.remove(&id) {
                None => Answer::error("404 Not Found", "NoSuchUpload"),
                Some(parts) => {
                    let whole: Vec<u8> = parts.into_values().flatten().collect();
                    state.objects.insert(request.path.clone(), whole.into());
                    let body =
                        "<CompleteMultipartUploadResult><ETag>t</ETag></CompleteMultipartUploadResult>";
                    Answer::new("200 OK", body)
                }
            },
            ("PUT", Some(id)) => {
                let number = part("partNumber").unwrap().parse().unwrap();
                state
                    .uploads
                    .get_mut(&id)
                    .unwrap()
                    .insert(number, request.body.clone());
                Answer::new("200 OK", "")
            }
            ("PUT", None) => {
                let exists = state.objects.contains_key(&request.path);
                if exists && request.headers.contains_key("if-none-match") {
                    return Answer::error("412 Precondition Failed", "PreconditionFailed");
                }
                state.objects.insert(request.path.clone(), request.body.clone());
                Answer::new("200 OK", "")
            }
            ("DELETE", Some(id)) => {
                state.uploads.remove(&id);
                Answer::new("204 No Content", "")
            }
            ("GET" | "HEAD", _) => match state.objects.get(&request.path) {
                None => Answer::error("404 Not Found", "NoSuchKey"),
                Some(object) => match request.headers.get("range") {
                    None => Answer::new("200 OK", object.clone()),
                    Some(range) => {
                        let (start, last) = range["bytes=".len()..].split_once('-').unwrap();
                        let start: usize = start.parse().unwrap();
                        if start >= object.len() {
                            return Answer::error("416 Range Not Satisfiable", "InvalidRange");
                        }
                        let end = last
                            .parse()
                            .map_or(object.len(), |last: usize| object.len().min(last + 1));
                        let rest = object.slice(start..end);
                        let status = format!(
                            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                            end - 1,
                            object.len()
                        );
                        Answer::new(status.leak(), rest)
                    }
                },
            },
            _ => Answer::error("405 Method Not Allowed", "MethodNotAllowed"),
        }
    }
}

fn data(length: usize) -> Bytes {
    (0..length)
        .map(|index| (index * 7 + index / 251).to_le_bytes()[0])
        .collect()
}

#[tokio::test]
async fn a_server_that_fails_for_a_while_is_survived() {
    let (server, store) = Server::start().await;
    server.will("PUT", [Mood::Busy, Mood::HangsUp, Mood::Sleeps, Mood::Forgets]);
    store.put("a", data(1000)).await.unwrap();
    assert_eq!(server.object("a"), Some(data(1000)));
    assert_eq!(server.count("PUT"), 5);
}

#[tokio::test]
async fn what_is_final_is_not_tried_again_and_names_the_object() {
    let (server, store) = Server::start().await;
    server.will("PUT", [Mood::NoBucket, Mood::Refuses]);
    let error = store.put("a", data(10)).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("bucket \"backups\" does not exist at http://127.0.0.1:"),
        "{error}"
    );
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Invalid, "BucketNotFound")
    );
    let error = store.put("a", data(10)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "put s3://backups/base/a: refused: SignatureDoesNotMatch: because"
    );
    assert_eq!(error.class(), Class::Denied);
    assert_eq!(server.count("PUT"), 2);
}

#[tokio::test]
async fn a_bad_request_is_told_at_once_and_a_slow_one_tried_again() {
    let (server, store) = Server::start().await;
    server.will("HEAD", [Mood::BadName]);
    let error = store.head("a").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "head s3://backups/base/a: rejected: 400 Bad Request, and the server does not say why"
        ) && text.contains("bucket (backups)")
            && text.contains("endpoint (http://127.0.0.1:"),
        "{text}"
    );
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Invalid, "StorageRejected")
    );
    assert_eq!(server.count("HEAD"), 1);
    // Every other answer has a body, which says it better than we can.
    server.will("GET", [Mood::BadName]);
    let error = store.get("a", 10).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "get s3://backups/base/a: rejected: InvalidBucketName: because"
    );
    assert_eq!(server.count("GET"), 1);
    server.will("PUT", [Mood::TooSlow, Mood::TooSlow]);
    store.put("a", data(10)).await.unwrap();
    assert_eq!(server.count("PUT"), 3);
}

#[tokio::test]
async fn a_server_that_stays_away_ends_in_time() {
    let policy = RetryPolicy {
        total: Duration::from_millis(200),
        ..RetryPolicy::default()
    };
    let config = StoreConfig::from_variables(&BTreeMap::from([
        ("WAL_S3_BUCKET".to_owned(), "backups".to_owned()),
        // Nothing listens on the first port.
        ("AWS_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned()),
        ("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned()),
    ]));
    let absent = Store::open(&config.unwrap(), policy).unwrap();
    let error = absent.put("a", data(10)).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(
        matches!(error, StoreError::Unavailable { attempts: 1.., .. }),
        "{error}"
    );
    assert!(!error.to_string().contains("hush"));
}

#[tokio::test]
async fn creating_tells_whether_it_was_us() {
    let (server, store) = Server::start().await;
    assert_eq!(store.put_if_absent("a", data(10)).await.unwrap(), Absent::Created);
    assert_eq!(store.put_if_absent("a", data(11)).await.unwrap(), Absent::Existed);
    assert_eq!(server.object("a"), Some(data(10)));
    // The answer to the first attempt is lost; the second one is refused, and still it was us.
    server.will("PUT", [Mood::Forgets]);
    assert_eq!(store.put_if_absent("b", data(12)).await.unwrap(), Absent::Created);
}

#[tokio::test]
async fn parts_are_sent_again_from_memory() {
    let (server, store) = Server::start().await;
    server.will("PUT", [Mood::HangsUp, Mood::Busy, Mood::Forgets]);
    server.will("POST", [Mood::Busy]);
    let whole = data(usize::try_from(PART_BYTES).unwrap() * 2 + 12_345);
    let mut upload = store.upload("large");
    for piece in whole.chunks(1 << 20) {
        upload.write(whole.slice_ref(piece).into()).await.unwrap();
    }
    let stored = upload.finish().await.unwrap();
    assert_eq!(stored.size, whole.len() as u64);
    assert!(server.object("large") == Some(whole), "the object differs");
    assert_eq!(server.open_uploads(), 0);
    // The answer to the completion is lost: looking at the object tells that it succeeded.
    let mut upload = store.upload("lost");
    upload
        .write(data(usize::try_from(PART_BYTES).unwrap()).into())
        .await
        .unwrap();
    server.will("POST", [Mood::Forgets]);
    upload.finish().await.unwrap();
}

#[tokio::test]
async fn an_upload_given_up_leaves_nothing_behind() {
    let (server, store) = Server::start().await;
    let mut upload = store.upload("large");
    upload
        .write(data(usize::try_from(PART_BYTES).unwrap()).into())
        .await
        .unwrap();
    drop(upload);
    assert_eq!(server.open_uploads(), 1);
    assert_eq!(store.abort_open_uploads(Duration::from_secs(5)).await, 0);
    assert_eq!(server.open_uploads(), 0);
    assert_eq!(server.object("large"), None);
}

#[tokio::test]
async fn an_upload_leaves_an_existing_object_alone() {
    let (server, store) = Server::start().await;
    store.put("wal", data(5)).await.unwrap();
    for size in [10, usize::try_from(PART_BYTES).unwrap() + 10] {
        let mut upload = store.upload_if_absent("wal");
        upload.write(data(size).into()).await.unwrap();
        assert_eq!(upload.finish().await.unwrap().outcome, Absent::Existed);
    }
    assert_eq!(server.object("wal"), Some(data(5)));
    assert_eq!(server.open_uploads(), 0);
}

#[tokio::test]
async fn reading_goes_on_where_the_connection_broke() {
    let (server, store) = Server::start().await;
    store.put("a", data(3_000_000)).await.unwrap();
    server.will("GET", [Mood::Stutters, Mood::HangsUp, Mood::Stutters]);
    assert!(
        store.get("a", 4_000_000).await.unwrap() == data(3_000_000),
        "the data differ"
    );
    assert!(
        store
            .get("a", 1000)
            .await
            .unwrap_err()
            .to_string()
            .contains("more than the 1000")
    );
    assert_eq!(store.head("missing").await.unwrap(), None);
    assert!(matches!(
        store.get("missing", 10).await,
        Err(StoreError::NotFound { .. })
    ));
}

#[tokio::test]
async fn an_object_replaced_while_it_is_read_is_told_at_once() {
    let (server, store) = Server::start().await;
    store.put("a", data(3_000_000)).await.unwrap();
    server.will("GET", [Mood::Stutters, Mood::Replaced]);
    let error = store.get("a", 4_000_000).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "s3://backups/base/a: it was replaced while it was read"
    );
    assert_eq!(server.count("GET"), 2);
}

#[tokio::test]
async fn a_range_comes_whole_or_not_at_all() {
    let (server, store) = Server::start().await;
    store
        .put_pieces(
            "a",
            data(3_000_000)
                .chunks(100_000)
                .map(Bytes::copy_from_slice)
                .collect(),
            None,
        )
        .await
        .unwrap();
    server.will("GET", [Mood::Busy, Mood::Stutters, Mood::HangsUp, Mood::Stutters]);
    let range = store.get_range("a", 1_000_001, 1_500_000).await.unwrap();
    assert!(
        range == data(3_000_000).slice(1_000_001..2_500_001),
        "the data differ"
    );
    assert_eq!(server.count("GET"), 5);
    assert_eq!(store.get_range("a", 2_999_999, 1).await.unwrap().len(), 1);
    for (offset, length) in [(2_999_999, 2), (3_000_000, 1), (9_000_000, 5), (u64::MAX, 1)] {
        let error = store.get_range("a", offset, length).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Inconsistent { problem, .. } if problem.contains("are needed")),
            "{error}"
        );
    }
    let missing = store.get_range("missing", 0, 1).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn a_connection_that_is_too_slow_is_left_for_another() {
    let (server, store) = Server::start().await;
    store.put("a", data(100_000)).await.unwrap();
    let begin = Instant::now();
    server.will("GET", [Mood::Drips]);
    assert!(
        store.get("a", 100_000).await.unwrap() == data(100_000),
        "the data differ"
    );
    server.will("GET", [Mood::Drips, Mood::Drips]);
    let range = store.get_range("a", 10, 50_000).await.unwrap();
    assert!(range == data(100_000).slice(10..50_010), "the data differ");
    assert_eq!(server.count("GET"), 5);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_range_that_only_drips_ends_in_time() {
    let (server, store) = Server::start_for(Duration::from_secs(2)).await;
    store.put("a", data(1000)).await.unwrap();
    server.will("GET", [Mood::Drips; 100]);
    let begin = Instant::now();
    let drips = tokio::time::timeout(Duration::from_secs(10), store.get_range("a", 0, 1000)).await;
    let error = drips.expect("it goes on").unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { detail, .. } if detail.contains("too slow")),
        "{error}"
    );
    // No shorter either, and from each connection some came.
    assert!(
        begin.elapsed() > Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    assert!((4..9).contains(&server.count("GET")), "{}", server.count("GET"));
}
