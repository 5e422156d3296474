//! Block devices: loop devices over files, which need root and a kernel that has them.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_testkit::kopia::finished;
use serde_json::Value;

use crate::fixture::{Arena, id, utf8};
use crate::trees::{self, MIB};

const SIZE: usize = 256 * MIB;

/// A loop device. The kernel detaches it when nobody has it open any more, also if this test is killed.
struct Loop {
    path: PathBuf,
    file: File,
}

impl Loop {
    /// Makes a device over a file; none, and why on standard error, where that cannot be had.
    fn over(file: &Path) -> Option<Self> {
        let losetup = |words: &[&str]| {
            let output = Command::new("losetup")
                .args(words)
                .env_clear()
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .output();
            match output {
                Ok(output) => finished("losetup", words, &output).map_err(|error| error.to_string()),
                Err(error) => Err(format!("losetup: {error}")),
            }
        };
        let path = match losetup(&["--find", "--show", utf8(file)]) {
            Ok(path) => path.trim().to_owned(),
            Err(problem) => {
                eprintln!("skipped: this machine has no loop devices for us: {problem}");
                return None;
            }
        };
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        losetup(&["--detach", &path]).unwrap();
        Some(Self {
            path: path.into(),
            file,
        })
    }

    fn path(&self) -> &str {
        utf8(&self.path)
    }

    fn write(&self, data: &[u8], offset: usize) {
        self.file.write_all_at(data, offset as u64).unwrap();
        self.file.sync_all().unwrap();
    }

    #[track_caller]
    fn ensure_same(&self, other: &Path) {
        ensure_same(&self.path, other);
    }
}

#[track_caller]
fn ensure_same(one: &Path, other: &Path) {
    let mut files = [one, other].map(|path| File::open(path).unwrap());
    let mut buffers = [vec![0; MIB], vec![0; MIB]];
    for at in 0..SIZE / MIB {
        for (file, buffer) in files.iter_mut().zip(&mut buffers) {
            file.read_exact(buffer).unwrap();
        }
        assert!(
            buffers[0] == buffers[1],
            "{} and {} differ in MiB {at}",
            one.display(),
            other.display()
        );
    }
    for file in &mut files {
        assert_eq!(file.read(&mut [0]).unwrap(), 0, "one is longer");
    }
}

/// A file of zeros without blocks.
fn empty(path: PathBuf, size: usize) -> PathBuf {
    File::create(&path).unwrap().set_len(size as u64).unwrap();
    path
}

/// The id of the object of the one file in a snapshot of a device, and what kopia says of it.
fn only_entry(arena: &Arena, root: &str) -> Value {
    let text = arena.kopia.run(&["show", root]).unwrap();
    let directory: Value = serde_json::from_str(&text).unwrap();
    let entries = directory["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{text}");
    entries[0].clone()
}

#[test]
fn a_block_device_comes_back_byte_by_byte() {
    let arena = Arena::ours();
    let Some(source) = Loop::over(&empty(arena.path("source"), SIZE)) else {
        return;
    };
    let target = Loop::over(&empty(arena.path("target"), SIZE)).unwrap();
    let short = Loop::over(&empty(arena.path("short"), SIZE - MIB)).unwrap();
    source.write(&trees::noise(1, 40 * MIB + 512), 0);
    source.write(&trees::noise(2, 17 * MIB), 100 * MIB + 4096);
    source.write(&trees::prose(3, 4096), SIZE - 4096);
    // What was on the target before must not show where the source has zeros.
    let garbage = trees::noise(4, MIB);
    for at in 0..SIZE / MIB {
        target.file.write_all_at(&garbage, (at * MIB) as u64).unwrap();
    }

    let summary = arena.agent.backup(&source.path, &[]);
    assert_eq!(summary["bytes"].as_u64(), Some(SIZE as u64), "{summary}");
    // As Velero has it: one file in a directory, and its name is the path of the device.
    let entry = only_entry(&arena, summary["root"].as_str().unwrap());
    assert_eq!(
        (
            entry["name"].as_str(),
            entry["type"].as_str(),
            entry["size"].as_u64()
        ),
        (Some(source.path()), Some("f"), Some(SIZE as u64)),
        "{entry}"
    );
    arena.kopia.verify().unwrap();
    let read = arena.path("read-by-kopia");
    let mut show = arena.kopia.command(&["show", entry["obj"].as_str().unwrap()]);
    assert!(
        show.stdout(File::create(&read).unwrap())
            .status()
            .unwrap()
            .success()
    );
    source.ensure_same(&read);
    fs::remove_file(read).unwrap();

    let restored = arena.agent.run("restore", &[id(&summary), target.path()], &[]);
    assert_eq!(restored["bytes"].as_u64(), Some(SIZE as u64), "{restored}");
    source.ensure_same(&target.path);

    // The whole device is read each time, and what is stored already is not stored again.
    source.write(&trees::noise(5, 3 * MIB), 60 * MIB);
    let next = arena.agent.backup(&source.path, &[]);
    let uploaded = next["bytes_uploaded"].as_u64().unwrap();
    assert!((3 * MIB as u64..24 * MIB as u64).contains(&uploaded), "{next}");
    arena.agent.run("restore", &[id(&next), target.path()], &[]);
    source.ensure_same(&target.path);

    let said = arena.agent.attempt("restore", &[id(&next), short.path()], &[]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.errors_about("are needed") > 0, "{:?}", said.lines);
    let mut beginning = vec![1; MIB];
    short.file.read_exact_at(&mut beginning, 0).unwrap();
    assert!(beginning.iter().all(|byte| *byte == 0), "it was written to");
}

/// Velero gives kopia a directory with a stream in it, and so does this option of kopia's command line.
#[test]
fn a_stream_that_kopia_stored_is_restored_to_a_block_device() {
    let arena = Arena::theirs(&[]);
    let Some(target) = Loop::over(&empty(arena.path("target"), SIZE)) else {
        return;
    };
    let source = empty(arena.path("source"), SIZE);
    let file = OpenOptions::new().write(true).open(&source).unwrap();
    file.write_all_at(&trees::noise(6, 30 * MIB), 50 * MIB as u64 + 4096)
        .unwrap();
    target.write(&trees::noise(7, MIB), 10 * MIB);
    let words = [
        "snapshot",
        "create",
        "/volume",
        "--stdin-file=/dev/volume",
        "--json",
    ];
    let output = arena
        .kopia
        .command(&words)
        .stdin(Stdio::from(File::open(&source).unwrap()))
        .output()
        .unwrap();
    let created: Value = serde_json::from_str(&finished("kopia", &words, &output).unwrap()).unwrap();
    let id = created["id"].as_str().unwrap();
    arena.agent.run("restore", &[id, target.path()], &[]);
    target.ensure_same(&source);
}
