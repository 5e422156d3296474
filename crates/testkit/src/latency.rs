//! A TCP proxy that makes the way to a server longer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way in one direction; so much fits into a long pipe, and memory stays bounded.
const ON_THE_WAY: usize = 256;

/// A proxy from a free loopback port to one server; each byte takes half a round trip longer, in both directions, and no byte waits for
/// another. It runs in a thread of its own, because the caller waits for processes. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct LatencyProxy {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl LatencyProxy {
    /// Starts a proxy for the server at `upstream`. Fails when no loopback port is free.
    pub fn start(upstream: SocketAddr, round_trip: Duration) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start tokio")?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("no free loopback port")?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, upstream, round_trip / 2) => (),
                    _ = ended => (),
                }
            });
        });
        Ok(Self {
            address,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LatencyProxy {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and if it did, the test has failed already.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, delay: Duration) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            // A refused connection closes the client's one, as it would without the proxy.
            let Ok(server) = TcpStream::connect(upstream).await else {
                return;
            };
            // Otherwise small requests would wait for acknowledgements, and the delay would be more than was asked for.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::join!(
                one_way(client_read, server_write, delay),
                one_way(server_read, client_write, delay),
            );
        });
    }
}

/// Carries one direction until its sender closes it, or its receiver is gone.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            match from.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener as StdListener, TcpStream as StdStream},
    };

    use super::*;

    #[test]
    fn an_answer_takes_a_round_trip_and_bytes_do_not_queue_up() {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut copy = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut copy)
        });
        let proxy = LatencyProxy::start(server, Duration::from_millis(60)).unwrap();
        let mut stream = StdStream::connect(proxy.address()).unwrap();
        let begin = std::time::Instant::now();
        // Many chunks: one after the other would take many round trips.
        let sent = vec![5; 100 * CHUNK];
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(&sent));
        let mut received = vec![0; 100 * CHUNK];
        stream.read_exact(&mut received).unwrap();
        writing.join().unwrap().unwrap();
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(60), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(received.iter().all(|byte| *byte == 5));
    }
}
