//! Tests of the whole pipeline without a server: archives are made up, everything else is real.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use holdfast_store::{RetryPolicy, Store, StoreConfig};
use jiff::Timestamp;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupOptions, BackupRequest, Completed, CopiedData};
use crate::commit::{Commit, Facts};
use crate::compress::Codec;
use crate::copy::{Copier, CopyTarget, header};
use crate::error::{WalgError, WalgResult};
use crate::lsn::{Lsn, Segment, SegmentSize};
use crate::manifest::ManifestCheck;
use crate::metadata::InventoryEntry;
use crate::progress::Progress;
use crate::replication::{ConnectOptions, SystemIdentity};
use crate::start::Server;
use crate::tarball::{END, padding};
use crate::wal::StoredWal;
use crate::writer::{Limits, ObjectWriter};
use crate::{RestoreOptions, RestoreRequest, Restored, layout};

const START: Lsn = Lsn(0x200_0028);
const FINISH: Lsn = Lsn(0x200_0138);
const NAME: &str = "base_000000010000000000000002";

type Files = BTreeMap<String, Vec<u8>>;

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn open(folder: &Path) -> Store {
    let variables = BTreeMap::from([("WALG_FILE_PREFIX".to_owned(), folder.display().to_string())]);
    Store::open(
        &StoreConfig::from_variables(&variables).unwrap(),
        RetryPolicy::default(),
    )
    .unwrap()
}

/// What a server would send: the label first, pg_control last.
fn archive(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |path: &str, data: &[u8]| {
        bytes.extend(header(path, data.len() as u64));
        bytes.extend(data);
        bytes.extend(padding(data.len() as u64));
    };
    add(
        "backup_label",
        b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
    );
    for (path, data) in files {
        add(path, data);
    }
    add("standby.signal", b"");
    add("global/pg_control", &[7; 8192]);
    bytes.extend(END);
    bytes
}

fn manifest(files: &Files) -> String {
    let lines: Vec<String> = files
        .iter()
        .map(|(path, data)| {
            let crc = HEXLOWER.encode(&crc32c::crc32c(data).to_le_bytes());
            let size = data.len();
            format!(r#"{{ "Path": "{path}", "Size": {size}, "Checksum-Algorithm": "CRC32C", "Checksum": "{crc}" }}"#)
        })
        .collect();
    let text = format!("{{ \"Files\": [\n{}\n],\n", lines.join(",\n"));
    let sum = HEXLOWER.encode(&Sha256::digest(&text));
    format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n")
}

/// Stores a made-up backup, cut into pieces of `piece` bytes on its way and into parts above `part_bytes`.
async fn back_up(
    store: &Store,
    files: &Files,
    codec: Codec,
    part_bytes: u64,
    piece: usize,
) -> WalgResult<Completed> {
    let (server, options, progress) = (
        ConnectOptions::new("pg-0", "standby"),
        BackupOptions::default(),
        Progress::default(),
    );
    let cancel = CancellationToken::new();
    let request = BackupRequest {
        store,
        server: &server,
        options: &options,
        progress: &progress,
        cancel: &cancel,
        now,
    };
    let limits = Limits::new(0, 2);
    let target = CopyTarget {
        store,
        backup: NAME,
        host: "pg-0",
        codec,
        limits: &limits,
        part_bytes,
    };
    let mut copier = Copier::new(target, 1 << 20);
    for piece in archive(files).chunks(piece) {
        copier.push(piece).await?;
    }
    copier.close().await?;
    let mut check = ManifestCheck::new(&[]);
    let text = manifest(files);
    check.push(text.as_bytes(), copier.seen()).unwrap();
    let count = check.finish().unwrap();
    let mut writer = ObjectWriter::new(store.upload(&layout::manifest(NAME)), Codec::None, &limits);
    writer.write(text.as_bytes()).await?;
    let written = writer.finish().await?;
    let manifest = InventoryEntry {
        key: written.key,
        size: written.stored.size,
    };

    let size = SegmentSize::default();
    let segment = Segment::containing(START, 1, size);
    let upload = store.upload_if_absent(&layout::wal_segment(segment, size, codec));
    let mut wal = ObjectWriter::new(upload, codec, &limits);
    wal.write(&vec![9; usize::try_from(size.bytes()).unwrap()])
        .await?;
    let wal = wal.finish().await?;
    let wal = StoredWal {
        entries: vec![InventoryEntry {
            key: wal.key,
            size: wal.stored.size,
        }],
        padded: false,
    };

    let identity = SystemIdentity {
        system_id: 7_428_993_466_124_349_467,
        timeline: 1,
        xlogpos: FINISH,
    };
    let known = Server {
        version: 150_020,
        identity,
        standby: false,
        size,
        data_directory: "/data".into(),
    };
    let facts = Facts {
        server: &known,
        start_lsn: START,
        finish_lsn: FINISH,
        started: now(),
        complete: now(),
    };
    let data = CopiedData {
        copied: copier.finish().await?,
        manifest,
        files: count,
    };
    Commit {
        request,
        target,
        name: NAME,
        timeline: 1,
    }
    .run(facts, data, wal, None)
    .await
}

async fn restore(store: &Store, name: &str, target: &Path) -> WalgResult<Restored> {
    let (options, progress, cancel) = (
        RestoreOptions::default(),
        Progress::default(),
        CancellationToken::new(),
    );
    let request = RestoreRequest {
        store,
        name,
        target,
        options: &options,
        progress: &progress,
        cancel: &cancel,
    };
    crate::restore(request).await
}

fn sample() -> Files {
    let mut files = Files::new();
    for number in 0..20_u8 {
        let data = (0..usize::from(number) * 5000)
            .map(|index| (index % 251).to_le_bytes()[0] ^ number)
            .collect();
        files.insert(format!("base/5/{number}"), data);
    }
    files.insert("PG_VERSION".into(), b"15\n".to_vec());
    files
}

#[tokio::test]
async fn a_backup_comes_back_as_it_was() {
    for codec in [Codec::Lz4, Codec::zstd(3), Codec::None] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).within("spilo/demo/wal/15").unwrap();
        let completed = back_up(&store, &sample(), codec, 100_000, 32 << 10)
            .await
            .unwrap();
        assert_eq!((completed.name.as_str(), completed.wal_segments), (NAME, 1));
        let parts = store.list(&layout::parts(NAME)).await.unwrap();
        assert!(parts.len() > 5, "{parts:?}");
        assert_eq!(
            completed.sentinel.compressed_size,
            parts.iter().map(|part| part.size).sum::<u64>()
        );

        let target = folder.path().join("restored");
        let restored = restore(&store, "LATEST", &target).await.unwrap();
        assert_eq!((restored.compared_files, restored.wal_segments), (Some(21), 1));
        for (path, data) in sample() {
            assert!(fs::read(target.join(&path)).unwrap() == data, "{path} differs");
        }
        assert_eq!(fs::read(target.join("global/pg_control")).unwrap(), [7; 8192]);
        assert!(target.join("backup_label").exists() && !target.join("standby.signal").exists());
        let segment = "000000010000000000000002";
        assert_eq!(
            fs::read(target.join("pg_wal").join(segment)).unwrap(),
            vec![9; 16 << 20]
        );
        assert!(
            target
                .join("pg_wal/archive_status")
                .join(format!("{segment}.done"))
                .exists()
        );
    }
}

#[tokio::test]
async fn what_is_missing_or_of_the_wrong_size_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    back_up(&store, &sample(), Codec::Lz4, 1 << 30, 32 << 10)
        .await
        .unwrap();
    let size = SegmentSize::default();
    crate::verify(&store, NAME, size).await.unwrap();
    for key in [
        format!("{}part_001.tar.lz4", layout::parts(NAME)),
        format!("{}backup_label.tar.lz4", layout::parts(NAME)),
        layout::metadata(NAME),
        layout::files_metadata(NAME),
        layout::manifest(NAME),
    ] {
        let path = folder.path().join(&key);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[1..]).unwrap();
        let error = crate::verify(&store, NAME, size).await.unwrap_err().to_string();
        assert!(
            error.contains(&key) && error.contains(&format!("not {}", whole.len())),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        let error = crate::verify(&store, NAME, size).await.unwrap_err().to_string();
        assert!(error.contains(&key) && error.contains("is missing"), "{error}");
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(folder.path().join("wal_005/000000010000000000000002.lz4")).unwrap();
    let error = crate::verify(&store, NAME, size).await.unwrap_err().to_string();
    assert!(
        error.contains("000000010000000000000002.lz4 is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn damage_is_found_by_the_restore_and_leaves_an_empty_directory() {
    for codec in [Codec::Lz4, Codec::None] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        back_up(&store, &sample(), codec, 1 << 30, 32 << 10)
            .await
            .unwrap();
        let part = folder
            .path()
            .join(layout::parts(NAME))
            .join(layout::part_file(1, codec));
        let mut bytes = fs::read(&part).unwrap();
        // In the middle of a file's data, where only a checksum notices.
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&part, bytes).unwrap();
        let target = folder.path().join("restored");
        let error = restore(&store, NAME, &target).await.unwrap_err();
        assert!(matches!(error, WalgError::Corrupt { .. }), "{error}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_backup_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    back_up(&store, &sample(), Codec::Lz4, 1 << 30, 32 << 10)
        .await
        .unwrap();
    let before = store.get(&layout::sentinel(NAME), 4096).await.unwrap();
    let error = back_up(&store, &Files::new(), Codec::Lz4, 1 << 30, 32 << 10)
        .await
        .unwrap_err();
    assert!(matches!(error, WalgError::BackupExists { .. }), "{error}");
    assert_eq!(store.get(&layout::sentinel(NAME), 4096).await.unwrap(), before);
}

#[tokio::test]
async fn a_directory_with_something_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    back_up(&store, &sample(), Codec::Lz4, 1 << 30, 32 << 10)
        .await
        .unwrap();
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("precious"), "data").unwrap();
    assert!(matches!(
        restore(&store, NAME, target.path()).await,
        Err(WalgError::TargetNotEmpty { .. })
    ));
    assert_eq!(
        fs::read_to_string(target.path().join("precious")).unwrap(),
        "data"
    );
    let missing = "base_000000010000000000000099";
    let error = restore(&store, missing, &target.path().join("x"))
        .await
        .unwrap_err();
    assert!(matches!(error, WalgError::BackupNotFound { .. }), "{error}");
}

#[tokio::test]
async fn deletion_spares_what_others_need() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    back_up(&store, &sample(), Codec::Lz4, 1 << 30, 32 << 10)
        .await
        .unwrap();
    let delta = format!("base_000000010000000000000006_D_{}", &NAME["base_".len()..]);
    let text = format!(r#"{{"LSN":1,"DeltaFrom":"{NAME}","DeltaFullName":"{NAME}","DeltaCount":1}}"#);
    store.put(&layout::sentinel(&delta), text.into()).await.unwrap();
    let error = crate::delete(&store, NAME, None).await.unwrap_err();
    assert!(
        matches!(&error, WalgError::InUse { by, .. } if *by == delta),
        "{error}"
    );
    // The next delta in the chain names its parent, and the full backup only in its sentinel.
    let second = "base_000000010000000000000009_D_000000010000000000000006";
    let text = format!(r#"{{"LSN":1,"DeltaFrom":"{delta}","DeltaFullName":"{NAME}","DeltaCount":2}}"#);
    store.put(&layout::sentinel(second), text.into()).await.unwrap();
    store.delete(&[layout::sentinel(&delta)]).await.unwrap();
    assert!(matches!(
        crate::delete(&store, NAME, None).await,
        Err(WalgError::InUse { .. })
    ));
    store.delete(&[layout::sentinel(second)]).await.unwrap();

    let metadata = store.get(&layout::metadata(NAME), 4096).await.unwrap();
    let marked = String::from_utf8(metadata.to_vec())
        .unwrap()
        .replace("\"is_permanent\":false", "\"is_permanent\":true");
    store.put(&layout::metadata(NAME), marked.into()).await.unwrap();
    assert!(matches!(
        crate::delete(&store, NAME, None).await,
        Err(WalgError::Permanent { .. })
    ));
    store.put(&layout::metadata(NAME), metadata).await.unwrap();

    // It was taken for nobody in particular, so nobody in particular may remove it.
    crate::delete(&store, NAME, Some("somebody")).await.unwrap();
    crate::verify(&store, NAME, SegmentSize::default()).await.unwrap();
    crate::delete(&store, NAME, None).await.unwrap();
    assert!(store.list("basebackups_005/").await.unwrap().is_empty());
    assert_eq!(store.list("wal_005/").await.unwrap().len(), 1);
    // Again, and what never was.
    crate::delete(&store, NAME, None).await.unwrap();
    assert!(matches!(
        crate::delete(&store, "../wal_005", None).await,
        Err(WalgError::BackupNotFound { .. })
    ));
}

#[tokio::test]
async fn links_and_missing_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let limits = Limits::new(0, 2);
    let target = CopyTarget {
        store: &store,
        backup: NAME,
        host: "pg-0",
        codec: Codec::Lz4,
        limits: &limits,
        part_bytes: 1 << 30,
    };
    let mut link = tar::Builder::new(Vec::new());
    let mut block = tar::Header::new_ustar();
    block.set_entry_type(tar::EntryType::Symlink);
    block.set_size(0);
    link.append_link(&mut block, "pg_tblspc/16400", "/mnt/fast")
        .unwrap();
    let error = Copier::new(target, 1 << 20)
        .push(&link.into_inner().unwrap())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("pg-0 has the link pg_tblspc/16400"),
        "{error}"
    );

    let mut empty = Copier::new(target, 1 << 20);
    empty.push(&END).await.unwrap();
    empty.close().await.unwrap();
    let error = empty.finish().await.err().unwrap().to_string();
    assert!(error.contains("global/pg_control"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_split_restores_to_the_same_bytes(
        sizes in proptest::collection::vec(0usize..40_000, 0..25),
        part_bytes in 1u64..100_000,
        piece in 1usize..70_000,
        zstd in any::<bool>(),
    ) {
        let files: Files = sizes
            .iter()
            .enumerate()
            .map(|(number, &size)| (format!("base/{number}"), (0..size).map(|i| (i * number).to_le_bytes()[0]).collect()))
            .collect();
        let codec = if zstd { Codec::zstd(1) } else { Codec::Lz4 };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            back_up(&store, &files, codec, part_bytes, piece).await.unwrap();
            let target = folder.path().join("restored");
            restore(&store, NAME, &target).await.unwrap();
            for (path, data) in &files {
                assert!(fs::read(target.join(path)).unwrap() == *data, "{path} differs");
            }
        });
    }
}
