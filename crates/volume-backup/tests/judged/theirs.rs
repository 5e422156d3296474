//! What kopia writes, read by us.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_testkit::kopia::Kopia;
use holdfast_testkit::tree::{Times, ensure_same};

use crate::fixture::{Arena, full, id, utf8};
use crate::trees::{self, MIB};

const HASHES: [&str; 11] = [
    "BLAKE2B-256-128",
    "BLAKE2B-256",
    "BLAKE2S-128",
    "BLAKE2S-256",
    "BLAKE3-256",
    "BLAKE3-256-128",
    "HMAC-SHA224",
    "HMAC-SHA256",
    "HMAC-SHA256-128",
    "HMAC-SHA3-224",
    "HMAC-SHA3-256",
];
const ENCRYPTIONS: [&str; 2] = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];
const COMPRESSORS: [&str; 18] = [
    "zstd",
    "zstd-fastest",
    "zstd-better-compression",
    "zstd-best-compression",
    "s2-default",
    "s2-better",
    "s2-parallel-4",
    "s2-parallel-8",
    "gzip",
    "gzip-best-speed",
    "gzip-best-compression",
    "pgzip",
    "pgzip-best-speed",
    "pgzip-best-compression",
    "deflate-default",
    "deflate-best-speed",
    "deflate-best-compression",
    "lz4",
];

/// What kopia took, we verify and restore; what we then add, kopia reads.
fn both_ways(arena: &Arena, source: &Path) {
    let theirs = arena.kopia.snapshot(source, &[]).unwrap();
    arena.agent.run("verify", &[&theirs.id], &["--percent", "100"]);
    arena.agent_restores(&theirs.id, source, Times::ByKopia);
    let ours = arena.agent.backup(source, &["--source-path", "ours"]);
    arena.kopia_agrees(&[(id(&ours), source)]);
}

#[test]
fn every_hash_encryption_format_version_and_key_derivation() {
    let mut seen = BTreeSet::new();
    for (n, hash) in HASHES.into_iter().enumerate() {
        let encryption = ENCRYPTIONS[n % 2];
        let version = 1 + n % 3;
        let derivation = ["scrypt-65536-8-1", "pbkdf2-sha256-600000"][n / 3 % 2];
        seen.insert((version, encryption));
        let arena = Arena::theirs(&[
            &format!("--block-hash={hash}"),
            &format!("--encryption={encryption}"),
            &format!("--format-version={version}"),
            &format!("--format-block-key-derivation-algorithm={derivation}"),
        ]);
        let source = arena.path("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("one"), trees::noise(n as u64, 3 * MIB)).unwrap();
        fs::write(source.join("two"), trees::prose(n as u64, 10_000)).unwrap();
        let theirs = arena.kopia.snapshot(&source, &[]).unwrap();
        arena.agent.run("verify", &[&theirs.id], &["--percent", "100"]);
        arena.agent_restores(&theirs.id, &source, Times::ByKopia);
        let ours = arena.agent.attempt("backup", &[utf8(&source)], &[]);
        if ours.code == Some(0) {
            arena.kopia_agrees(&[(id(ours.find("summary")), &source)]);
        } else {
            // Older formats may be refused for writing, but never half written, and the answer must say why.
            assert!(version < 3, "{hash} {encryption} {version}: {}", ours.stderr);
            assert_eq!(ours.code, Some(2), "{}", ours.stderr);
            assert!(ours.stderr.contains("format version"), "{}", ours.stderr);
            arena.kopia.verify().unwrap();
        }
    }
    assert_eq!(seen.len(), 6, "every format version with every encryption");
}

#[test]
fn every_compressor() {
    let arena = Arena::theirs(&[]);
    let mut ids = Vec::new();
    for compressor in COMPRESSORS {
        let source = arena.path(compressor);
        fs::create_dir(&source).unwrap();
        // Each has its own text, or the contents of the one before would be taken.
        let seed = ids.len() as u64;
        fs::write(source.join("prose"), trees::prose(seed, 3 * MIB)).unwrap();
        fs::write(source.join("noise"), trees::noise(seed, 100_000)).unwrap();
        fs::write(source.join("little"), compressor).unwrap();
        let policy = ["policy", "set", utf8(&source), "--compression", compressor];
        arena.kopia.run(&policy).unwrap();
        ids.push((arena.kopia.snapshot(&source, &[]).unwrap().id, source));
    }
    let used = arena.kopia.run(&["content", "list", "--compression"]).unwrap();
    for compressor in COMPRESSORS {
        assert!(used.contains(compressor), "{compressor} is not used in\n{used}");
    }
    let words: Vec<&str> = ids.iter().map(|(id, _)| id.as_str()).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    for (id, source) in &ids {
        arena.agent_restores(id, source, Times::ByKopia);
    }
}

#[test]
fn everything_a_directory_can_hold() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::odd(&source);
    both_ways(&arena, &source);
}

#[test]
fn indexes_of_both_versions_in_one_repository() {
    let arena = Arena::theirs(&["--format-version=1"]);
    let source = arena.path("source");
    trees::small(&source.join("before"), 200, 1);
    let before = arena.kopia.snapshot(&source, &[]).unwrap();
    arena
        .kopia
        .run(&["repository", "set-parameters", "--index-version=2"])
        .unwrap();
    trees::small(&source.join("after"), 200, 1000);
    let after = arena.kopia.snapshot(&source, &[]).unwrap();
    arena
        .agent
        .run("verify", &[&before.id, &after.id], &["--percent", "100"]);
    arena.agent_restores(&after.id, &source, Times::ByKopia);
}

#[test]
fn the_splitters() {
    for splitter in [
        "DYNAMIC-1M-BUZHASH",
        "DYNAMIC-2M-BUZHASH",
        "DYNAMIC-8M-BUZHASH",
        "FIXED-1M",
        "FIXED-4M",
        "FIXED",
        "DYNAMIC-4M-RABINKARP",
    ] {
        let arena = Arena::theirs(&[&format!("--object-splitter={splitter}")]);
        let source = arena.path("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), trees::noise(5, 23 * MIB)).unwrap();
        let theirs = arena.kopia.snapshot(&source, &[]).unwrap();
        arena.agent_restores(&theirs.id, &source, Times::ByKopia);
        let ours = arena.agent.attempt(
            "backup",
            &[utf8(&source)],
            &["--force-read", "--source-path", "ours"],
        );
        if splitter.ends_with("RABINKARP") {
            assert_eq!(ours.code, Some(2), "{}", ours.stderr);
            assert!(ours.stderr.contains(splitter), "{}", ours.stderr);
            continue;
        }
        // Bit for bit the same cuts: nothing is stored a second time.
        let uploaded = ours.find("summary")["bytes_uploaded"].as_u64().unwrap();
        assert!(uploaded < 100_000, "{splitter}: {uploaded} bytes stored again");
        arena.kopia.verify().unwrap();
    }
}

/// Makes all indexes older, for kopia goes by the times of the blobs.
fn age_indexes(repository: &Path, by: Duration) {
    for entry in fs::read_dir(repository.join("x")).unwrap() {
        for blob in fs::read_dir(entry.unwrap().path()).unwrap() {
            let file = fs::File::open(blob.unwrap().path()).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            file.set_modified(time - by).unwrap();
        }
    }
}

#[test]
fn epochs_that_went_on_and_were_compacted() {
    let arena = Arena::theirs(&[]);
    // As quick as kopia allows: 10 blobs of index and 10 minutes advance an epoch, and ranges of two epochs are put together.
    arena
        .kopia
        .run(&[
            "repository",
            "set-parameters",
            "--epoch-refresh-frequency=1m",
            "--epoch-min-duration=10m",
            "--epoch-cleanup-safety-margin=3m",
            "--epoch-advance-on-count=10",
            "--epoch-checkpoint-frequency=2",
        ])
        .unwrap();
    let mut ids = Vec::new();
    let source = arena.path("source");
    // A range of epochs is put together only when a few have gone on.
    let (epochs, expected): (u64, &[&str]) = if full() {
        (12, &["xe", "xs", "xr"])
    } else {
        (6, &["xe", "xs"])
    };
    for epoch in 0..epochs {
        for round in 0..5 {
            trees::small(
                &source.join(format!("e{epoch}-r{round}")),
                10,
                1000 * epoch + 100 * round,
            );
            ids.push(arena.kopia.snapshot(&source, &[]).unwrap().id);
        }
        // Ours go in between, into whatever epoch it is.
        ids.push(id(&arena.agent.backup(&source, &["--source-path", "ours"])).to_owned());
        age_indexes(&arena.path("repository"), Duration::from_hours(1));
        arena.kopia.forget_cache().unwrap();
        arena.kopia.maintain().unwrap();
    }
    let blobs = arena.kopia.run(&["blob", "list"]).unwrap();
    for prefix in expected {
        assert!(
            blobs.lines().any(|line| line.starts_with(*prefix)),
            "no {prefix} in\n{blobs}"
        );
    }
    let words: Vec<&str> = ids.iter().map(String::as_str).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    let last = ids.last().unwrap();
    arena.agent_restores(last, &source, Times::All);
    arena.kopia_agrees(&[(last, &source)]);
}

#[test]
fn a_changed_password() {
    let mut arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::small(&source, 20, 4);
    let before = arena.kopia.snapshot(&source, &[]).unwrap();
    let mut command = arena.kopia.command(&["repository", "change-password"]);
    let output = command.env("KOPIA_NEW_PASSWORD", "another").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let refused = arena.agent.attempt("list", &[], &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("password"), "{}", refused.stderr);
    arena.agent.password = "another".to_owned();
    arena.kopia = Kopia::new(&arena.path("other-kopia"), "another").unwrap();
    arena.kopia.connect(&arena.place).unwrap();
    arena.agent_restores(&before.id, &source, Times::ByKopia);
    both_ways(&arena, &source);
}

#[test]
fn very_many_snapshots() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    // Each run of kopia reads all manifests, so that one at a time would take hours.
    let (runs, folders) = if full() { (100, 50) } else { (5, 12) };
    let folders: Vec<PathBuf> = (0..folders).map(|n| source.join(n.to_string())).collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("file"), "text").unwrap();
    }
    for n in 0..runs {
        let start = format!("--start-time=2024-01-01 00:{:02}:{:02} UTC", n / 60, n % 60);
        let mut words = vec!["snapshot", "create", "--no-progress", &start];
        words.extend(folders.iter().map(|folder| utf8(folder)));
        arena.kopia.run(&words).unwrap();
    }
    let number = runs * folders.len();
    let summary = arena.agent.run("list", &[], &[]);
    assert_eq!(summary["snapshots"].as_u64(), Some(number as u64), "{summary}");
    both_ways(&arena, &source);
}

#[test]
fn a_directory_of_two_hundred_thousand_entries() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::crowded(&source.join("crowd"), if full() { 200_000 } else { 20_000 });
    both_ways(&arena, &source);
    let peak = arena.agent.backup(&source, &["--source-path", "again"])["peak_rss_bytes"]
        .as_u64()
        .unwrap();
    // Without optimization, but with the same buffers.
    assert!(peak < 112 << 20, "{peak} bytes");
}

#[test]
fn a_large_sparse_file() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    fs::create_dir(&source).unwrap();
    let length = if full() { "20G" } else { "256M" };
    let made = Command::new("truncate")
        .args(["--size", length])
        .arg(source.join("disk.img"))
        .status()
        .unwrap();
    assert!(made.success());
    let theirs = arena.kopia.snapshot(&source, &[]).unwrap();
    let target = arena.path("restored");
    arena.agent.run("restore", &[&theirs.id, utf8(&target)], &[]);
    ensure_same(&source, &target, Times::ByKopia).unwrap();
    // Zeros of kopia are zeros of ours.
    let ours = arena.agent.backup(&source, &["--source-path", "ours"]);
    let uploaded = ours["bytes_uploaded"].as_u64().unwrap();
    assert!(uploaded < 100_000, "{uploaded} bytes of zeros stored again");
}
