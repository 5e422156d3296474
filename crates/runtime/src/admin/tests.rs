use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{Admin, CONNECTIONS, Reply};
use crate::{
    metrics::{Metrics, Standard},
    readiness::Readiness,
};

struct Server {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn server() -> Server {
    let (readiness, metrics, stop) = (Readiness::new(), Metrics::new(), CancellationToken::new());
    Standard::register(&metrics, "1.0.0").unwrap();
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), &readiness, &metrics)
        .await
        .unwrap();
    let admin = admin.route("/progress", || Box::pin(async { Reply::json(r#"{"bytes":1}"#) }));
    let address = admin.address().unwrap();
    let task = tokio::spawn(admin.serve(stop.clone()));
    Server {
        address,
        readiness,
        stop,
        task,
    }
}

impl Server {
    async fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn the_standard_routes_and_added_ones_answer() {
    let server = server().await;
    assert!(server.ask("GET /livez").await.starts_with("HTTP/1.1 200"));
    assert!(server.ask("GET /progress").await.ends_with(r#"{"bytes":1}"#));
    let metrics = server.ask("GET /metrics").await;
    assert!(
        metrics.contains("text/plain; version=0.0.4") && metrics.contains("holdfast_build_info"),
        "{metrics}"
    );
    assert!(server.ask("GET /other").await.starts_with("HTTP/1.1 404"));
    assert!(server.ask("POST /metrics").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let server = server().await;
    let latch = server.readiness.latch("watch of Job");
    let answer = server.ask("GET /readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("waiting for watch of Job\n"),
        "{answer}"
    );
    assert!(
        server.ask("GET /livez").await.starts_with("HTTP/1.1 200"),
        "a process that waits is alive"
    );
    latch.set();
    assert!(server.ask("GET /readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let server = server().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut extra = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        extra.read(&mut [0; 1]).await.unwrap_or(0),
        0,
        "closed without an answer"
    );
    drop(held);
    // Those dropped free their places as soon as the server reads their end.
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .unwrap_or(());
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn it_stops_though_a_connection_is_idle() {
    let server = server().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert!(server.ask("GET /livez").await.starts_with("HTTP/1.1 200"));
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
