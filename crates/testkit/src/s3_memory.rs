//! An S3 server in memory, of the few requests that our data planes make. It checks what covers the body of a PUT, but
//! no signatures; [`S3Server`](crate::S3Server) does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const CRC32C: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");
const SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// What became of the objects that were stored.
#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    /// Headers of the last PUT of each object.
    headers: BTreeMap<String, HeaderMap>,
    ignores_checksums: bool,
    refuses_checksums: bool,
}

/// The server; ends when it is dropped. Every bucket exists. Lists have pages of 100 keys.
#[derive(Debug)]
pub struct MemoryS3 {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    acceptor: JoinHandle<()>,
}

impl MemoryS3 {
    /// Starts a server on a free loopback port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(|request| handle(request, &state));
                    // It fails when the client goes away.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(client), service)
                        .await;
                });
            }
        });
        Ok(Self {
            address,
            state,
            acceptor,
        })
    }

    /// Where it listens, without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on checksums in headers are ignored, as servers do that do not know them.
    pub fn ignore_checksums(&self) {
        self.state().ignores_checksums = true;
    }

    /// From now on requests with checksums in headers are refused, as some servers do.
    pub fn refuse_checksums(&self) {
        self.state().refuses_checksums = true;
    }

    /// What an object, `bucket/key`, holds.
    pub fn object(&self, path: &str) -> Option<Bytes> {
        self.state().objects.get(path).cloned()
    }

    /// A header that came with an object, `bucket/key`, when it was last stored.
    pub fn header(&self, path: &str, name: &str) -> Option<String> {
        let state = self.state();
        let value = state.headers.get(path)?.get(name)?;
        value.to_str().ok().map(str::to_owned)
    }

    /// Stores an object, `bucket/key`.
    pub fn insert(&self, path: &str, data: impl Into<Bytes>) {
        self.state().objects.insert(path.to_owned(), data.into());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoryS3 {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn handle(
    request: Request<Incoming>,
    state: &Mutex<State>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(error(StatusCode::BAD_REQUEST, "IncompleteBody"));
    };
    let body = body.to_bytes();
    let path = parts.uri.path().trim_start_matches('/').to_owned();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match parts.method {
        Method::PUT => put(&mut state, path, parts.headers, body),
        Method::GET if !path.contains('/') => list(&state, &path, parts.uri.query().unwrap_or("")),
        Method::GET | Method::HEAD => get(&state, &path, &parts.headers),
        Method::DELETE => {
            state.objects.remove(&path);
            answer(StatusCode::NO_CONTENT, Bytes::new())
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    })
}

fn put(state: &mut State, path: String, headers: HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if state.refuses_checksums && headers.contains_key(CRC32C) {
        return error(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    let unsigned = text(&SHA256) == Some("UNSIGNED-PAYLOAD");
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&body));
    if !unsigned && text(&SHA256) != Some(digest.as_str()) {
        return error(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch");
    }
    let mut response = answer(StatusCode::OK, Bytes::new());
    if let (false, Some(sent)) = (state.ignores_checksums, headers.get(CRC32C)) {
        let crc = data_encoding::BASE64.encode(&crc32c::crc32c(&body).to_be_bytes());
        if sent.as_bytes() != crc.as_bytes() {
            return error(StatusCode::BAD_REQUEST, "BadDigest");
        }
        response.headers_mut().insert(CRC32C, sent.clone());
    }
    state.objects.insert(path.clone(), body);
    state.headers.insert(path, headers);
    response
}

fn get(state: &State, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let Some(object) = state.objects.get(path) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let range = headers.get("range").and_then(|range| range.to_str().ok());
    let Some((start, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return answer(StatusCode::OK, object.clone());
    };
    let start: usize = start.parse().unwrap_or(0);
    if start >= object.len() {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    }
    let end = last.parse().map_or(object.len(), |last: usize| {
        object.len().min(last.saturating_add(1))
    });
    let mut response = answer(StatusCode::PARTIAL_CONTENT, object.slice(start..end));
    let range = format!("bytes {start}-{}/{}", end - 1, object.len());
    response
        .headers_mut()
        .extend(HeaderValue::from_str(&range).map(|value| (http::header::CONTENT_RANGE, value)));
    response
}

fn list(state: &State, bucket: &str, query: &str) -> Response<Full<Bytes>> {
    use std::fmt::Write;
    let value = |name: &str| {
        let found = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or("").replace("%2F", "/")
    };
    let (prefix, token) = (value("prefix"), value("continuation-token"));
    let root = format!("{bucket}/");
    let mut text = String::new();
    let (mut count, mut last) = (0, "");
    for (path, data) in &state.objects {
        let Some(key) = path.strip_prefix(&root) else {
            continue;
        };
        if !key.starts_with(&prefix) || key <= token.as_str() {
            continue;
        }
        if count == 100 {
            let _ = write!(text, "<NextContinuationToken>{last}</NextContinuationToken>");
            break;
        }
        (count, last) = (count + 1, key);
        let _ = write!(
            text,
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-21T10:00:00.000Z</LastModified></Contents>",
            data.len()
        );
    }
    let text = format!("<ListBucketResult>{text}</ListBucketResult>");
    answer(StatusCode::OK, text.into())
}

fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let text = format!("<Error><Code>{code}</Code><Message>because</Message></Error>");
    answer(status, text.into())
}

fn answer(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("etag", HeaderValue::from_static("\"tag\""));
    headers.insert(
        "last-modified",
        HeaderValue::from_static("Sat, 21 Nov 2026 10:00:00 GMT"),
    );
    response
}
