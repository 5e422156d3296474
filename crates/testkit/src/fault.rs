//! A TCP proxy that breaks connections on demand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with connections, the open ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward everything.
    Pass,
    /// Nobody listens: new connections are refused and open ones are closed, as if the server had ended.
    Refuse,
    /// Accept, but forward nothing in either direction until the mode changes, as if the server or the network hung.
    Hang,
    /// Close each connection after it has carried this many bytes in one direction, counted from its start.
    CutAfter(usize),
}

/// A proxy from a free loopback port to one server. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicU64>,
    acceptor: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy for the server at `upstream`, in mode [`Mode::Pass`]. Fails when no loopback port is free.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free loopback port")?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let accepted = Arc::new(AtomicU64::new(0));
        let acceptor = tokio::spawn(accept(listener, address, upstream, seen, accepted.clone()));
        Ok(Self {
            address,
            mode,
            accepted,
            acceptor,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Switches the mode. Open connections follow at once; a port closed by [`Mode::Refuse`] takes a moment to listen again.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections end by themselves as the sender of the mode is dropped.
        self.acceptor.abort();
    }
}

async fn accept(
    first: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    accepted: Arc<AtomicU64>,
) {
    let mut listener = Some(first);
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            listener = None;
            if mode.wait_for(|mode| *mode != Mode::Refuse).await.is_err() {
                return;
            }
        }
        if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(open) = &listener else {
            // Somebody else holds the port for now.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            connection = open.accept() => if let Ok((client, _)) = connection {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connect(client, upstream, mode.clone()));
            },
        }
    }
}

async fn connect(client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if mode.wait_for(|mode| *mode != Mode::Hang).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    // The first direction that was cut drops the other one, and with it both sockets.
    let _ = tokio::try_join!(
        forward(client_read, server_write, mode.clone()),
        forward(server_read, client_write, mode.clone()),
    );
}

/// This connection is over in both directions.
struct Cut;

/// Copies one direction until its sender closes it. Fails when the mode ends the connection.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) -> Result<(), Cut> {
    let mut buffer = vec![0; 16 * 1024];
    let mut carried = 0_usize;
    loop {
        let room = match *mode.borrow_and_update() {
            Mode::Pass => buffer.len(),
            Mode::Hang => 0,
            Mode::Refuse => return Err(Cut),
            Mode::CutAfter(limit) if limit <= carried => return Err(Cut),
            Mode::CutAfter(limit) => buffer.len().min(limit - carried),
        };
        let read = tokio::select! {
            changed = mode.changed() => {
                changed.map_err(|_| Cut)?;
                continue;
            }
            read = from.read(&mut buffer[..room]), if room > 0 => read,
        };
        match read {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            Ok(count) => to.write_all(&buffer[..count]).await.map_err(|_| Cut)?,
            Err(_) => return Err(Cut),
        }
        carried += read.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_hung_connection_goes_on_where_it_stopped() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut stream, b"one").await.unwrap(), b"one");
        proxy.set(Mode::Hang);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        for hung in [&mut stream, &mut second] {
            assert!(
                tokio::time::timeout(Duration::from_millis(100), say(hung, b"two"))
                    .await
                    .is_err()
            );
        }
        proxy.set(Mode::Pass);
        for mut freed in [stream, second] {
            let mut answer = [0; 3];
            freed.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"two");
        }
        assert_eq!(proxy.accepted(), 2);
    }

    #[tokio::test]
    async fn refusing_closes_what_is_open_and_the_port_comes_back() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut stream, b"one").await.unwrap();
        proxy.set(Mode::Refuse);
        assert!(say(&mut stream, b"two").await.is_err());
        let refused = async {
            while let Ok(stream) = TcpStream::connect(proxy.address()).await {
                drop(stream);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), refused)
            .await
            .unwrap();
        proxy.set(Mode::Pass);
        let again = async {
            loop {
                if let Ok(stream) = TcpStream::connect(proxy.address()).await {
                    break stream;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut stream = tokio::time::timeout(Duration::from_secs(10), again)
            .await
            .unwrap();
        assert_eq!(say(&mut stream, b"three").await.unwrap(), b"three");
    }

    #[tokio::test]
    async fn a_cut_comes_after_exactly_the_given_number_of_bytes() {
        let proxy = FaultProxy::start(echo().await).await.unwrap();
        proxy.set(Mode::CutAfter(5));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(b"1234").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        stream.write_all(b"5").await.unwrap();
        // The fifth byte reaches the server; its echo may or may not come back before the cut.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.len() <= 1, "{rest:?}");
        let mut whole = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(say(&mut whole, b"1234").await.unwrap(), b"1234");
    }
}
