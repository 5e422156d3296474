//! Backups that are killed, and those that come after them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_testkit::environment;
use holdfast_testkit::kopia::Snapshot;
use holdfast_testkit::tree::Times;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fixture::{Arena, id, signal, utf8};
use crate::trees::{self, MIB};

/// Checkpoints so often that most of the killed runs have made one.
const OFTEN: [&str; 2] = ["--checkpoint-interval", "200ms"];

/// How often a backup is killed.
fn number(usual: u64) -> u64 {
    environment::variable("HOLDFAST_JUDGE_KILLS").map_or(usual, |number| number.parse().unwrap())
}

/// A backup that was to be killed.
struct Victim {
    /// Whether it still ran.
    hit: bool,
    /// The snapshot that it said it had taken.
    done: Option<String>,
}

/// Kills a backup anywhere between its first breath and somewhat beyond its usual end.
fn kill_somewhere(arena: &Arena, source: &Path, options: &[&str], usual: Duration, n: u64) -> Victim {
    let mut child = arena
        .agent
        .command("backup", &[utf8(source)], &[&OFTEN[..], options].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let noise = u64::from_le_bytes(trees::noise(n, 8).try_into().unwrap());
    thread::sleep(usual * u32::try_from(noise % 1300).unwrap() / 1000);
    let hit = child.try_wait().unwrap().is_none();
    if hit {
        signal(&child, Signal::SIGKILL);
    }
    let output = child.wait_with_output().unwrap();
    // The last line may have been cut.
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let done = lines
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .find(|line| line["type"] == "summary")
        .map(|summary| id(&summary).to_owned());
    Victim { hit, done }
}

#[test]
fn after_any_number_of_kills_a_backup_succeeds_and_nothing_is_lost() {
    let arena = Arena::ours();
    let source = arena.path("source");
    trees::small(&source, 2000, 1);
    for n in 0..4 {
        fs::write(source.join(format!("large-{n}")), trees::noise(n, 24 * MIB)).unwrap();
    }
    // A limit makes the run long enough to be hit anywhere, on a fast machine too.
    let slowly = ["--upload-limit", "60000000"];
    let first = arena.agent.backup(&arena.path("source"), &[]);
    let mut kept = vec![id(&first).to_owned()];
    let begin = Instant::now();
    arena
        .agent
        .backup(&source, &["--source-path", "timing", "--force-read"]);
    let usual = begin.elapsed();
    let mut killed = 0;
    let number = number(10);
    for n in 0..number {
        trees::rewrite(&source.join(format!("large-{}", n % 4)), 100 + n);
        trees::small(&source.join(format!("new-{n}")), 50, 50_000 + 100 * n);
        let victim = kill_somewhere(&arena, &source, &slowly, usual, n);
        killed += u64::from(victim.hit);
        kept.extend(victim.done);
        // What was there before is there still.
        if n % 5 == 4 {
            let summary = arena.agent.backup(&source, &[]);
            arena.agent_restores(id(&summary), &source, Times::All);
            kept.push(id(&summary).to_owned());
        }
    }
    assert!(killed >= number / 3, "only {killed} of {number} were hit");
    let last = arena.agent.backup(&source, &[]);
    arena.kopia_agrees(&[(id(&last), &source)]);
    // The remains of the killed runs are garbage that kopia can collect, and nothing else is.
    arena.kopia.maintain().unwrap();
    arena.kopia.forget_cache().unwrap();
    let words: Vec<&str> = kept.iter().map(String::as_str).chain([id(&last)]).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
    arena.kopia_agrees(&[(id(&last), &source)]);
}

/// A kill in the middle of a request leaves a part of a blob at the server, not in a directory.
#[test]
fn kills_lose_nothing_in_s3_either() {
    let (arena, _server) = Arena::ours_in_s3();
    let source = arena.path("source");
    trees::small(&source, 500, 1);
    for n in 0..2 {
        fs::write(source.join(format!("large-{n}")), trees::noise(n, 24 * MIB)).unwrap();
    }
    let begin = Instant::now();
    let mut kept = vec![id(&arena.agent.backup(&source, &[])).to_owned()];
    let usual = begin.elapsed();
    let (mut killed, number) = (0, number(6));
    for n in 0..number {
        // As much to store as the first time.
        for large in 0..2 {
            let path = source.join(format!("large-{large}"));
            fs::write(path, trees::noise(10 + 2 * n + large, 24 * MIB)).unwrap();
        }
        trees::small(&source.join(format!("new-{n}")), 50, 50_000 + 100 * n);
        let victim = kill_somewhere(&arena, &source, &[], usual, n);
        killed += u64::from(victim.hit);
        kept.extend(victim.done);
    }
    assert!(killed >= number / 3, "only {killed} of {number} were hit");
    kept.push(id(&arena.agent.backup(&source, &[])).to_owned());
    arena.kopia_agrees(&[(&kept[kept.len() - 1], &source)]);
    let listed = arena.kopia.snapshots().unwrap();
    for id in &kept {
        let is_there = |snapshot: &Snapshot| snapshot.id == *id && snapshot.incomplete.is_empty();
        assert!(listed.iter().any(is_there), "{id} is not in {listed:?}");
    }
    let words: Vec<&str> = kept.iter().map(String::as_str).collect();
    arena.agent.run("verify", &words, &["--percent", "100"]);
}

#[test]
fn a_killed_run_is_resumed_from_its_checkpoint() {
    let arena = Arena::ours();
    let source = arena.path("source");
    fs::create_dir(&source).unwrap();
    for n in 0..16 {
        fs::write(source.join(format!("{n}")), trees::noise(n, 20 * MIB)).unwrap();
    }
    let mut child = arena
        .agent
        .command(
            "backup",
            &[utf8(&source)],
            &[&OFTEN[..], &["--upload-limit", "20000000"]].concat(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    // The agent is asked, because kopia looks at a list of blobs that may be half a minute old.
    let checkpoint = || {
        let said = arena.agent.attempt("list", &[], &["--incomplete"]);
        said.lines.iter().find_map(|line| {
            let manifest = &line["manifest"];
            let size = manifest["rootEntry"]["summ"]["size"].as_u64()?;
            (manifest["incomplete"] == "checkpoint" && size >= 20 * MIB as u64)
                .then(|| (size, id(line).to_owned()))
        })
    };
    let kept = loop {
        if let Some((size, _)) = checkpoint() {
            break size;
        }
        assert!(begin.elapsed() < Duration::from_mins(1), "no checkpoint");
    };
    assert!(
        child.try_wait().unwrap().is_none(),
        "it ended before it could be killed"
    );
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    // What there is of it can be restored, and nobody takes it for all.
    let ((_, part), target) = (checkpoint().unwrap(), arena.path("part"));
    let said = arena.agent.attempt("restore", &[&part, utf8(&target)], &[]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(said.find("summary")["incomplete"], "checkpoint");
    assert!(
        said.stderr.contains("not complete (checkpoint)"),
        "{}",
        said.stderr
    );
    let resumed = arena.agent.backup(&source, &[]);
    let uploaded = resumed["bytes_uploaded"].as_u64().unwrap();
    // What was half read is read again.
    let rest = (16 * 20 + 2) * MIB as u64 - kept;
    assert!(
        uploaded <= rest,
        "{uploaded} bytes, of which {rest} were not in the checkpoint"
    );
    let restored = arena
        .agent
        .run("restore", &[id(&resumed), utf8(&arena.path("all"))], &[]);
    assert!(restored["incomplete"].is_null(), "{restored}");
    arena.kopia_agrees(&[(id(&resumed), &source)]);
}

#[test]
fn a_signal_stops_a_backup_soon_and_cleanly() {
    let arena = Arena::ours();
    let source = arena.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), trees::noise(1, 60 * MIB)).unwrap();
    let child = arena
        .agent
        .command("backup", &[utf8(&source)], &["--upload-limit", "5000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    signal(&child, Signal::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let took = begin.elapsed();
    let said = crate::fixture::said(&output);
    assert_eq!(said.code, Some(4), "{}", said.stderr);
    assert_eq!(said.errors_about("cancelled"), 1, "{:?}", said.lines);
    assert!(took < Duration::from_secs(3), "{took:?}");
    let summary = arena.agent.backup(&source, &[]);
    arena.kopia_agrees(&[(id(&summary), &source)]);
}
