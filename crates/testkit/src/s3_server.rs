//! An S3 server for one test or one measurement: versitygw over a folder of the caller's, on a free loopback port.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use object_store::{
    ClientOptions,
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpConnector as _, HttpRequestBody, ReqwestConnector},
};

use crate::{parts::Part, process};

/// Name of the folder with versions that are no longer the newest, in the folder given to the server.
pub const VERSIONS: &str = "versions";

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
        Self::launch(folder, &[])
    }

    /// The same, with versions of objects, which object lock needs.
    pub fn start_with_versions(folder: &Path) -> Result<Self> {
        let versions = folder.join(VERSIONS);
        fs::create_dir_all(&versions).with_context(|| format!("cannot create {}", versions.display()))?;
        Self::launch(folder, &["--versioning-dir".as_ref(), versions.as_os_str()])
    }

    fn launch(folder: &Path, flags: &[&OsStr]) -> Result<Self> {
        let program = Part::Versitygw.ensure()?;
        let data = folder.join("data");
        fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let log = folder.join("log");
        // The port is free again by the time that the server takes it, unless somebody is very quick.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(&program)
            .args(["--quiet", "--port", &address.to_string(), "posix"])
            .args(flags)
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

    /// Makes a bucket whose objects can be locked; the server must have been started with versions.
    pub async fn create_locked_bucket(&self, name: &str) -> Result<()> {
        let mut request = http::Request::put(format!("http://{}/{name}", self.address))
            .header("x-amz-bucket-object-lock-enabled", "true")
            .body(HttpRequestBody::empty())
            .context("not the name of a bucket")?;
        let credential = AwsCredential {
            key_id: KEYS[0].1.to_owned(),
            secret_key: KEYS[1].1.to_owned(),
            token: None,
        };
        AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
        // The client wants a TLS provider even for plain HTTP; another test may install one at the same time.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
        let answer = client.execute(request).await?;
        let (status, body) = (answer.status(), answer.into_body().bytes().await?);
        ensure!(
            status.is_success(),
            "cannot create bucket {name}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
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
