//! Trees to back up.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

pub(crate) const MIB: usize = 1024 * 1024;

/// Bytes that nothing can make smaller; the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Text that can be made much smaller.
pub(crate) fn prose(seed: u64, length: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut line = 0;
    while text.len() < length {
        line += 1;
        writeln!(text, "line {line} of the text with the number {seed}").unwrap();
    }
    text.truncate(length);
    text.into_bytes()
}

/// A few MB of everything that a directory can hold and a kopia repository can keep.
pub(crate) fn odd(folder: &Path) {
    let sizes = folder.join("sizes");
    fs::create_dir_all(&sizes).unwrap();
    for size in [0, 1, 4095, 4096, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 8 * MIB] {
        fs::write(sizes.join(format!("{size}")), noise(size as u64, size)).unwrap();
    }
    fs::write(sizes.join("text"), prose(1, 3 * MIB)).unwrap();
    fs::write(sizes.join("zeros"), vec![0; 5 * MIB]).unwrap();
    let sparse = File::create(sizes.join("sparse")).unwrap();
    sparse.set_len(40 * MIB as u64).unwrap();
    sparse
        .write_all_at(&noise(5, MIB), 17 * MIB as u64 + 123)
        .unwrap();

    let names = folder.join("names");
    fs::create_dir(&names).unwrap();
    let longest = "n".repeat(255);
    for name in [
        "new\nline",
        " space ",
        "quote\"back\\slash",
        "<html>&amp;",
        "\u{2028}\u{1f980} ünïcödé",
        "tab\tand\u{7f}\u{1}",
        "-dash",
        "..dots..",
        &longest,
    ] {
        fs::write(names.join(name), name).unwrap();
        fs::create_dir(names.join(format!("{}-dir", &name[..name.len().min(20)]))).unwrap();
    }

    let links = folder.join("links");
    fs::create_dir(&links).unwrap();
    for (name, target) in [
        ("relative", "../sizes/1"),
        ("dangling", "no/such/file"),
        ("absolute", "/etc/hostname"),
        ("directory", "../names"),
        ("odd", "new\nline \u{1f980}"),
    ] {
        symlink(target, links.join(name)).unwrap();
    }

    let modes = folder.join("modes");
    fs::create_dir(&modes).unwrap();
    for mode in [0o000, 0o400, 0o644, 0o666, 0o755, 0o1777, 0o2755, 0o4755, 0o7777] {
        let path = modes.join(format!("file-{mode:o}"));
        fs::write(&path, format!("{mode:o}")).unwrap();
        owned(&path, mode);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let path = modes.join(format!("dir-{mode:o}"));
        fs::create_dir(&path).unwrap();
        owned(&path, mode);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    lchown(links.join("relative"), Some(1234), Some(4321)).unwrap();

    let mut deep = folder.to_owned();
    for depth in 0..40 {
        deep = deep.join(format!("deep-{depth}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "bottom").unwrap();

    let times = folder.join("times");
    fs::create_dir(&times).unwrap();
    for (name, seconds, nanoseconds) in [
        ("old", 1, 1),
        ("now", 1_700_000_000, 123_456_789),
        ("future", 4_000_000_000, 999_999_999),
        ("before", -86_400, 500_000_000),
    ] {
        let path = times.join(name);
        fs::write(&path, name).unwrap();
        set_time(&path, seconds, nanoseconds);
    }
    set_time(&links.join("dangling"), 1_000_000_000, 1);
    // A directory is changed by what is made in it, so its time comes last.
    set_time(&times, 1_600_000_000, 987_654_321);
}

fn owned(path: &Path, mode: u32) {
    chown(path, Some(1000 + mode), Some(2000 + mode)).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .unwrap();
}

/// Many small files in a few directories; about `files` KB.
pub(crate) fn small(folder: &Path, files: usize, seed: u64) {
    for n in 0..files {
        let directory = folder.join(format!("d{}", n / 100));
        if n % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("f{n}")), noise(seed + n as u64, 1000)).unwrap();
    }
}

/// A directory with very many empty files and some that are not.
pub(crate) fn crowded(folder: &Path, files: usize) {
    fs::create_dir_all(folder).unwrap();
    for n in 0..files {
        let bytes: &[u8] = if n % 1000 == 0 { b"something" } else { b"" };
        fs::write(folder.join(format!("entry-{n:06}")), bytes).unwrap();
    }
}

/// Rewrites a file so that size and name stay and the time does not.
pub(crate) fn rewrite(path: &Path, seed: u64) {
    let length = fs::metadata(path).unwrap().len();
    fs::write(path, noise(seed, usize::try_from(length).unwrap())).unwrap();
    let before = fs::metadata(path).unwrap().modified().unwrap();
    File::open(path)
        .unwrap()
        .set_modified(before + Duration::from_secs(1 + seed % 1000))
        .unwrap();
}

/// A file whose name is no UTF-8; the format cannot keep it.
pub(crate) fn unspeakable(folder: &Path) {
    fs::write(folder.join(OsStr::from_bytes(b"caf\xe9")), "latin-1").unwrap();
}
