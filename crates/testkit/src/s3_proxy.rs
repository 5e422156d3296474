//! A proxy in front of an S3 server that makes chosen requests go wrong.
//!
//! Unlike [`FaultProxy`](crate::FaultProxy), which cuts connections wherever they are, this one knows requests: it can
//! store an object and lose the answer, or end a download in the middle. The client's signature covers the name of the
//! proxy, which is passed on, so a server that checks signatures is content.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::certs::Pair;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not reach the server; the answer has this status and a body as S3 sends it (`SlowDown` for 503).
    Status(u16),
    /// The connection ends before the whole request was read; it does not reach the server.
    ResetRequest,
    /// The server does it; the connection ends without an answer.
    LoseAnswer,
    /// The server does it; the connection ends in the middle of the answer's body.
    ResetAnswer,
    /// The server does it; the answer has half of its body, and says that this is all.
    TruncateAnswer,
    /// One bit of the request's body is another one when it reaches the server.
    FlipRequest,
    /// It waits this long, then the connection ends; it does not reach the server.
    Stall(Duration),
    /// It waits this long, then all is well.
    Latency(Duration),
}

/// Which requests get into trouble.
#[derive(Clone, Debug)]
pub struct Rule {
    method: Option<Method>,
    prefix: String,
    skip: u64,
    times: u64,
    trouble: Trouble,
}

impl Rule {
    /// Every request.
    pub fn new(trouble: Trouble) -> Self {
        Self {
            method: None,
            prefix: String::new(),
            skip: 0,
            times: u64::MAX,
            trouble,
        }
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Only requests whose path, `bucket/key`, begins so.
    #[must_use]
    pub fn path(mut self, prefix: &str) -> Self {
        prefix.trim_start_matches('/').clone_into(&mut self.prefix);
        self
    }

    /// Only the nth of these requests, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.skip = nth.saturating_sub(1);
        self.times = 1;
        self
    }

    /// At most so many of these requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn applies(&mut self, method: &Method, path: &str) -> bool {
        let wrong_method = self.method.as_ref().is_some_and(|own| own != method);
        if wrong_method || !path.trim_start_matches('/').starts_with(&self.prefix) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let left = self.times > 0;
        self.times = self.times.saturating_sub(1);
        left
    }
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    requests: Vec<(Method, HeaderMap)>,
}

/// The proxy; ends when it is dropped.
#[derive(Debug)]
pub struct S3Proxy {
    address: SocketAddr,
    secure: bool,
    state: Arc<Mutex<State>>,
    acceptor: JoinHandle<()>,
}

impl S3Proxy {
    /// Starts a proxy for the server at `upstream`, which speaks plain HTTP; with a certificate the proxy speaks TLS.
    /// Fails when no loopback port is free or the certificate is none.
    pub async fn start(upstream: SocketAddr, certificate: Option<&Pair>) -> Result<Self> {
        let tls = certificate.map(acceptor).transpose()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let (secure, shared) = (tls.is_some(), Arc::clone(&state));
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(client, upstream, state).await,
                        Some(tls) => {
                            if let Ok(client) = tls.accept(client).await {
                                serve(client, upstream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self {
            address,
            secure,
            state,
            acceptor,
        })
    }

    /// Where clients connect to, as a URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Adds a rule; the first rule that applies to a request decides.
    pub fn add(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.state().rules.clear();
    }

    /// How many requests of a method came so far.
    pub fn count(&self, method: &Method) -> usize {
        let state = self.state();
        state.requests.iter().filter(|(own, _)| own == method).count()
    }

    /// A header of the last request of a method.
    pub fn header(&self, method: &Method, name: &str) -> Option<String> {
        let state = self.state();
        let (_, headers) = state.requests.iter().rfind(|(own, _)| own == method)?;
        headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

fn acceptor(pair: &Pair) -> Result<tokio_rustls::TlsAcceptor> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_slice(pair.public.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(pair.private.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config).into())
}

/// The connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the proxy ends this connection")]
struct Cut;

type Body = UnsyncBoxBody<Bytes, Cut>;

async fn serve(client: impl AsyncRead + AsyncWrite + Unpin, upstream: SocketAddr, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| handle(request, upstream, &state));
    // It fails whenever a rule cuts it.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(client), service)
        .await;
}

async fn handle(
    request: Request<Incoming>,
    upstream: SocketAddr,
    state: &Mutex<State>,
) -> Result<Response<Body>, Cut> {
    let trouble = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let found = state
            .rules
            .iter_mut()
            .find_map(|rule| rule.applies(&method, &path).then_some(rule.trouble));
        state.requests.push((method, request.headers().clone()));
        found
    };
    match trouble {
        Some(Trouble::Status(status)) => return Ok(failure(request, status).await),
        Some(Trouble::ResetRequest) => {
            // A piece of it, so that the client is in the middle of sending.
            let _ = request.into_body().frame().await;
            return Err(Cut);
        }
        Some(Trouble::Stall(time)) => {
            tokio::time::sleep(time).await;
            return Err(Cut);
        }
        Some(Trouble::Latency(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    if trouble == Some(Trouble::FlipRequest) {
        let mut flipped = body.to_vec();
        let middle = flipped.len() / 2;
        if let Some(byte) = flipped.get_mut(middle) {
            *byte ^= 1;
        }
        body = flipped.into();
    }
    let (mut parts, body) = forward(Request::from_parts(parts, Full::new(body)), upstream).await?;
    let half = body.slice(..body.len() / 2);
    match trouble {
        Some(Trouble::LoseAnswer) => Err(Cut),
        Some(Trouble::TruncateAnswer) => {
            parts.headers.remove(http::header::CONTENT_LENGTH);
            Ok(Response::from_parts(parts, whole(half)))
        }
        Some(Trouble::ResetAnswer) => {
            let frames = stream::iter([Ok(Frame::data(half)), Err(Cut)]);
            Ok(Response::from_parts(
                parts,
                StreamBody::new(frames).boxed_unsync(),
            ))
        }
        _ => Ok(Response::from_parts(parts, whole(body))),
    }
}

async fn forward(
    request: Request<Full<Bytes>>,
    upstream: SocketAddr,
) -> Result<(http::response::Parts, Bytes), Cut> {
    let connected = TcpStream::connect(upstream).await.map_err(|_| Cut)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connected))
        .await
        .map_err(|_| Cut)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|_| Cut)?;
        let (parts, body) = answer.into_parts();
        Ok((parts, body.collect().await.map_err(|_| Cut)?.to_bytes()))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before its last answer was taken.
        _ = &mut connection => exchange.await,
    }
}

async fn failure(request: Request<Incoming>, status: u16) -> Response<Body> {
    // What S3 does: the request is read, so that the client gets to read the answer.
    let _ = request.into_body().collect().await;
    let code = if status == 503 {
        "SlowDown"
    } else {
        "InternalError"
    };
    let text = format!("<Error><Code>{code}</Code><Message>injected</Message></Error>");
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
