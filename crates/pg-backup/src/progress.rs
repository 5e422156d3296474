//! Asks a running agent how far it is.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::agent::report::ProgressReport;

/// Most bytes of an answer that are read: the agent's pod belongs to the user, not to us.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// The agent's answer, or `None` when there is none in time: progress is for people, no decision hangs on it.
pub async fn read(address: &str, port: u16, deadline: Duration) -> Option<ProgressReport> {
    match tokio::time::timeout(deadline, request(address, port)).await {
        Ok(Ok(report)) => Some(report),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "the agent did not say how far it is");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "the agent did not say in time how far it is");
            None
        }
    }
}

async fn request(
    address: &str,
    port: u16,
) -> Result<ProgressReport, Box<dyn std::error::Error + Send + Sync>> {
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let stream = TcpStream::connect(format!("{host}:{port}")).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/progress")
        .header("host", host)
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    tokio::pin!(answer);
    // The connection is driven here, not in a task of its own, so that it ends with the request.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
