//! The tower layer around each call.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tower::{BoxError, Layer, Service};

use super::Limits;
use crate::gate::{Gate, NotLeading};

/// A call to the API server got no whole answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} {path}: no answer within {} ms", .deadline.as_millis())]
pub struct DeadlineExceeded {
    /// HTTP method.
    pub method: Method,
    /// Path of the request, without its query.
    pub path: String,
    /// The deadline it exceeded.
    pub deadline: Duration,
}

#[derive(Clone)]
pub(super) struct CallLayer {
    limits: Limits,
    gate: Gate,
    places: Arc<Semaphore>,
}

impl CallLayer {
    pub(super) fn new(limits: Limits, gate: Gate) -> Self {
        Self {
            limits,
            gate,
            places: Arc::new(Semaphore::new(limits.concurrency.max(1))),
        }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Call<S>;

    fn layer(&self, inner: S) -> Call<S> {
        Call {
            inner,
            layer: self.clone(),
        }
    }
}

pub(super) struct Call<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, In, Out> Service<Request<In>> for Call<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    Out: Body<Data = Bytes> + Send + Unpin + 'static,
    Out::Error: Into<BoxError>,
{
    type Response = Response<Bounded<Out>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (deadline, places) = (self.layer.limits.deadline, self.layer.places.clone());
        let streams = streams(&request);
        let writes = !is_safe(request.method());
        let gate = writes.then(|| self.layer.gate.clone());
        let exceeded = DeadlineExceeded {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            deadline,
        };
        // Nothing is sent before the first poll, so the gate below is asked before the request leaves.
        let sent = self.inner.call(request);
        Box::pin(async move {
            let end = Instant::now() + deadline;
            let answer = async {
                let place = places.acquire_owned().await?;
                if let Some(gate) = &gate {
                    gate.check()?;
                }
                Ok::<_, BoxError>((sent.await.map_err(Into::into)?, place))
            };
            // A write in flight when the lease ends is given up, so that it does not land in the next leader's term.
            let lost = async {
                match &gate {
                    Some(gate) => gate.lost().await,
                    None => std::future::pending().await,
                }
            };
            let (response, place) = tokio::select! {
                biased;
                () = pin!(lost) => return Err(NotLeading.into()),
                answer = tokio::time::timeout_at(end, answer) => match answer {
                    Ok(answer) => answer?,
                    Err(_) => return Err(exceeded.into()),
                },
            };
            let limit = (!streams).then(|| Limit {
                sleep: Box::pin(tokio::time::sleep_until(end)),
                exceeded,
                _place: place,
            });
            Ok(response.map(|inner| Bounded { inner, limit }))
        })
    }
}

/// Whether a request changes nothing on the server. Dry runs and reviews (POST) count as changes: they are rare.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the answer is meant to go on for longer than a call: watches and followed logs.
fn streams<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| matches!(pair, "watch=true" | "watch=1" | "follow=true" | "follow=1"))
        || request.headers().contains_key(http::header::UPGRADE)
}

/// A body that ends with an error at the deadline of its call, and gives the call's place back when it is dropped.
pub(super) struct Bounded<B> {
    inner: B,
    limit: Option<Limit>,
}

struct Limit {
    sleep: Pin<Box<Sleep>>,
    exceeded: DeadlineExceeded,
    _place: OwnedSemaphorePermit,
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        let Some(limit) = &mut self.limit else {
            return Poll::Pending;
        };
        limit
            .sleep
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(limit.exceeded.clone().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
