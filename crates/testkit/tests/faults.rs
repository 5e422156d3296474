//! The store against an S3 server in memory, through a proxy that makes requests go wrong.

#![allow(
    clippy::unwrap_used,
    reason = "a test; the lint's own exception does not see helpers outside test functions"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_store::{
    Absent, Limits, LockMode, ObjectLock, Place, RetryPolicy, S3Config, Secret, Store, StoreConfig,
    StoreError,
};
use holdfast_testkit::MemoryS3;
use holdfast_testkit::certs::Authority;
use holdfast_testkit::s3_proxy::{Rule, S3Proxy, Trouble};
use http::Method;

struct Setup {
    server: MemoryS3,
    proxy: S3Proxy,
    config: StoreConfig,
}

impl Setup {
    async fn plain() -> Self {
        let server = MemoryS3::start().await.unwrap();
        let proxy = S3Proxy::start(server.address(), None).await.unwrap();
        Self::new(server, proxy, None)
    }

    async fn tls() -> Self {
        let authority = Authority::new().unwrap();
        let pair = authority.server(&["127.0.0.1"]).unwrap();
        let server = MemoryS3::start().await.unwrap();
        let proxy = S3Proxy::start(server.address(), Some(&pair)).await.unwrap();
        Self::new(server, proxy, Some(authority.certificate.clone()))
    }

    fn new(server: MemoryS3, proxy: S3Proxy, ca_bundle: Option<String>) -> Self {
        let s3 = S3Config {
            credentials: Some(("key".to_owned(), Secret::new("hush"))),
            ca_bundle,
            ..S3Config::new("bucket", Some(proxy.endpoint()))
        };
        Self {
            server,
            proxy,
            config: StoreConfig::new(Place::S3(Box::new(s3)), "a/repo"),
        }
    }

    fn store(&self) -> Store {
        let retry = RetryPolicy {
            total: Duration::from_secs(20),
            attempt: Duration::from_millis(500),
            first_delay: Duration::from_millis(5),
            max_delay: Duration::from_millis(20),
        };
        Store::open(&self.config, retry).unwrap()
    }
}

fn data(length: usize) -> Bytes {
    (0..length)
        .map(|index| (index * 7 + index / 251).to_le_bytes()[0])
        .collect()
}

fn pieces(data: &Bytes) -> Vec<Bytes> {
    data.chunks(70_001).map(|piece| data.slice_ref(piece)).collect()
}

const EVERYTHING: [Trouble; 8] = [
    Trouble::Status(500),
    Trouble::Status(503),
    Trouble::ResetRequest,
    Trouble::LoseAnswer,
    Trouble::ResetAnswer,
    Trouble::FlipRequest,
    Trouble::Stall(Duration::from_secs(30)),
    Trouble::Latency(Duration::from_millis(100)),
];

#[tokio::test]
async fn storing_survives_every_trouble() {
    for setup in [Setup::plain().await, Setup::tls().await] {
        let store = setup.store();
        let whole = data(1_500_000);
        for (index, trouble) in EVERYTHING.into_iter().enumerate() {
            setup.proxy.heal();
            setup.proxy.add(
                Rule::new(trouble)
                    .method(Method::PUT)
                    .path("bucket/a/repo/p")
                    .times(1),
            );
            let key = format!("p{index}");
            store.put_pieces(&key, pieces(&whole), None).await.unwrap();
            let stored = setup.server.object(&format!("bucket/a/repo/{key}")).unwrap();
            assert!(stored == whole, "{trouble:?}");
        }
        // Each but the late answer cost one more attempt; an answer without a body cannot be cut in its body.
        let puts = setup.proxy.count(&Method::PUT);
        assert!((14..=15).contains(&puts), "{puts}");
    }
}

#[tokio::test]
async fn reading_survives_every_trouble() {
    let setup = Setup::plain().await;
    let store = setup.store();
    let whole = data(1_500_000);
    setup.server.insert("bucket/a/repo/p1", whole.clone());
    for trouble in EVERYTHING {
        setup.proxy.heal();
        setup.proxy.add(Rule::new(trouble).method(Method::GET).times(2));
        let read = store.get("p1", 2_000_000).await.unwrap();
        assert!(read == whole, "{trouble:?}");
        setup.proxy.add(Rule::new(trouble).method(Method::GET).times(2));
        let range = store.get_range("p1", 123_457, 1_000_000).await.unwrap();
        assert!(range == whole.slice(123_457..1_123_457), "{trouble:?}");
        setup.proxy.add(Rule::new(trouble).method(Method::HEAD).times(2));
        assert_eq!(store.head("p1").await.unwrap().unwrap().size, 1_500_000);
    }
}

#[tokio::test]
async fn a_body_that_lies_about_its_end_is_read_on() {
    let setup = Setup::plain().await;
    let store = setup.store();
    let whole = data(600_000);
    setup.server.insert("bucket/a/repo/p1", whole.clone());
    let truncated = Rule::new(Trouble::TruncateAnswer).method(Method::GET);
    setup.proxy.add(truncated.times(3));
    let range = store.get_range("p1", 1, 500_000).await.unwrap();
    assert!(range == whole.slice(1..500_001));
    assert_eq!(setup.proxy.count(&Method::GET), 4);
}

#[tokio::test]
async fn creating_and_deleting_survive_lost_answers() {
    let setup = Setup::tls().await;
    let store = setup.store();
    setup
        .proxy
        .add(Rule::new(Trouble::LoseAnswer).method(Method::PUT).times(1));
    setup
        .proxy
        .add(Rule::new(Trouble::LoseAnswer).method(Method::DELETE).times(1));
    let created = store.put_if_absent("one", data(10)).await.unwrap();
    assert_eq!(created, Absent::Created);
    store.delete(&["one".to_owned()]).await.unwrap();
    assert_eq!(setup.server.object("bucket/a/repo/one"), None);
    assert_eq!(setup.proxy.count(&Method::DELETE), 2);
}

#[tokio::test]
async fn a_long_listing_goes_on_after_every_trouble() {
    let setup = Setup::plain().await;
    let store = setup.store();
    for index in 0..1234 {
        setup.server.insert(&format!("bucket/a/repo/p{index:05}"), "x");
        setup.server.insert(&format!("bucket/a/repo/q{index:05}"), "x");
    }
    setup.server.insert("bucket/a/repox", "x");
    for trouble in EVERYTHING.into_iter().chain([Trouble::TruncateAnswer]) {
        setup.proxy.heal();
        setup.proxy.add(Rule::new(trouble).method(Method::GET).nth(3));
        let mut found = Vec::new();
        store
            .list_prefix("p0", |object| found.push(object.key))
            .await
            .unwrap();
        let wanted: Vec<String> = (0..1234).map(|index| format!("p{index:05}")).collect();
        assert_eq!(found, wanted, "{trouble:?}");
    }
    let mut all = 0;
    store.list_prefix("", |_| all += 1).await.unwrap();
    assert_eq!(all, 2468);
}

#[tokio::test]
async fn over_tls_a_server_that_checks_gets_a_checksum_instead_of_a_signed_body() {
    let setup = Setup::tls().await;
    let store = setup.store();
    let sha256 = |key: &str| {
        let path = format!("bucket/a/repo/{key}");
        setup.server.header(&path, "x-amz-content-sha256").unwrap()
    };
    store.put("one", data(1000)).await.unwrap();
    assert_eq!(sha256("one").len(), 64);
    store.put("two", data(1000)).await.unwrap();
    assert_eq!(sha256("two"), "UNSIGNED-PAYLOAD");
    // The server is replaced by one that does not check: what nobody checked is sent again.
    setup.server.ignore_checksums();
    store.put("three", data(1000)).await.unwrap();
    assert_eq!(sha256("three").len(), 64);
    assert_eq!(setup.proxy.count(&Method::PUT), 4);

    let refusing = Setup::tls().await;
    refusing.server.refuse_checksums();
    let store = refusing.store();
    store.put("one", data(1000)).await.unwrap();
    store.put("two", data(1000)).await.unwrap();
    assert_eq!(refusing.proxy.count(&Method::PUT), 3);
    assert_eq!(refusing.server.object("bucket/a/repo/two"), Some(data(1000)));
}

#[tokio::test]
async fn a_lock_is_asked_for_with_a_digest() {
    for setup in [Setup::plain().await, Setup::tls().await] {
        let lock = ObjectLock {
            mode: LockMode::Governance,
            until: "2030-01-02T03:04:05Z".parse().unwrap(),
        };
        let store = setup.store();
        store
            .put_pieces("p1", pieces(&data(200_000)), Some(&lock))
            .await
            .unwrap();
        let header = |name: &str| setup.server.header("bucket/a/repo/p1", name).unwrap();
        assert_eq!(header("x-amz-object-lock-mode"), "GOVERNANCE");
        assert_eq!(
            header("x-amz-object-lock-retain-until-date"),
            "2030-01-02T03:04:05Z"
        );
        assert_eq!(header("content-md5").len(), 24);
        let signed = header("authorization");
        for name in [
            "content-md5",
            "x-amz-object-lock-mode",
            "x-amz-object-lock-retain-until-date",
        ] {
            assert!(signed.contains(name), "{signed}");
        }
    }
}

#[tokio::test]
async fn limits_hold_in_both_directions() {
    let mut setup = Setup::plain().await;
    setup.config.limits = Limits {
        upload: Some(1_000_000),
        download: Some(2_000_000),
    };
    let store = setup.store();
    let start = Instant::now();
    for key in ["a", "b", "c", "d"] {
        store.put(key, data(400_000)).await.unwrap();
    }
    let up = start.elapsed();
    assert!((0.5..3.0).contains(&up.as_secs_f64()), "{up:?}");
    let start = Instant::now();
    for key in ["a", "b", "c", "d", "a", "b", "c", "d"] {
        store.get(key, 1_000_000).await.unwrap();
    }
    let down = start.elapsed();
    assert!((0.5..3.0).contains(&down.as_secs_f64()), "{down:?}");
}

#[tokio::test]
async fn trouble_that_stays_is_reported_in_time() {
    let setup = Setup::plain().await;
    let retry = RetryPolicy {
        total: Duration::from_millis(300),
        ..RetryPolicy::default()
    };
    let store = Store::open(&setup.config, retry).unwrap();
    setup.proxy.add(Rule::new(Trouble::Status(503)));
    let error = store.get_range("p1", 0, 10).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { detail, .. } if detail.contains("SlowDown")),
        "{error}"
    );
}
