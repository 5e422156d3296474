//! Trees to be kept.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: usize = 1 << 20;

/// Bytes that do not compress, others for each seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&(seed >> 24).to_le_bytes()[..5]);
    }
    data.truncate(length);
    data
}

fn text(length: usize) -> Vec<u8> {
    (0..)
        .flat_map(|line| format!("line {line} of a text that compresses\n").into_bytes())
        .take(length)
        .collect()
}

fn set_time(path: &Path, time: SystemTime) {
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
        .unwrap();
}

/// Small files, some alike, in a few directories; a file of several parts.
pub(crate) fn small(root: &Path) {
    for directory in ["a", "a/b", "c"] {
        fs::create_dir(root.join(directory)).unwrap();
        for number in 0..20 {
            let name = format!("{directory}/file{number}");
            fs::write(
                root.join(name),
                noise(number % 15, 1000 * usize::try_from(number).unwrap()),
            )
            .unwrap();
        }
    }
    fs::write(root.join("c/large"), noise(77, 20 * MIB)).unwrap();
    symlink("a", root.join("link")).unwrap();
}

/// One directory with so many files.
pub(crate) fn many(root: &Path, count: usize) {
    let directory = root.join("many");
    fs::create_dir(&directory).unwrap();
    for number in 0..count {
        fs::write(
            directory.join(format!("file number {number}")),
            number.to_string(),
        )
        .unwrap();
    }
}

/// Everything that a tree can have and kopia keeps.
pub(crate) fn odd(root: &Path) {
    sizes(&root.join("sizes"));
    names(&root.join("names"));
    links(&root.join("links"));
    modes(&root.join("modes"));
    let deep = (0..60).fold(root.join("deep"), |path, number| {
        path.join(format!("{number}{}", "x".repeat(100)))
    });
    // Beyond the longest path of one call.
    let mut at = root.to_owned();
    for part in deep.strip_prefix(root).unwrap().iter().take(30) {
        at.push(part);
        fs::create_dir(&at).unwrap();
        fs::write(at.join("f"), "deep").unwrap();
    }
    fs::create_dir(root.join("empty")).unwrap();
    set_time(
        &root.join("empty"),
        UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789),
    );
    set_time(root, UNIX_EPOCH + Duration::new(1_000_000_000, 1));
}

fn sizes(directory: &Path) {
    fs::create_dir(directory).unwrap();
    for (number, size) in [
        0,
        1,
        2,
        4095,
        4096,
        4097,
        MIB,
        2 * MIB - 1,
        2 * MIB,
        2 * MIB + 1,
        8 * MIB - 1,
        8 * MIB,
        8 * MIB + 1,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(directory.join(format!("noise{size}")), noise(number as u64, size)).unwrap();
        fs::write(directory.join(format!("text{size}")), text(size)).unwrap();
        fs::write(directory.join(format!("zeros{size}")), vec![0; size]).unwrap();
    }
    fs::write(directory.join("again"), noise(11, 8 * MIB)).unwrap();
    fs::write(directory.join("large"), noise(99, 25 * MIB)).unwrap();
    let sparse = File::create(directory.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"data in the middle", 33_333_333).unwrap();
}

fn names(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let long = "n".repeat(255);
    let wide = "\u{1f600}".repeat(63);
    for name in [
        "new\nline",
        "tab\t",
        " ",
        "  leading",
        "trailing ",
        "...",
        "..x",
        "-rf",
        "quo\"te",
        "back\\slash",
        "<&>",
        "\u{7f}\u{1}",
        "\u{2028}",
        "ä",
        "a\u{308}",
        "日本語",
        "\u{fffd}",
        &long,
        &wide,
        "A",
        "B",
        "b",
    ] {
        File::create(directory.join(name))
            .unwrap()
            .write_all(name.as_bytes())
            .unwrap();
    }
    fs::create_dir(directory.join("a")).unwrap();
    fs::create_dir(directory.join("dir\nwith\"odd\\name")).unwrap();
}

fn links(directory: &Path) {
    fs::create_dir(directory).unwrap();
    symlink("nowhere", directory.join("broken")).unwrap();
    symlink("/etc/passwd", directory.join("absolute")).unwrap();
    symlink("../sizes", directory.join("to a directory")).unwrap();
    symlink("..", directory.join("up")).unwrap();
    symlink("x".repeat(4000), directory.join("long")).unwrap();
    symlink("new\nline \"\\ ä", directory.join("odd")).unwrap();
}

fn modes(directory: &Path) {
    fs::create_dir(directory).unwrap();
    for mode in [0o000, 0o400, 0o644, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        let path = directory.join(format!("file{mode:o}"));
        fs::write(&path, "x").unwrap();
        set_time(&path, UNIX_EPOCH - Duration::new(u64::from(mode) * 1000 + 1, 500));
        owned(&path, mode);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    for mode in [0o500, 0o700, 0o755, 0o1777, 0o2775] {
        let path = directory.join(format!("directory{mode:o}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "x").unwrap();
        owned(&path, mode);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

fn owned(path: &Path, owner: u32) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(owner + 1000), Some(owner + 2000)).unwrap();
    }
}
