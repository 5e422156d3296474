use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, service_fn};

use super::{CallLayer, DeadlineExceeded, streams};
use crate::{
    client::Limits,
    clock::Tick,
    gate::{Gate, NotLeading},
};

const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(10),
    concurrency: 1,
};

fn request(method: Method, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

fn exceeded(error: &BoxError) -> bool {
    error.is::<DeadlineExceeded>()
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let silent =
        service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let mut service = CallLayer::new(LIMITS, Gate::open()).layer(silent);
    let start = Instant::now();
    let error = service
        .call(request(Method::GET, "/api/v1/pods?limit=1"))
        .await
        .err()
        .unwrap();
    assert!(exceeded(&error), "{error}");
    assert_eq!(error.to_string(), "GET /api/v1/pods: no answer within 10000 ms");
    assert_eq!(start.elapsed(), LIMITS.deadline);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_place_counts_too() {
    let silent =
        service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let mut service = CallLayer::new(LIMITS, Gate::open()).layer(silent);
    let start = Instant::now();
    let calls = [
        service.call(request(Method::GET, "/a")),
        service.call(request(Method::GET, "/b")),
    ];
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|r| exceeded(r.as_ref().err().unwrap())));
    assert_eq!(start.elapsed(), LIMITS.deadline);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_at_the_same_deadline_unless_it_is_a_watch() {
    let stalls = || {
        service_fn(|_: Request<()>| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let frames = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        })
    };
    let mut service = CallLayer::new(LIMITS, Gate::open()).layer(stalls());
    let start = Instant::now();
    let response = service.call(request(Method::GET, "/api/v1/pods")).await.unwrap();
    let error = response.into_body().collect().await.err().unwrap();
    assert!(exceeded(&error));
    assert_eq!(start.elapsed(), LIMITS.deadline);

    let mut service = CallLayer::new(LIMITS, Gate::open()).layer(stalls());
    let watch = service
        .call(request(Method::GET, "/api/v1/pods?watch=true&x=y"))
        .await
        .unwrap();
    let day = Duration::from_hours(24);
    assert!(
        tokio::time::timeout(day, watch.into_body().collect())
            .await
            .is_err(),
        "a watch goes on"
    );
}

#[tokio::test]
async fn a_place_is_given_back_with_the_body_and_at_once_by_a_watch() {
    let answers = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("x"))))
    });
    let layer = CallLayer::new(LIMITS, Gate::open());
    let mut service = layer.layer(answers);
    let first = service.call(request(Method::GET, "/a")).await.unwrap();
    assert_eq!(layer.places.available_permits(), 0);
    drop(first);
    assert_eq!(layer.places.available_permits(), 1);
    let _watch = service.call(request(Method::GET, "/a?watch=true")).await.unwrap();
    assert_eq!(layer.places.available_permits(), 1);
}

#[tokio::test]
async fn without_the_lease_reads_pass_and_writes_do_not_leave() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = sent.clone();
    let answers = service_fn(move |_: Request<()>| {
        let counter = counter.clone();
        async move {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let past = Gate::until(Tick::at(Duration::from_nanos(1)));
    let mut service = CallLayer::new(LIMITS, past).layer(answers);
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let error = service.call(request(method, "/a")).await.err().unwrap();
        assert!(error.is::<NotLeading>(), "{error}");
    }
    assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), 0);
    service.call(request(Method::GET, "/a")).await.unwrap();
    assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_write_in_flight_is_given_up_when_the_lease_ends() {
    let silent =
        service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let gate = Gate::until(Tick::now().plus(Duration::from_millis(50)));
    let mut service = CallLayer::new(LIMITS, gate).layer(silent);
    let start = Instant::now();
    let error = service.call(request(Method::PATCH, "/a")).await.err().unwrap();
    assert!(error.is::<NotLeading>(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn watches_and_followed_logs_are_streams() {
    assert!(streams(&request(
        Method::GET,
        "/api/v1/pods?watch=true&timeoutSeconds=290"
    )));
    assert!(streams(&request(
        Method::GET,
        "/api/v1/namespaces/a/pods/b/log?&follow=true"
    )));
    assert!(!streams(&request(
        Method::GET,
        "/api/v1/pods?labelSelector=watch%3Dtrue"
    )));
    assert!(!streams(&request(Method::GET, "/api/v1/pods")));
}
