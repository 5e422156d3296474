//! The admin server: `/livez`, `/readyz`, `/metrics` and what the deployable adds.
//!
//! It listens on a port that probes and Prometheus reach, so a client that sends nothing, slowly, or on many connections must
//! not be able to wear it down: heads have a time-out, connections a limit, request bodies are never read.

use std::{
    collections::BTreeMap, convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, readiness::Readiness};

/// How long a client may take to send a request's head, and to stay silent between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections are served at once; further ones are closed on arrival.
const CONNECTIONS: usize = 64;
/// How long open connections may go on after the stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// An answer of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Content type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// 200 with plain text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// 200 with a JSON document.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body: body.into(),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

type Handler = Arc<dyn Fn() -> BoxFuture<'static, Reply> + Send + Sync>;

/// The server, bound but not serving yet.
pub struct Admin {
    listener: TcpListener,
    routes: BTreeMap<&'static str, Handler>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("routes", &self.routes.keys())
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// Binds the address and adds the three standard routes. Port 0 takes a free one.
    pub async fn bind(address: SocketAddr, readiness: &Readiness, metrics: &Metrics) -> io::Result<Self> {
        let admin = Self {
            listener: TcpListener::bind(address).await?,
            routes: BTreeMap::new(),
        };
        let (readiness, metrics) = (readiness.clone(), metrics.clone());
        Ok(admin
            .route("/livez", || Box::pin(std::future::ready(Reply::text("ok\n"))))
            .route("/readyz", move || Box::pin(std::future::ready(ready(&readiness))))
            .route("/metrics", move || Box::pin(std::future::ready(scrape(&metrics)))))
    }

    /// Adds a route that answers GET under exactly this path, or replaces it.
    #[must_use]
    pub fn route(
        mut self,
        path: &'static str,
        handler: impl Fn() -> BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Self {
        self.routes.insert(path, Arc::new(handler));
        self
    }

    /// The address it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled, then lets open requests end within two seconds.
    pub async fn serve(self, stop: CancellationToken) {
        let (places, routes) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(self.routes));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            // Reaps those that ended, so that the set does not grow.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = places.clone().try_acquire_owned() {
                        let (routes, stop) = (routes.clone(), stop.clone());
                        connections.spawn(async move {
                            connection(stream, routes, stop).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept a connection on the admin port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let drained = tokio::time::timeout(STOP_GRACE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        if drained.is_err() {
            tracing::debug!(
                open = connections.len(),
                "closing admin connections that are still open"
            );
        }
    }
}

async fn connection(
    stream: TcpStream,
    routes: Arc<BTreeMap<&'static str, Handler>>,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = routes.get(request.uri().path()).cloned();
        let known = matches!(*request.method(), Method::GET | Method::HEAD);
        async move {
            let reply = match handler {
                None => Reply::text("not found\n").with_status(StatusCode::NOT_FOUND),
                Some(_) if !known => Reply::text("only GET\n").with_status(StatusCode::METHOD_NOT_ALLOWED),
                Some(handler) => handler().await,
            };
            Ok::<_, Infallible>(response(reply))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(reply.content_type));
    response
}

fn ready(readiness: &Readiness) -> Reply {
    let missing = readiness.missing();
    if missing.is_empty() {
        return Reply::text("ok\n");
    }
    let lines = format!(
        "waiting for {}
",
        missing.join(
            "
waiting for "
        )
    );
    Reply::text(lines).with_status(StatusCode::SERVICE_UNAVAILABLE)
}

fn scrape(metrics: &Metrics) -> Reply {
    match metrics.render() {
        Ok(text) => Reply {
            content_type: prometheus::TEXT_FORMAT,
            ..Reply::text(text)
        },
        Err(error) => {
            tracing::error!(error = crate::api_error::chain(&error), "scrape failed");
            Reply::text(format!("{error}\n")).with_status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests;
