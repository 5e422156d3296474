//! What we write, judged by kopia.

use std::fs;
use std::path::Path;
use std::process::Command;

use holdfast_testkit::S3Server;
use holdfast_testkit::kopia::Place;
use holdfast_testkit::tree::{Times, ensure_same};

use crate::fixture::{Arena, folder, full, id, said, utf8};
use crate::trees::{self, MIB};

#[test]
fn kopia_lists_verifies_and_restores_what_we_write_before_and_after_its_own_repairs() {
    let arena = Arena::ours();
    let source = arena.path("source");
    trees::odd(&source);
    let first = arena.backup_as(&source, "judge", "host");
    trees::small(&source.join("more"), 300, 1);
    let second = arena.backup_as(&source, "judge", "host");
    assert_ne!(first, second);
    // The first snapshot is another tree; the later checks restore the second.
    let snapshots = [(second.as_str(), source.as_path())];
    arena.kopia_agrees(&snapshots);
    arena.agent_restores(&second, &source, Times::All);

    // All it has are the packs: what they say about themselves must be enough.
    arena.kopia.recover_indexes().unwrap();
    arena.kopia.forget_cache().unwrap();
    arena.kopia_agrees(&snapshots);
    arena.agent_restores(&second, &source, Times::All);

    // Nothing that is needed may look like garbage, and what is left must still be whole.
    arena.kopia.maintain().unwrap();
    arena.kopia.forget_cache().unwrap();
    arena.kopia_agrees(&snapshots);
    arena
        .agent
        .run("verify", &[&first, &second], &["--percent", "100"]);
    arena.agent_restores(&second, &source, Times::All);

    // And the next backup goes on from there.
    trees::rewrite(&source.join("more/d0/f7"), 77);
    let third = arena.backup_as(&source, "judge", "host");
    arena.kopia_agrees(&[(&third, &source)]);
}

impl Arena {
    /// Backs up a tree as kopia's user of this name would.
    fn backup_as(&self, source: &Path, user: &str, host: &str) -> String {
        let summary = self
            .agent
            .backup(source, &["--source-user", user, "--source-host", host]);
        id(&summary).to_owned()
    }
}

#[test]
fn kopia_knows_source_tags_pins_and_numbers_of_our_snapshots() {
    let arena = Arena::ours();
    let source = arena.path("source");
    trees::small(&source, 120, 3);
    let options = [
        "--source-path",
        "snapshot-pod-volume/kopia/shop/db-0/data",
        "--tag",
        "snapshot-requester=snapshot-pod-volume",
        "--pin",
        "velero-pin",
    ];
    let summary = arena.agent.backup(&source, &options);
    let listed = arena.kopia.snapshots().unwrap();
    let [snapshot] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(snapshot.id, id(&summary));
    assert_eq!(
        (
            snapshot.source.user_name.as_str(),
            snapshot.source.host.as_str(),
            snapshot.source.path.as_str()
        ),
        ("default", "default", "snapshot-pod-volume/kopia/shop/db-0/data")
    );
    assert_eq!(
        snapshot.tags.get("snapshot-requester").map(String::as_str),
        Some("snapshot-pod-volume")
    );
    assert_eq!(snapshot.pins, ["velero-pin"]);
    assert_eq!(
        (snapshot.stats.file_count, snapshot.stats.total_size),
        (120, 120_000)
    );
    assert_eq!(snapshot.incomplete, "");
}

#[test]
fn a_repository_in_s3_is_one_for_kopia_too() {
    let things = folder();
    let server = S3Server::start(&things.path().join("s3")).unwrap();
    server.create_bucket("volumes").unwrap();
    let place = Place::S3 {
        endpoint: server.address().to_string(),
        bucket: "volumes".to_owned(),
        prefix: "velero/kopia/shop/".to_owned(),
    };
    let arena = Arena::at(things, place);
    arena.agent.run("create", &[], &[]);
    arena.kopia.connect(&arena.place).unwrap();
    let source = arena.path("source");
    trees::odd(&source);
    let summary = arena.agent.backup(&source, &[]);
    arena.kopia_agrees(&[(id(&summary), &source)]);
    arena.agent_restores(id(&summary), &source, Times::All);
}

#[test]
fn a_large_sparse_file_is_stored_once_and_restored_with_its_holes() {
    let arena = Arena::ours();
    let source = arena.path("source");
    fs::create_dir(&source).unwrap();
    let length: u64 = if full() { 20 << 30 } else { 1 << 30 };
    let file = fs::File::create(source.join("disk.img")).unwrap();
    file.set_len(length).unwrap();
    for (n, at) in [0, length / 3, length - MIB as u64].into_iter().enumerate() {
        std::os::unix::fs::FileExt::write_all_at(&file, &trees::noise(n as u64, MIB), at).unwrap();
    }
    let summary = arena.agent.backup(&source, &[]);
    let stored = summary["bytes_uploaded"].as_u64().unwrap();
    assert!(stored < 20 * MIB as u64, "{stored} bytes of 3 MiB and nothing");
    let target = arena.path("restored");
    arena.agent.run("restore", &[id(&summary), utf8(&target)], &[]);
    holdfast_testkit::tree::ensure_same(&source, &target, Times::All).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(target.join("disk.img")).unwrap());
    assert!(blocks * 512 < 32 * MIB as u64, "{blocks} blocks");
    let kopias = arena.path("kopias");
    arena
        .kopia
        .restore(id(&summary), &kopias, &["--write-sparse-files"])
        .unwrap();
    holdfast_testkit::tree::ensure_same(&source, &kopias, Times::ByKopia).unwrap();
}

#[test]
fn names_that_json_cannot_hold_are_stored_as_kopia_stores_them() {
    let arena = Arena::ours();
    let source = arena.path("source");
    fs::create_dir(&source).unwrap();
    trees::unspeakable(&source);
    let summary = arena.agent.backup(&source, &[]);
    let target = arena.path("restored");
    arena.kopia.restore(id(&summary), &target, &[]).unwrap();
    assert_eq!(fs::read_to_string(target.join("caf\u{fffd}")).unwrap(), "latin-1");
    arena.kopia.verify().unwrap();
}

/// A tree deeper than the descriptors that the agent is started with; it may have more, if it asks for them. If it may not, nothing is left
/// out because of that.
#[test]
fn the_agent_takes_the_descriptors_that_it_may_have() {
    let arena = Arena::ours();
    let source = arena.path("source");
    let deep = source.join("d/".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    let limited = |limit: &str, action: &str, words: &[&str], options: &[&str]| {
        let agent = arena.agent.command(action, words, options);
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
            .arg(agent.get_program())
            .args(agent.get_args())
            .envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .unwrap();
        said(&output)
    };
    let skip = ["--skip-unreadable"];
    let refused = limited("-n 100", "backup", &[utf8(&source)], &skip);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_eq!(
        refused.errors_about("Too many open files"),
        1,
        "{:?}",
        refused.lines
    );

    let done = limited("-S -n 100", "backup", &[utf8(&source)], &skip);
    assert_eq!(done.code, Some(0), "{:?}", done.lines);
    let snapshot = id(done.find("summary"));
    let restored = arena.path("restored");
    let done = limited("-S -n 100", "restore", &[snapshot, utf8(&restored)], &[]);
    assert_eq!(done.code, Some(0), "{:?}", done.lines);
    ensure_same(&source, &restored, Times::All).unwrap();
}
