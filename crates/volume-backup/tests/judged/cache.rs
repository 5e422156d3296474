//! Agents with a cache on disk.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_testkit::tree::Times;
use nix::sys::signal::Signal;

use crate::fixture::{Arena, id, signal, utf8};
use crate::trees;

/// So little that what is written does not fit, and enough for single windows of metadata.
const LIMIT: u64 = 3 << 20;

/// Bytes on the disk of everything in the cache but the number of them.
fn used(cache: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(cache.join("kopia-blobs")) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() != "ledger")
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len().div_ceil(4096) * 4096)
        .sum()
}

#[test]
fn agents_share_a_cache_and_are_killed_and_its_limit_holds() {
    let arena = Arena::ours();
    let (cache, limit) = (arena.path("cache"), LIMIT.to_string());
    let options = ["--cache", utf8(&cache), "--cache-limit", &limit];
    let sources: Vec<_> = (0..2).map(|n| arena.path(&format!("source-{n}"))).collect();
    let start = |source: &Path| -> Child {
        arena
            .agent
            .command("backup", &[utf8(source)], &options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(used(&cache), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..6 {
            for (n, source) in (0..).zip(&sources) {
                trees::small(
                    &source.join(format!("r{round}")),
                    3000,
                    100_000 * round + 10_000 * n,
                );
            }
            // Two at the same time, and one more that is killed.
            let mut running: Vec<Child> = sources.iter().map(|source| start(source)).collect();
            let mut victim = start(&sources[0]);
            thread::sleep(Duration::from_millis(100 + 80 * round));
            if victim.try_wait().unwrap().is_none() {
                signal(&victim, Signal::SIGKILL);
            }
            victim.wait().unwrap();
            for child in &mut running {
                assert!(child.wait().unwrap().success());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let most = most.into_inner();
    assert!(most <= LIMIT, "{most} bytes");
    assert!(most > LIMIT / 2, "hardly anything was kept: {most} bytes");
    for source in &sources {
        let summary = arena.agent.backup(source, &options);
        assert_eq!(summary["files_hashed"].as_u64(), Some(0), "{summary}");
        let target = arena.path("restored");
        let words = [id(&summary), utf8(&target)];
        arena.agent.run("restore", &words, &options);
        holdfast_testkit::tree::ensure_same(source, &target, Times::All).unwrap();
        fs::remove_dir_all(&target).unwrap();
        arena.kopia_agrees(&[(id(&summary), source)]);
    }
    let unfinished = fs::read_dir(cache.join("kopia-blobs"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("unfinished-")
        })
        .count();
    assert_eq!(unfinished, 0, "what killed agents left is there still");
}

#[test]
fn a_damaged_cache_changes_nothing() {
    let arena = Arena::ours();
    let cache = arena.path("cache");
    let options = ["--cache", utf8(&cache)];
    let source = arena.path("source");
    trees::odd(&source);
    let first = arena.agent.backup(&source, &options);
    for (n, entry) in fs::read_dir(cache.join("kopia-blobs")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        match n % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.fill(0),
            _ => bytes.extend([1, 2, 3]),
        }
        fs::write(path, bytes).unwrap();
    }
    // kopia has moved everything since, so what the cache has would be wrong if it were still asked for.
    arena.kopia.maintain().unwrap();
    let second = arena.agent.backup(&source, &options);
    assert_eq!(second["root"], first["root"]);
    assert_eq!(second["files_hashed"].as_u64(), Some(0), "{second}");
    arena.kopia_agrees(&[(id(&second), &source)]);
    arena.kopia.maintain().unwrap();
    let target = arena.path("restored");
    arena
        .agent
        .run("restore", &[id(&second), utf8(&target)], &options);
    holdfast_testkit::tree::ensure_same(&source, &target, Times::All).unwrap();
}
