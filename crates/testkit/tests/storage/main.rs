//! The store against a real S3 server, which checks signatures, digests and locks. Needs Go, once.

#![allow(
    clippy::unwrap_used,
    reason = "a test; the lint's own exception does not see helpers outside test functions"
)]

mod kopia_restore;
mod trees;

use std::time::Duration;

use bytes::Bytes;
use holdfast_store::{
    Absent, CredentialsFile, LockMode, ObjectLock, PART_BYTES, Place, RetryPolicy, S3Config, Secret, Store,
    StoreConfig, StoreError,
};
use holdfast_testkit::certs::Authority;
use holdfast_testkit::s3_proxy::{Rule, S3Proxy, Trouble};
use holdfast_testkit::s3_server::{KEYS, S3Server, VERSIONS};
use http::Method;

const ACCESS_KEY: &str = KEYS[0].1;
const SECRET_KEY: &str = KEYS[1].1;

fn config(endpoint: String) -> S3Config {
    S3Config {
        credentials: Some((ACCESS_KEY.to_owned(), Secret::new(SECRET_KEY))),
        ..S3Config::new("bucket", Some(endpoint))
    }
}

fn open(s3: S3Config) -> Store {
    let retry = RetryPolicy {
        total: Duration::from_secs(20),
        attempt: Duration::from_secs(5),
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
    };
    Store::open(&StoreConfig::new(Place::S3(Box::new(s3)), "a b/repo"), retry).unwrap()
}

fn data(length: usize) -> Bytes {
    (0..length)
        .map(|index| (index * 7 + index / 251).to_le_bytes()[0])
        .collect()
}

async fn everything(store: &Store) {
    store.check().await.unwrap();
    let whole = data(300_000);
    let pieces = whole.chunks(7_001).map(|piece| whole.slice_ref(piece)).collect();
    store.put_pieces("p1", pieces, None).await.unwrap();
    store.put("p2", whole.clone()).await.unwrap();
    store.put("p3", whole.clone()).await.unwrap();
    store.put("empty", Bytes::new()).await.unwrap();
    assert!(store.get("p1", 1 << 20).await.unwrap() == whole);
    let range = store.get_range("p2", 99_999, 100_000).await.unwrap();
    assert!(range == whole.slice(99_999..199_999));
    let beyond = store.get_range("p2", 299_999, 2).await.unwrap_err();
    assert!(matches!(beyond, StoreError::Inconsistent { .. }), "{beyond}");
    let beyond = store.get_range("p2", 300_001, 2).await.unwrap_err();
    assert!(matches!(beyond, StoreError::Inconsistent { .. }), "{beyond}");
    assert_eq!(store.get("empty", 1).await.unwrap().len(), 0);
    assert_eq!(store.put_if_absent("p2", data(1)).await.unwrap(), Absent::Existed);
    let mut found = Vec::new();
    store
        .list_prefix("p", |object| found.push(object.key))
        .await
        .unwrap();
    assert_eq!(found, ["p1", "p2", "p3"]);
    let large = data(usize::try_from(PART_BYTES).unwrap() + 5);
    let mut upload = store.upload("large");
    for piece in large.chunks(1 << 20) {
        upload.write(large.slice_ref(piece).into()).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert!(store.get("large", 1 << 24).await.unwrap() == large);
    store.delete(&["p1".to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(store.head("p1").await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_checks_is_content() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path()).unwrap();
    server.create_bucket("bucket").unwrap();
    everything(&open(config(format!("http://{}", server.address())))).await;

    let mut wrong = config(format!("http://{}", server.address()));
    wrong.credentials = Some((ACCESS_KEY.to_owned(), Secret::new("wrong")));
    let error = open(wrong).put("p1", data(10)).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn over_tls_a_flipped_bit_is_refused_and_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path()).unwrap();
    server.create_bucket("bucket").unwrap();
    let authority = Authority::new().unwrap();
    let pair = authority.server(&["127.0.0.1"]).unwrap();
    let proxy = S3Proxy::start(server.address(), Some(&pair)).await.unwrap();
    let mut s3 = config(proxy.endpoint());
    s3.ca_bundle = Some(authority.certificate.clone());
    let store = open(s3);
    everything(&store).await;
    // By now the server has shown that it checks CRC32C, and bodies are no longer signed.
    let before = proxy.count(&Method::PUT);
    proxy.add(Rule::new(Trouble::FlipRequest).method(Method::PUT).times(1));
    store.put("flipped", data(100_000)).await.unwrap();
    assert!(store.get("flipped", 1 << 20).await.unwrap() == data(100_000));
    assert_eq!(proxy.count(&Method::PUT) - before, 2);
    let unsigned = proxy.header(&Method::PUT, "x-amz-content-sha256");
    assert_eq!(unsigned.as_deref(), Some("UNSIGNED-PAYLOAD"));
}

#[tokio::test]
async fn a_locked_object_cannot_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start_with_versions(folder.path()).unwrap();
    server.create_locked_bucket("bucket").await.unwrap();
    let proxy = S3Proxy::start(server.address(), None).await.unwrap();
    let store = open(config(proxy.endpoint()));
    let lock = ObjectLock {
        mode: LockMode::Compliance,
        until: "2099-01-01T00:00:00Z".parse().unwrap(),
    };
    proxy.add(Rule::new(Trouble::FlipRequest).method(Method::PUT).times(1));
    store
        .put_pieces("p1", vec![data(10), data(20)], Some(&lock))
        .await
        .unwrap();
    assert_eq!(proxy.count(&Method::PUT), 2);
    // Deleting hides it behind a marker; the version itself stays, on the server's disk.
    store.delete(&["p1".to_owned()]).await.unwrap();
    let held = walk(&folder.path().join(VERSIONS));
    assert!(held.contains(&30), "{held:?}");

    server.create_bucket("plain").unwrap();
    let mut plain = config(format!("http://{}", server.address()));
    "plain".clone_into(&mut plain.bucket);
    let error = open(plain)
        .put_pieces("p1", vec![data(10)], Some(&lock))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
}

fn walk(folder: &std::path::Path) -> Vec<u64> {
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            sizes.extend(walk(&entry.path()));
        } else {
            sizes.push(entry.metadata().unwrap().len());
        }
    }
    sizes
}

#[tokio::test]
async fn keys_from_a_file_are_used_as_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(folder.path()).unwrap();
    server.create_bucket("bucket").unwrap();
    let path = folder.path().join("cloud");
    let write = |secret: &str| {
        let text = format!("[velero]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={secret}\n");
        std::fs::write(folder.path().join("next"), text).unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
    };
    write("wrong");
    let mut s3 = config(format!("http://{}", server.address()));
    s3.credentials = None;
    s3.credentials_file = Some(CredentialsFile {
        path: path.clone(),
        profile: "velero".to_owned(),
    });
    let store = open(s3);
    assert!(matches!(
        store.put("p", data(5)).await,
        Err(StoreError::Denied { .. })
    ));
    write(SECRET_KEY);
    store.put("p", data(5)).await.unwrap();
}
