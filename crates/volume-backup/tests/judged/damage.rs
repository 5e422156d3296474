//! Repositories in which something is broken or missing: told with the paths that it concerns, never a panic, never silence.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::fixture::{Arena, Said, id, utf8};
use crate::trees::{self, MIB};

/// The files of blobs whose name begins so; the largest first.
fn blobs(arena: &Arena, prefix: &str) -> Vec<PathBuf> {
    fn collect(folder: &Path, top: &Path, prefix: &str, found: &mut Vec<(u64, PathBuf)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if path.is_dir() {
                collect(&path, top, prefix, found);
                continue;
            }
            // The folders are parts of the name.
            let below = path.strip_prefix(top).unwrap();
            let name: String = below.iter().map(|part| part.to_str().unwrap()).collect();
            if name.starts_with(prefix) {
                found.push((entry.metadata().unwrap().len(), path));
            }
        }
    }
    let top = arena.path("repository");
    let mut found = Vec::new();
    collect(&top, &top, prefix, &mut found);
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// A repository with one snapshot of two large files and some small ones; its id.
fn prepared() -> (Arena, String) {
    let arena = Arena::ours();
    let source = arena.path("source");
    trees::small(&source.join("small"), 100, 1);
    for name in ["first", "second"] {
        fs::write(source.join(name), trees::noise(name.len() as u64, 30 * MIB)).unwrap();
    }
    let summary = arena.agent.backup(&source, &[]);
    let id = id(&summary).to_owned();
    (arena, id)
}

fn verify(arena: &Arena, id: &str) -> Said {
    arena.agent.attempt("verify", &[id], &["--percent", "100"])
}

/// Verify says which files are hit, restore fails and says why, and with leave to go on it restores the others.
fn told(arena: &Arena, id: &str, hit: &str) {
    let said = verify(arena, id);
    assert_eq!(said.code, Some(3), "{:?} {}", said.lines, said.stderr);
    assert!(
        said.errors_about(hit) > 0,
        "nothing about {hit} in {:?}",
        said.lines
    );
    let target = arena.path("restored");
    let said = arena.agent.attempt("restore", &[id, utf8(&target)], &[]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    fs::remove_dir_all(&target).unwrap();
    let said = arena
        .agent
        .attempt("restore", &[id, utf8(&target)], &["--ignore-errors"]);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(said.errors_about(hit) > 0, "{:?}", said.lines);
}

#[test]
fn a_flipped_bit_in_a_pack() {
    let (arena, id) = prepared();
    let pack = blobs(&arena, "p").remove(0);
    let file = fs::OpenOptions::new().read(true).write(true).open(&pack).unwrap();
    let mut byte = [0];
    let middle = file.metadata().unwrap().len() / 2;
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    told(&arena, &id, "");
    // It hits one of the large files; the small ones lie elsewhere.
    let said = verify(&arena, &id);
    assert_eq!(
        said.errors_about("first") + said.errors_about("second"),
        1,
        "{:?}",
        said.lines
    );
}

#[test]
fn a_pack_that_is_cut_off() {
    let (arena, id) = prepared();
    let pack = blobs(&arena, "p").remove(0);
    let length = fs::metadata(&pack).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&pack)
        .unwrap()
        .set_len(length / 3)
        .unwrap();
    told(&arena, &id, "");
}

#[test]
fn a_pack_that_is_missing() {
    let (arena, id) = prepared();
    fs::remove_file(blobs(&arena, "p").remove(0)).unwrap();
    told(&arena, &id, "");
    // Without reading a single byte of a file, too.
    let said = arena.agent.attempt("verify", &[&id], &["--percent", "0"]);
    assert_eq!(said.code, Some(3), "{:?}", said.lines);
}

#[test]
fn a_directory_that_is_damaged() {
    let (arena, id) = prepared();
    for pack in blobs(&arena, "q") {
        let length = fs::metadata(&pack).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&pack).unwrap();
        file.write_all_at(&vec![0x55; usize::try_from(length / 2).unwrap()], 0)
            .unwrap();
    }
    let said = verify(&arena, &id);
    assert!(
        matches!(said.code, Some(2 | 3)),
        "{:?} {}",
        said.code,
        said.stderr
    );
    assert!(said.errors_about("") > 0, "{:?}", said.lines);
    let said = arena
        .agent
        .attempt("restore", &[&id, utf8(&arena.path("restored"))], &[]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
}

#[test]
fn an_index_that_is_damaged_or_missing() {
    for damage in ["flip", "cut", "remove"] {
        let (arena, id) = prepared();
        for index in blobs(&arena, "xn") {
            let bytes = fs::read(&index).unwrap();
            match damage {
                "flip" => {
                    let mut bytes = bytes;
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(&index, bytes).unwrap();
                }
                "cut" => fs::write(&index, &bytes[..bytes.len() / 2]).unwrap(),
                _ => fs::remove_file(&index).unwrap(),
            }
        }
        // Nothing of the last run may come to help.
        let _ = fs::remove_dir_all(&arena.agent.scratch);
        let said = verify(&arena, &id);
        assert_eq!(said.code, Some(2), "{damage}: {:?} {}", said.lines, said.stderr);
        let said = arena.agent.attempt("list", &[], &[]);
        if damage == "remove" {
            // A repository without indexes is an empty one, for kopia too.
            assert_eq!(said.find("summary")["snapshots"].as_u64(), Some(0));
        } else {
            assert_eq!(said.code, Some(2), "{damage}: {}", said.stderr);
            assert!(said.stderr.contains("xn"), "{damage}: {}", said.stderr);
        }
        // The packs know everything. kopia cannot even open a repository with a damaged index, so that goes first.
        for index in blobs(&arena, "xn") {
            fs::remove_file(&index).unwrap();
        }
        arena.kopia.forget_cache().unwrap();
        arena.kopia.recover_indexes().unwrap();
        let _ = fs::remove_dir_all(&arena.agent.scratch);
        arena.agent.run("verify", &[&id], &["--percent", "100"]);
    }
}
