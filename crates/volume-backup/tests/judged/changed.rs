//! kopia changes the repository while we back up into it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_testkit::kopia::Kopia;
use holdfast_testkit::tree::Times;
use nix::sys::signal::Signal;

use crate::fixture::{Arena, Said, id, said, signal, utf8};
use crate::trees::{self, MIB};

/// A backup that has stored its first pack, and stands still.
fn under_way(arena: &Arena, source: &Path) -> Child {
    fs::create_dir(source).unwrap();
    for n in 0..3 {
        fs::write(source.join(format!("{n}")), trees::noise(n, 21 * MIB)).unwrap();
    }
    let child = arena
        .agent
        .command("backup", &[utf8(source)], &["--upload-limit", "20000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !has_pack(&arena.path("repository")) {
        assert!(begin.elapsed() < Duration::from_mins(1), "no pack");
        thread::sleep(Duration::from_millis(10));
    }
    signal(&child, Signal::SIGSTOP);
    child
}

/// What the backup says in the end.
fn go_on(mut child: Child) -> Said {
    assert!(child.try_wait().unwrap().is_none(), "it ended before the change");
    signal(&child, Signal::SIGCONT);
    said(&child.wait_with_output().unwrap())
}

/// Whether data of files were stored; how many letters the names of folders have depends on the version.
fn has_pack(repository: &Path) -> bool {
    let mut names = fs::read_dir(repository)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.any(|name| name.as_encoded_bytes().starts_with(b"p"))
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Its indexes would be of the old format, and nobody reads these any more.
#[test]
fn a_backup_during_which_the_repository_is_upgraded_fails_and_says_why() {
    let arena = Arena::theirs(&["--format-version", "1"]);
    let source = arena.path("source");
    let child = under_way(&arena, &source);
    let words = ["repository", "upgrade", "begin", "--upgrade-owner-id", "admin"];
    // It would wait for clients for half an hour.
    let hurry = [
        "--allow-unsafe-upgrade",
        "--io-drain-timeout=1s",
        "--status-poll-interval=1s",
        "--max-permitted-clock-drift=1s",
    ];
    let mut upgrade = arena.kopia.command(&[&words[..], &hurry].concat());
    succeeds(upgrade.env("KOPIA_UPGRADE_LOCK_ENABLED", "1"));
    let said = go_on(child);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert_eq!(said.errors_about("RepositoryChanged"), 1, "{:?}", said.lines);
    assert!(said.stderr.contains("version is 3, and was 1"), "{}", said.stderr);
    // Again, and all is well.
    let summary = arena.agent.backup(&source, &[]);
    arena.kopia_agrees(&[(id(&summary), &source)]);
}

#[test]
fn a_backup_during_which_the_password_is_changed_goes_on() {
    let mut arena = Arena::theirs(&[]);
    let source = arena.path("source");
    let child = under_way(&arena, &source);
    let mut change = arena.kopia.command(&["repository", "change-password"]);
    succeeds(change.env("KOPIA_NEW_PASSWORD", "another"));
    let said = go_on(child);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    arena.agent.password = "another".to_owned();
    arena.kopia = Kopia::new(&arena.path("other-kopia"), "another").unwrap();
    arena.kopia.connect(&arena.place).unwrap();
    let snapshot = id(said.find("summary"));
    arena.agent_restores(snapshot, &source, Times::All);
    arena.kopia_agrees(&[(snapshot, &source)]);
}
