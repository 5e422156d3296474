use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use holdfast_fault::{Class, Fault as _};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::blob::RetentionMode;
use crate::blob::memory::{BlobFault, FaultRule, MemoryBlobs, Operation};
use crate::compression::HeaderId;
use crate::content::WriterOptions;
use crate::hostile::{self, Bound};
use crate::repository::{ConnectOptions, Repository};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// Whether both name and encrypt the same data alike.
fn assert_same_keys(one: &RepositoryFormat, other: &RepositoryFormat) {
    assert_eq!(one.hasher.hash(b"data"), other.hasher.hash(b"data"));
    let mut sealed = b"data".to_vec();
    one.cipher.seal(&[1; 16], &mut sealed).unwrap();
    assert_eq!(other.cipher.open_vec(&[1; 16], sealed, "data").unwrap(), b"data");
}

// Keys instead of passwords, for tests that are not about how the one comes from the other.
const OLD: Key = [1; 32];
const NEW: Key = [2; 32];

async fn create(options: &CreateOptions) -> (MemoryBlobs, RepositoryFormat) {
    let blobs = MemoryBlobs::new();
    let description = Description::new(vec![0; 32], keys::PBKDF2);
    let format = RepositoryFormat::create_with(&blobs, description, &OLD, options, at(1000)).await;
    (blobs, format.unwrap())
}

async fn parsed(blobs: &MemoryBlobs) -> Description {
    Description::parse(&read_description(blobs).await.unwrap()).unwrap()
}

async fn load(blobs: &MemoryBlobs, key: Key) -> KopiaResult<RepositoryFormat> {
    let blob = read_description(blobs).await?;
    RepositoryFormat::load_with(blobs, &Description::parse(&blob)?, blob, &key).await
}

async fn change(blobs: &MemoryBlobs) -> KopiaResult<()> {
    password::change_key(blobs, parsed(blobs).await, &OLD, &NEW, at(0)).await
}

#[tokio::test]
async fn a_new_repository_is_what_velero_makes() {
    let blobs = MemoryBlobs::new();
    let password = secret("static-passw0rd");
    let created = RepositoryFormat::create(&blobs, &password, &CreateOptions::default(), at(0))
        .await
        .unwrap();
    let loaded = RepositoryFormat::load(&blobs, &password).await.unwrap();
    assert_same_keys(&created, &loaded);
    assert_eq!(loaded.hasher.algorithm(), "BLAKE2B-256-128");
    assert_eq!(loaded.cipher.algorithm(), "AES256-GCM-HMAC-SHA256");
    assert_eq!(loaded.splitter, "DYNAMIC-4M-BUZHASH");
    assert_eq!(
        (loaded.version, loaded.index_version, loaded.max_pack_size),
        (3, 2, 20 << 20)
    );
    assert_eq!(loaded.epoch, EpochParameters::STANDARD);
    assert_eq!(loaded.retention, None);
    assert_eq!(loaded.recovery_copy().unwrap(), None);
    assert_eq!(loaded.unique_id, created.unique_id);
    assert_eq!(
        Some(loaded.description()),
        blobs.content(&BlobId::from(REPOSITORY)).as_ref()
    );
    assert_eq!(blobs.names(), [BLOB_CONFIG, REPOSITORY]);

    let again = RepositoryFormat::create(&blobs, &password, &CreateOptions::default(), at(0)).await;
    assert!(matches!(again, Err(KopiaError::RepositoryExists { .. })));
}

/// The repository of this name in the golden data.
macro_rules! golden {
    ($name:literal) => {{
        let blobs = MemoryBlobs::new();
        let description = include_bytes!(concat!("../../testdata/format/", $name, ".kopia.repository"));
        let config = include_bytes!(concat!("../../testdata/format/", $name, ".kopia.blobcfg"));
        blobs.insert(REPOSITORY, &description[..], at(0));
        blobs.insert(BLOB_CONFIG, &config[..], at(0));
        let content = include_str!(concat!("../../testdata/format/", $name, ".content.json"));
        let content: Value = serde_json::from_str(content).unwrap();
        let loaded = RepositoryFormat::load(&blobs, &secret("golden password")).await;
        (loaded, content)
    }};
}

/// Whether the format opens what kopia encrypted in the repository.
fn assert_opens(format: &RepositoryFormat, content: &Value) {
    let sealed = BASE64
        .decode(content["sealed"].as_str().unwrap().as_bytes())
        .unwrap();
    let hash = HEXLOWER
        .decode(content["hash"].as_str().unwrap().as_bytes())
        .unwrap();
    let plain = format
        .cipher
        .open_vec(&hash[hash.len() - 16..], sealed, "content")
        .unwrap();
    assert_eq!(plain.len(), 300);
    assert_eq!(format.hasher.hash(&plain).as_bytes(), hash);
    assert_eq!(
        HEXLOWER.encode(&format.unique_id),
        content["uniqueID"].as_str().unwrap()
    );
    assert_eq!(format.splitter, content["splitter"].as_str().unwrap());
}

#[tokio::test]
async fn kopias_repositories_open() {
    let (loaded, content) = golden!("v1-scrypt");
    let format = loaded.unwrap();
    assert_opens(&format, &content);
    assert_eq!(
        (format.version, format.index_version, format.epoch.enabled),
        (1, 1, false)
    );
    let copy = include_bytes!("../../testdata/format/v1-scrypt.recovery");
    assert_eq!(format.recovery_copy().unwrap().unwrap(), copy);

    let (loaded, content) = golden!("v2-pbkdf2");
    let format = loaded.unwrap();
    assert_opens(&format, &content);
    assert_eq!((format.version, format.index_version), (2, 2));
    assert_eq!(format.epoch, EpochParameters::STANDARD);
    assert_eq!(format.hasher.algorithm(), "BLAKE3-256");
    assert_eq!(format.cipher.algorithm(), "CHACHA20-POLY1305-HMAC-SHA256");

    let (loaded, content) = golden!("v3-scrypt");
    let format = loaded.unwrap();
    assert_opens(&format, &content);
    assert_eq!(
        (format.version, format.index_version, format.max_pack_size),
        (3, 2, 20 << 20)
    );
    let retention = format.retention.unwrap();
    assert_eq!(
        (retention.mode, retention.period),
        (RetentionMode::Compliance, Duration::from_hours(72))
    );
    assert_eq!(format.recovery_copy().unwrap(), None);

    let error = golden!("v3-ecc").0.unwrap_err();
    assert!(
        matches!(error, KopiaError::Unsupported { .. }) && error.to_string().contains("REED-SOLOMON-CRC32")
    );
}

#[tokio::test]
async fn nothing_is_no_repository() {
    let nothing = RepositoryFormat::load(&MemoryBlobs::new(), &secret("password")).await;
    assert!(matches!(nothing, Err(KopiaError::NotARepository { .. })));
}

#[tokio::test]
async fn an_interrupted_creation_can_be_repeated() {
    let blobs = MemoryBlobs::new();
    blobs.inject(FaultRule::every(Operation::Put, BlobFault::Unavailable).on(REPOSITORY));
    let create = || async {
        RepositoryFormat::create(&blobs, &secret("password"), &CreateOptions::default(), at(0)).await
    };
    assert!(create().await.is_err());
    assert_eq!(blobs.names(), [BLOB_CONFIG]);
    blobs.insert("xn0_0123-s0-c1", "an index", at(0));
    blobs.heal();
    assert!(matches!(create().await, Err(KopiaError::Corrupt { .. })));
    blobs.remove(&BlobId::from("xn0_0123-s0-c1"));
    create().await.unwrap();
}

#[tokio::test]
async fn blobs_of_the_format_are_retained_too() {
    let retention = RetentionConfig {
        mode: RetentionMode::Compliance,
        period: Duration::from_hours(48),
    };
    let (blobs, _) = create(&CreateOptions {
        retention: Some(retention),
        ..CreateOptions::default()
    })
    .await;
    for name in [REPOSITORY, BLOB_CONFIG] {
        let kept = blobs.retention(&BlobId::from(name)).unwrap();
        assert_eq!(
            (kept.mode, kept.until),
            (RetentionMode::Compliance, at(1000 + 48 * 3600))
        );
    }
    assert_eq!(load(&blobs, OLD).await.unwrap().retention, Some(retention));
}

/// Changes the password with every call to the storage failing in turn: without retention, one of the passwords opens
/// the repository at every moment. In any case repeating the change completes it.
#[tokio::test]
async fn a_change_of_password_can_be_interrupted_anywhere() {
    let month = RetentionConfig {
        mode: RetentionMode::Governance,
        period: Duration::from_hours(720),
    };
    for retention in [None, Some(month)] {
        let (original, created) = create(&CreateOptions {
            retention,
            ..CreateOptions::default()
        })
        .await;
        let calls = [
            (Operation::Delete, BLOB_CONFIG),
            (Operation::Put, REPOSITORY),
            (Operation::Put, BLOB_CONFIG),
        ];
        // With retention nothing is deleted.
        for (operation, blob) in calls.into_iter().skip(usize::from(retention.is_some())) {
            let blobs = MemoryBlobs::new();
            for name in [REPOSITORY, BLOB_CONFIG] {
                blobs.insert(name, original.content(&BlobId::from(name)).unwrap(), at(0));
            }
            blobs.inject(FaultRule::every(operation, BlobFault::Unavailable).on(blob));
            change(&blobs).await.unwrap_err();
            blobs.heal();
            let is_old = parsed(&blobs).await.config(&OLD).unwrap().is_some();
            if retention.is_none() {
                let key = if is_old { OLD } else { NEW };
                assert_same_keys(&created, &load(&blobs, key).await.unwrap());
            }
            if is_old {
                change(&blobs).await.unwrap();
            }
            let loaded = load(&blobs, NEW).await.unwrap();
            assert_same_keys(&created, &loaded);
            assert_eq!(loaded.retention, retention);
        }
    }
}

#[tokio::test]
async fn what_a_later_kopia_added_survives_a_change_of_password() {
    let (blobs, _) = create(&CreateOptions::default()).await;
    let mut description = parsed(&blobs).await;
    let mut config: Value = serde_json::from_slice(&description.config(&OLD).unwrap().unwrap()).unwrap();
    config["format"]["new"] = json!({"a": [1, 2.5, null]});
    config["beside"] = json!("it");
    description
        .set_config(&OLD, config.to_string().as_bytes())
        .unwrap();
    let mut outer: Value = serde_json::from_slice(&description.to_json().unwrap()).unwrap();
    outer["outside"] = json!(true);
    blobs.insert(REPOSITORY, outer.to_string(), at(0));

    change(&blobs).await.unwrap();
    let blob = read_description(&blobs).await.unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&blob).unwrap()["outside"],
        json!(true)
    );
    let kept = parsed(&blobs).await.config(&NEW).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), config);
}

#[tokio::test]
async fn a_password_is_changed() {
    let blobs = MemoryBlobs::new();
    let (old, new) = (secret("old"), secret("new"));
    let created = RepositoryFormat::create(&blobs, &old, &CreateOptions::default(), at(0))
        .await
        .unwrap();
    change_password(&blobs, &old, &new, at(0)).await.unwrap();
    assert_same_keys(&created, &RepositoryFormat::load(&blobs, &new).await.unwrap());
    for password in [&old, &secret("other")] {
        let wrong = RepositoryFormat::load(&blobs, password).await;
        assert!(matches!(wrong, Err(KopiaError::WrongPassword { .. })));
    }
    let wrong = change_password(&blobs, &old, &new, at(0)).await;
    assert!(matches!(wrong, Err(KopiaError::WrongPassword { .. })));
}

#[tokio::test]
async fn the_password_of_version_1_stays() {
    let (blobs, created) = create(&CreateOptions {
        version: 1,
        ..CreateOptions::default()
    })
    .await;
    assert_eq!((created.index_version, created.epoch.enabled), (1, false));
    let copy = created.recovery_copy().unwrap().unwrap();
    assert_eq!(copy.len(), created.description().len() + 2 + 32 + 2);
    let changed = change(&blobs).await;
    assert!(matches!(changed, Err(KopiaError::Unsupported { .. })));
}

#[tokio::test]
async fn options_without_sense_are_refused() {
    let wrong: [fn(&mut CreateOptions); 5] = [
        |options| options.version = 0,
        |options| options.version = 4,
        |options| options.max_pack_size = 1,
        |options| options.max_pack_size = 121 << 20,
        |options| {
            options.retention = Some(RetentionConfig {
                mode: RetentionMode::Governance,
                period: Duration::from_secs(1),
            });
        },
    ];
    let blobs = MemoryBlobs::new();
    for change in wrong {
        let mut options = CreateOptions::default();
        change(&mut options);
        let result = RepositoryFormat::create(&blobs, &secret("password"), &options, at(0)).await;
        assert!(matches!(result, Err(KopiaError::Argument { .. })), "{options:?}");
    }
}

/// The description of the repository with another configuration, encrypted with the key.
async fn reconfigure(blobs: &MemoryBlobs, key: Key, change: impl FnOnce(&mut Value)) {
    let mut description = parsed(blobs).await;
    let mut config: Value = serde_json::from_slice(&description.config(&OLD).unwrap().unwrap()).unwrap();
    change(&mut config["format"]);
    description
        .set_config(&key, config.to_string().as_bytes())
        .unwrap();
    blobs.insert(REPOSITORY, description.to_json().unwrap(), at(0));
}

#[tokio::test]
async fn what_matters_to_a_session_is_noticed_and_nothing_else() {
    let (blobs, format) = create(&CreateOptions::default()).await;
    format.check_unchanged(&blobs).await.unwrap();
    let before = blobs.content(&BlobId::from(REPOSITORY)).unwrap();

    let harmless: [Change; 3] = [
        |_| {},
        |format| format["maxPackSize"] = json!(30 << 20),
        |format| format["requiredFeatures"] = json!([{"feature": "index-v2"}]),
    ];
    for change in harmless {
        reconfigure(&blobs, OLD, change).await;
        format.check_unchanged(&blobs).await.unwrap();
        blobs.insert(REPOSITORY, before.clone(), at(0));
    }
    let harmful: [(&str, Change); 5] = [
        ("user@host", |format| {
            format["upgradeLock"] = json!({"ownerID": "user@host", "message": "soon"});
        }),
        ("version is 2, and was 3", |format| format["version"] = json!(2)),
        ("version 4", |format| format["version"] = json!(4)),
        ("index-v9", |format| {
            format["requiredFeatures"] = json!([{"feature": "index-v9"}]);
        }),
        ("epochs", |format| {
            format["epochParameters"]["EpochAdvanceOnCountThreshold"] = json!(30);
        }),
    ];
    for (named, change) in harmful {
        reconfigure(&blobs, OLD, change).await;
        let error = format.check_unchanged(&blobs).await.unwrap_err();
        assert!(
            error.class() == Class::Conflict && error.to_string().contains(named),
            "{error}"
        );
        blobs.insert(REPOSITORY, before.clone(), at(0));
    }
    let (others, _) = create(&CreateOptions::default()).await;
    let mut other = parsed(&others).await;
    other.unique_id = vec![9; 32];
    blobs.insert(REPOSITORY, other.to_json().unwrap(), at(0));
    let error = format.check_unchanged(&blobs).await.unwrap_err();
    assert!(error.to_string().contains("another repository"), "{error}");
}

#[tokio::test]
async fn a_session_survives_a_change_of_password_where_there_are_epochs() {
    let (blobs, format) = create(&CreateOptions::default()).await;
    change(&blobs).await.unwrap();
    format.check_unchanged(&blobs).await.unwrap();

    // Without epochs an upgrade may be hidden behind it.
    let (blobs, _) = create(&CreateOptions {
        version: 1,
        ..CreateOptions::default()
    })
    .await;
    reconfigure(&blobs, OLD, |format| format["enablePasswordChange"] = json!(true)).await;
    let format = load(&blobs, OLD).await.unwrap();
    reconfigure(&blobs, NEW, |format| format["version"] = json!(3)).await;
    let error = format.check_unchanged(&blobs).await.unwrap_err();
    assert_eq!(error.reason(), "RepositoryChanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_index_is_written_into_a_repository_that_is_being_upgraded() {
    let (blobs, format) = create(&CreateOptions {
        version: 1,
        ..CreateOptions::default()
    })
    .await;
    let before = blobs.content(&BlobId::from(REPOSITORY)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let options = ConnectOptions::new(scratch.path());
    let repository = Repository::open(Arc::new(blobs.clone()), Arc::new(format), options)
        .await
        .unwrap();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let contents = writer.contents().clone();
    let put = move || contents.put(None, b"data".to_vec(), HeaderId::NONE);
    let id = tokio::task::spawn_blocking(put).await.unwrap().unwrap();
    reconfigure(&blobs, OLD, |format| {
        format["version"] = json!(3);
        format["epochParameters"] = json!(EpochParameters::STANDARD);
        format["upgradeLock"] = json!({"ownerID": "admin", "message": "to version 3"});
    })
    .await;
    let error = writer.flush().await.unwrap_err();
    assert!(error.to_string().contains("\"admin\": to version 3"), "{error}");
    assert_eq!(error.class(), Class::Conflict);
    let is_index = |name: &&String| name.starts_with(['n', 'x']);
    assert_eq!(blobs.names().iter().find(is_index), None);

    // It was rolled back.
    blobs.insert(REPOSITORY, before, at(0));
    writer.flush().await.unwrap();
    assert!(blobs.names().iter().any(|name| name.starts_with('n')));
    assert_eq!(repository.contents().get(&id).await.unwrap(), b"data");
}

type Change = fn(&mut Value);

/// A configuration as kopia writes it, changed.
fn config(change: impl FnOnce(&mut Value)) -> KopiaResult<Checked> {
    let mut config = json!({"format": {
        "hash": "BLAKE2B-256-128",
        "encryption": "AES256-GCM-HMAC-SHA256",
        "secret": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "masterKey": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "version": 3,
        "maxPackSize": 20_971_520,
        "indexVersion": 2,
        "epochParameters": EpochParameters::STANDARD,
        "enablePasswordChange": true,
        "splitter": "DYNAMIC-4M-BUZHASH",
    }});
    change(&mut config["format"]);
    Config::parse(config.to_string().as_bytes())?.check()
}

#[test]
fn unknown_features_are_refused_by_name() {
    assert!(config(|_| {}).is_ok());
    let refused: [(&str, Change); 7] = [
        ("version 4", |format| format["version"] = json!(4)),
        ("version 0", |format| {
            format.as_object_mut().unwrap().remove("version");
        }),
        ("index version 3", |format| format["indexVersion"] = json!(3)),
        ("\"SHA1\"", |format| format["hash"] = json!("SHA1")),
        ("\"NONE\"", |format| format["encryption"] = json!("NONE")),
        ("REED-SOLOMON-CRC32", |format| {
            format["ecc"] = json!("REED-SOLOMON-CRC32");
            format["eccOverheadPercent"] = json!(2);
        }),
        ("user@host", |format| {
            format["upgradeLock"] = json!({"ownerID": "user@host", "creationTime": "2026-01-01T00:00:00Z"});
        }),
    ];
    for (named, change) in refused {
        let error = config(change).err().unwrap();
        assert!(
            matches!(error, KopiaError::Unsupported { .. }) && error.to_string().contains(named),
            "{error}"
        );
    }
    let without_use = config(|format| format["ecc"] = json!("REED-SOLOMON-CRC32"));
    assert!(without_use.is_ok(), "no overhead, no error correction");
    let legacy = config(|format| {
        format["maxPackSize"] = json!(0);
        format["indexVersion"] = json!(0);
        format["upgradeLock"] = Value::Null;
        format["requiredFeatures"] = Value::Null;
    });
    let legacy = legacy.unwrap();
    assert_eq!((legacy.max_pack_size, legacy.index_version), (20 << 20, 1));
}

#[test]
fn required_features_are_heeded() {
    let require = |feature: &str, advice: Value| {
        config(|format| format["requiredFeatures"] = json!([{"feature": feature, "ifNotUnderstood": advice}]))
    };
    assert!(require("index-v2", json!({"warn": false})).is_ok());
    assert!(
        require("index-v9", json!({"warn": true})).is_ok(),
        "only a warning"
    );
    let advice =
        json!({"warn": false, "message": "Too new.", "url": "https://kopia.io", "upgradeToVersion": "0.99"});
    let error = require("index-v9", advice).err().unwrap().to_string();
    assert!(
        ["index-v9", "Too new.", "https://kopia.io", "0.99"]
            .iter()
            .all(|part| error.contains(part)),
        "{error}"
    );
}

#[test]
fn damaged_configurations_do_not_show_their_secrets() {
    let error = config(|format| format["secret"] = json!("AAECAwQ-secret"))
        .err()
        .unwrap();
    assert!(matches!(error, KopiaError::Corrupt { .. }));
    assert!(!error.to_string().contains("secret"), "{error}");
    let created = RepositoryFormat::in_memory(&CreateOptions::default());
    let shown = format!("{created:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("masterKey"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn damaged_blobs_are_no_reason_to_panic(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        text in r#"\{("(format|uniqueID|keyAlgo|version|secret|encryption)":("[A-Za-z0-9=]{0,9}"|-?[0-9]{1,20}|null|\{\}|\[\]),?){0,4}\}"#,
    ) {
        for bytes in [&data[..], text.as_bytes()] {
            let _ = Description::parse(bytes);
            let _ = Config::parse(bytes).and_then(Config::check);
            let _ = retention::from_json(bytes);
            let description = Description::new(bytes.to_vec(), keys::SCRYPT);
            prop_assert_eq!(description.open(&[0; 32], bytes).unwrap(), None);
        }
        let nested = format!(r#"{{"format":{text}}}"#);
        let _ = Config::parse(nested.as_bytes()).and_then(Config::check);
    }
}

#[test]
fn hostile_formats_are_harmless() {
    let repositories = [
        &include_bytes!("../../testdata/format/v1-scrypt.kopia.repository")[..],
        include_bytes!("../../testdata/format/v2-pbkdf2.kopia.repository"),
        include_bytes!("../../testdata/format/v3-ecc.kopia.repository"),
        include_bytes!("../../testdata/format/v3-scrypt.kopia.repository"),
    ];
    hostile::check(&repositories, Bound::new(16 << 10, 100), |json| {
        if let Ok(description) = Description::parse(json) {
            drop(description.config(&OLD));
            drop(description.to_json());
            drop(super::description::recovery_copy(json));
        }
    });
    let mut plain = Value::Null;
    drop(config(|format| plain = json!({ "format": format })));
    let mut demanding = plain.clone();
    demanding["format"]["requiredFeatures"] =
        json!([{"feature": "f", "ifNotUnderstood": {"warn": true, "message": "m", "url": "u"}}]);
    demanding["format"]["upgradeLock"] = json!({"ownerID": "o", "message": "m"});
    let (plain, demanding) = (plain.to_string(), demanding.to_string());
    let configs = [plain.as_bytes(), demanding.as_bytes()];
    hostile::check(&configs, Bound::new(16 << 10, 40), |json| {
        drop(Config::parse(json).and_then(Config::check));
    });
    let retention = br#"{"retentionMode":"GOVERNANCE","retentionPeriod":2592000000000000}"#;
    hostile::check(&[retention, b"{}"], Bound::new(4096, 10), |json| {
        drop(retention::from_json(json));
    });
    let description = Description::new(vec![0; 32], keys::SCRYPT);
    let sealed = description.seal(&OLD, retention).unwrap();
    hostile::check(&[&sealed], Bound::new(4096, 2), |bytes| {
        let opened = description.open(&OLD, bytes).unwrap();
        assert!(opened.is_none() || bytes == sealed);
    });
}
