//! kopia and we write to one repository.

use std::thread;

use holdfast_testkit::tree::Times;

use crate::fixture::{Arena, id};
use crate::trees;

/// kopia's own name for the source, so that each takes the other's snapshot for the parent.
const NAMES: [&str; 4] = ["--source-user", "judge", "--source-host", "kopia"];

#[test]
fn an_unchanged_tree_uploads_no_file_data_either_way() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::small(&source, 400, 1);
    let files = 400;

    let first = arena.kopia.snapshot(&source, &[]).unwrap();
    assert_eq!(first.stats.non_cached_files, files);
    let second = arena.agent.backup(&source, &NAMES);
    assert_eq!(second["files_cached"].as_u64(), Some(files), "{second}");
    assert_eq!(second["files_hashed"].as_u64(), Some(0), "{second}");
    let third = arena.kopia.snapshot(&source, &[]).unwrap();
    assert_eq!(
        (third.stats.cached_files, third.stats.non_cached_files),
        (files, 0)
    );
    assert_eq!(third.root_entry.obj, first.root_entry.obj);

    // One file changes: one file is read, by us and by kopia.
    trees::rewrite(&source.join("d0/f42"), 1);
    let fourth = arena.agent.backup(&source, &NAMES);
    assert_eq!(fourth["files_hashed"].as_u64(), Some(1), "{fourth}");
    trees::rewrite(&source.join("d1/f142"), 2);
    let fifth = arena.kopia.snapshot(&source, &[]).unwrap();
    assert_eq!(fifth.stats.non_cached_files, 1);
    arena.kopia_agrees(&[(&fifth.id, &source)]);
    arena.agent_restores(&fifth.id, &source, Times::ByKopia);
}

#[test]
fn the_same_bytes_are_stored_once_whoever_comes_first() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::odd(&source);
    arena.kopia.snapshot(&source, &[]).unwrap();
    // Another source: nothing is taken from a parent, every file is read and cut.
    let ours = arena.agent.backup(&source, &["--source-path", "elsewhere"]);
    let uploaded = ours["bytes_uploaded"].as_u64().unwrap();
    assert!(uploaded < 100_000, "{uploaded} bytes of what was there already");

    let fresh = arena.path("fresh");
    trees::small(&fresh, 200, 99);
    std::fs::write(fresh.join("large"), trees::noise(98, 21 * trees::MIB)).unwrap();
    arena.agent.backup(&fresh, &["--source-path", "fresh"]);
    let size = || {
        let stats = arena.kopia.run(&["content", "stats", "--raw"]).unwrap();
        let line = stats
            .lines()
            .find(|line| line.contains("Total"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .find_map(|word| word.parse::<u64>().ok())
            .unwrap()
    };
    let before = size();
    arena.kopia.snapshot(&fresh, &[]).unwrap();
    let grown = size() - before;
    assert!(
        grown < 100_000,
        "kopia stored {grown} bytes of what was there already"
    );
}

#[test]
fn at_the_same_time_and_with_maintenance_in_between() {
    let arena = Arena::ours();
    let rounds = 4;
    let sources: Vec<_> = (0..2).map(|n| arena.path(&format!("source-{n}"))).collect();
    let mut all = Vec::new();
    for round in 0..rounds {
        for (n, source) in (0..).zip(&sources) {
            trees::small(&source.join(format!("r{round}")), 200, 10_000 * round + n);
            // What both write at once is the hard part.
            std::fs::write(
                source.join(format!("shared-{round}")),
                trees::noise(500 + round, 5 * trees::MIB),
            )
            .unwrap();
        }
        let (ours, theirs) = thread::scope(|scope| {
            let ours = scope.spawn(|| arena.agent.backup(&sources[0], &[]));
            let theirs = scope.spawn(|| arena.kopia.snapshot(&sources[1], &[]).unwrap());
            let ours = ours.join().unwrap();
            (id(&ours).to_owned(), theirs.join().unwrap().id)
        });
        all.push(ours.clone());
        all.push(theirs.clone());
        if round % 2 == 1 {
            // Safe maintenance, as it runs by itself: it must respect a session that is under way.
            thread::scope(|scope| {
                let maintenance = scope.spawn(|| {
                    arena
                        .kopia
                        .run(&["maintenance", "run", "--full", "--force"])
                        .unwrap()
                });
                let again = arena.agent.backup(&sources[0], &[]);
                all.push(id(&again).to_owned());
                maintenance.join().unwrap();
            });
        }
        if round == rounds - 1 {
            arena.kopia_agrees(&[(&ours, &sources[0]), (&theirs, &sources[1])]);
        }
    }
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    arena.kopia.maintain().unwrap();
    arena.kopia.forget_cache().unwrap();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    arena.kopia.verify().unwrap();
}

/// In how many contents the manifests are, as kopia sees it.
fn manifest_contents(arena: &Arena) -> usize {
    let listed = arena.kopia.run(&["content", "list", "--prefix=m"]).unwrap();
    listed.lines().count()
}

#[test]
fn manifests_are_brought_together_as_kopia_does() {
    // With a policy by which kopia keeps all its snapshots.
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::small(&source, 30, 1);
    let mut all = Vec::new();
    for round in 0..40 {
        trees::rewrite(&source.join("d0/f7"), round);
        all.push(id(&arena.agent.backup(&source, &[])).to_owned());
    }
    // kopia would bring them together, too, so it looks only now: with 16 or more there, nobody did before.
    let contents = manifest_contents(&arena);
    assert!(contents < 18, "{contents} contents of manifests");
    let listed = arena.kopia.snapshots().unwrap();
    assert_eq!(listed.len(), all.len());
    arena.kopia_agrees(&[(all.last().unwrap(), &source)]);

    // In turns, each deleting what the other wrote, with maintenance at the end.
    for round in 0..40 {
        if round % 2 == 0 {
            all.push(arena.kopia.snapshot(&source, &[]).unwrap().id);
        } else {
            all.push(id(&arena.agent.backup(&source, &[])).to_owned());
        }
        if round % 4 == 0 {
            let deleted = all.remove(usize::try_from(round).unwrap() / 2);
            arena
                .kopia
                .run(&["snapshot", "delete", &deleted, "--delete"])
                .unwrap();
        }
    }
    let kept = |arena: &Arena| {
        let mut listed: Vec<String> = arena
            .kopia
            .snapshots()
            .unwrap()
            .into_iter()
            .map(|s| s.id)
            .collect();
        listed.sort();
        listed
    };
    all.sort();
    assert_eq!(kept(&arena), all);
    arena.kopia.maintain().unwrap();
    arena.kopia.forget_cache().unwrap();
    assert_eq!(kept(&arena), all);
    let contents = manifest_contents(&arena);
    assert!(contents < 18, "{contents} contents of manifests");
    arena.kopia.verify().unwrap();
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
}

#[test]
fn both_bring_manifests_together_at_the_same_time() {
    // With a policy by which kopia keeps all its snapshots.
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    trees::small(&source, 20, 1);
    let mut all = Vec::new();
    // Each opens the repository some ten times while the other does, so both compact, now and then both at once.
    for _ in 0..4 {
        let (ours, theirs) = thread::scope(|scope| {
            let ours = scope.spawn(|| {
                let backup = |_| id(&arena.agent.backup(&source, &[])).to_owned();
                (0..12).map(backup).collect::<Vec<_>>()
            });
            let theirs = scope.spawn(|| {
                let snapshot = |_| arena.kopia.snapshot(&source, &[]).unwrap().id;
                (0..6).map(snapshot).collect::<Vec<_>>()
            });
            (ours.join().unwrap(), theirs.join().unwrap())
        });
        all.extend(ours);
        all.extend(theirs);
    }
    all.sort();
    arena.kopia.forget_cache().unwrap();
    let mut listed: Vec<String> = arena
        .kopia
        .snapshots()
        .unwrap()
        .into_iter()
        .map(|snapshot| snapshot.id)
        .collect();
    listed.sort();
    assert_eq!(listed, all);
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    arena.kopia.verify().unwrap();
}
