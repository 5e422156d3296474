//! An S3 server for one test or one measurement: versitygw over a folder of the caller's, on a free loopback port.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{parts::Part, process};

/// The region that the server claims to be in.
pub const REGION: &str = "us-east-1";

/// A server that ends when it is dropped; its folder stays.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    folder: PathBuf,
    child: Child,
}

/// The keys of every [`S3Server`]. They protect nothing: the server listens on loopback, and for a test only.
pub const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "holdfast-test"),
    ("AWS_SECRET_ACCESS_KEY", "holdfast-test-secret"),
];

impl S3Server {
    /// Starts the server over `folder`, which is made if it does not exist. Returns when it answers.
    ///
    /// Fails when the program cannot be built, or does not listen within 30 s.
    pub fn start(folder: &Path) -> Result<Self> {
        let program = Part::Versitygw.ensure()?;
        let data = folder.join("data");
        fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let log = folder.join("log");
        // The port is free again by the time that the server takes it, unless somebody is very quick.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(&program)
            .args(["--quiet", "--port", &address.to_string(), "posix"])
            .arg(&data)
            .envs([("ROOT_ACCESS_KEY", KEYS[0].1), ("ROOT_SECRET_KEY", KEYS[1].1)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self {
            address,
            folder: data,
            child,
        };
        let probe = || {
            let ended = server.child.try_wait().ok().flatten().is_some();
            (ended || TcpStream::connect(address).is_ok()).then_some(ended)
        };
        match process::poll(Duration::from_secs(30), Duration::from_millis(10), probe) {
            Some(false) => Ok(server),
            _ => bail!("versitygw does not listen at {address}; see {}", log.display()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a bucket, unless it is there.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let path = self.bucket(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Removes a bucket with all that is in it, and leaves no bucket of this name.
    pub fn remove_bucket(&self, name: &str) -> Result<()> {
        let path = self.bucket(name);
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// The folder in which the objects of a bucket are files.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
