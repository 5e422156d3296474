//! What is written where, and what is never written.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Timespec;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::KopiaError;

/// A place with a target and something outside that must stay as it is.
struct Place {
    _all: TempDir,
    outside: std::path::PathBuf,
    inside: std::path::PathBuf,
}

impl Place {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        let (outside, inside) = (all.path().join("outside"), all.path().join("inside"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
        Self {
            _all: all,
            outside,
            inside,
        }
    }

    fn open(&self, options: TargetOptions) -> (Target, Arc<Directory>) {
        Target::open(&self.inside, Some(attributes(0o755)), options).unwrap()
    }

    fn assert_outside_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["victim"]);
        let victim = self.outside.join("victim");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::metadata(victim).unwrap().permissions().mode() & 0o7777, 0o644);
    }
}

const OVERWRITE: TargetOptions = TargetOptions {
    overwrite_files: true,
    overwrite_directories: true,
    overwrite_symlinks: true,
    attributes: AttributePolicy {
        owners: true,
        permissions: true,
        times: true,
        ignore_permission_errors: true,
    },
    open_directories: 16,
};

const CAREFUL: TargetOptions = TargetOptions {
    overwrite_files: false,
    overwrite_directories: false,
    overwrite_symlinks: false,
    ..OVERWRITE
};

fn attributes(mode: u32) -> Attributes {
    Attributes {
        mode,
        user: rustix::process::geteuid().as_raw(),
        group: rustix::process::getegid().as_raw(),
        modified: Timespec {
            tv_sec: 1_000_000_000,
            tv_nsec: 123_456_789,
        },
    }
}

fn name(name: &str) -> EntryName<'_> {
    EntryName::new(name.as_bytes()).unwrap()
}

#[expect(clippy::unwrap_in_result, reason = "a helper of tests")]
fn write(target: &Target, directory: &Directory, file: &str, data: &str) -> crate::KopiaResult<()> {
    let created = target.create_file(directory, name(file))?;
    write_at(&created, data.as_bytes(), 0, false, &CancellationToken::new())
        .map_err(|error| error.at(file))?;
    target
        .finish_file((directory, name(file)), &created, &attributes(0o640), None)
        .unwrap();
    Ok(())
}

fn release(target: &Target, directory: Arc<Directory>) {
    target.release(directory, |path, error| panic!("{}: {error}", path.display()));
}

#[expect(clippy::needless_pass_by_value, reason = "called with what was just answered")]
fn is_in_the_way<T: std::fmt::Debug>(result: crate::KopiaResult<T>) -> bool {
    matches!(result, Err(KopiaError::TargetExists { .. }))
}

#[test]
fn a_tree_with_attributes() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let below = target
        .create_directory(&root, name("d"), attributes(0o2550))
        .unwrap();
    write(&target, &below, "f", "data").unwrap();
    target
        .create_symlink(&below, name("l"), b"../../outside", &attributes(0o777), None)
        .unwrap();
    let created = place.inside.join("d");
    assert_eq!(fs::metadata(&created).unwrap().mode() & 0o7777, 0o700);
    // Held twice, so the first release changes nothing.
    release(&target, Arc::clone(&below));
    assert_eq!(fs::metadata(&created).unwrap().mode() & 0o7777, 0o700);
    release(&target, below);
    release(&target, root);

    let directory = fs::metadata(&created).unwrap();
    assert_eq!(directory.mode() & 0o7777, 0o2550);
    let file = fs::metadata(created.join("f")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o640);
    let link = fs::symlink_metadata(created.join("l")).unwrap();
    for entry in [&directory, &file, &link, &fs::metadata(&place.inside).unwrap()] {
        assert_eq!((entry.mtime(), entry.mtime_nsec()), (1_000_000_000, 123_456_789));
    }
    assert_eq!(
        fs::read_link(created.join("l")).unwrap(),
        Path::new("../../outside")
    );
    assert_eq!(fs::read_to_string(created.join("f")).unwrap(), "data");
    assert_eq!(target.denied(), 0);
    place.assert_outside_untouched();
}

#[test]
fn owners_are_set_where_they_may_be() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let wanted = Attributes {
        user: 12345,
        group: 54321,
        ..attributes(0o6755)
    };
    let file = target.create_file(&root, name("f")).unwrap();
    target
        .finish_file((&root, name("f")), &file, &wanted, None)
        .unwrap();
    target
        .create_symlink(&root, name("l"), b"f", &wanted, None)
        .unwrap();
    let stat = fs::metadata(place.inside.join("f")).unwrap();
    let link = fs::symlink_metadata(place.inside.join("l")).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(
            (stat.uid(), stat.gid(), stat.mode() & 0o7777),
            (12345, 54321, 0o6755)
        );
        assert_eq!((link.uid(), link.gid()), (12345, 54321));
        assert_eq!(target.denied(), 0);
    } else {
        // Not as the owner wanted, so not with the owner's rights either.
        assert_eq!(stat.mode() & 0o7777, 0o755);
        assert_eq!(target.denied(), 2);
    }
}

#[test]
fn without_owners_no_program_runs_as_somebody_else() {
    let place = Place::new();
    let mut options = OVERWRITE;
    options.attributes.owners = false;
    let (target, root) = place.open(options);
    let file = target.create_file(&root, name("f")).unwrap();
    let other = Attributes {
        user: attributes(0).user + 1,
        ..attributes(0o6755)
    };
    target
        .finish_file((&root, name("f")), &file, &other, None)
        .unwrap();
    assert_eq!(
        fs::metadata(place.inside.join("f")).unwrap().mode() & 0o7777,
        0o2755
    );
}

#[test]
fn nobody_is_no_owner() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let file = target.create_file(&root, name("f")).unwrap();
    let wanted = Attributes {
        user: u32::MAX,
        group: u32::MAX,
        ..attributes(0o644)
    };
    target
        .finish_file((&root, name("f")), &file, &wanted, None)
        .unwrap();
    assert_eq!(
        fs::metadata(place.inside.join("f")).unwrap().uid(),
        attributes(0).user
    );
}

#[test]
fn existing_files_are_overwritten_in_place_and_others_stay() {
    let place = Place::new();
    let file = place.inside.join("f");
    fs::write(&file, "something longer than the new data").unwrap();
    fs::write(place.inside.join("extra"), "extra").unwrap();
    let before = fs::metadata(&file).unwrap().ino();
    let (target, root) = place.open(OVERWRITE);
    write(&target, &root, "f", "new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(fs::metadata(&file).unwrap().ino(), before);
    assert_eq!(fs::read_to_string(place.inside.join("extra")).unwrap(), "extra");
}

#[test]
fn nothing_is_overwritten_unless_that_is_wanted() {
    let place = Place::new();
    let (target, root) = place.open(CAREFUL);
    fs::write(place.inside.join("f"), "old").unwrap();
    symlink("old", place.inside.join("l")).unwrap();
    fs::create_dir_all(place.inside.join("full/x")).unwrap();
    fs::create_dir(place.inside.join("empty")).unwrap();
    assert!(is_in_the_way(write(&target, &root, "f", "new")));
    assert!(is_in_the_way(write(&target, &root, "l", "new")));
    assert!(is_in_the_way(target.create_symlink(
        &root,
        name("l"),
        b"new",
        &attributes(0),
        None
    )));
    assert!(is_in_the_way(target.create_directory(
        &root,
        name("l"),
        attributes(0o755)
    )));
    assert!(is_in_the_way(target.create_directory(
        &root,
        name("full"),
        attributes(0o755)
    )));
    target
        .create_directory(&root, name("empty"), attributes(0o755))
        .unwrap();
    assert_eq!(fs::read_to_string(place.inside.join("f")).unwrap(), "old");
    assert_eq!(fs::read_link(place.inside.join("l")).unwrap(), Path::new("old"));
    assert!(matches!(
        Target::open(&place.inside, Some(attributes(0o755)), CAREFUL),
        Err(KopiaError::TargetExists { .. })
    ));
}

#[test]
fn other_types_are_in_the_way() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    fs::create_dir(place.inside.join("d")).unwrap();
    fs::write(place.inside.join("f"), "old").unwrap();
    let fifo = place.inside.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for there in ["d", "fifo"] {
        assert!(is_in_the_way(write(&target, &root, there, "new")), "{there}");
    }
    for there in ["f", "fifo"] {
        assert!(is_in_the_way(target.create_directory(
            &root,
            name(there),
            attributes(0o755)
        )));
    }
    for there in ["d", "f", "fifo"] {
        assert!(is_in_the_way(target.create_symlink(
            &root,
            name(there),
            b"x",
            &attributes(0),
            None
        )));
    }
    assert!(fs::metadata(fifo).unwrap().file_type().is_fifo());
}

#[test]
fn symlinks_in_the_way_are_replaced_not_followed() {
    let place = Place::new();
    symlink(place.outside.join("victim"), place.inside.join("f")).unwrap();
    symlink(&place.outside, place.inside.join("d")).unwrap();
    symlink(place.outside.join("victim"), place.inside.join("l")).unwrap();
    symlink(place.outside.join("new"), place.inside.join("dangling")).unwrap();
    let (target, root) = place.open(OVERWRITE);
    write(&target, &root, "f", "new").unwrap();
    write(&target, &root, "dangling", "new").unwrap();
    let directory = target
        .create_directory(&root, name("d"), attributes(0o755))
        .unwrap();
    write(&target, &directory, "victim", "new").unwrap();
    target
        .create_symlink(&root, name("l"), b"elsewhere", &attributes(0), None)
        .unwrap();
    release(&target, directory);
    release(&target, root);
    place.assert_outside_untouched();
    assert!(fs::symlink_metadata(place.inside.join("f")).unwrap().is_file());
    assert!(fs::symlink_metadata(place.inside.join("d")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(place.inside.join("d/victim")).unwrap(), "new");
    assert_eq!(
        fs::read_link(place.inside.join("l")).unwrap(),
        Path::new("elsewhere")
    );
}

#[test]
fn the_other_names_of_a_file_keep_their_data() {
    let place = Place::new();
    fs::hard_link(place.outside.join("victim"), place.inside.join("f")).unwrap();
    let (target, root) = place.open(OVERWRITE);
    write(&target, &root, "f", "new").unwrap();
    place.assert_outside_untouched();
    assert_eq!(fs::read_to_string(place.inside.join("f")).unwrap(), "new");
}

/// Opens and closes so many directories that `directory` is closed as well.
fn push_out(target: &Target, root: &Arc<Directory>) {
    for number in 0..20 {
        let other = target
            .create_directory(root, name(&format!("other{number}")), attributes(0o755))
            .unwrap();
        release(target, other);
    }
}

#[test]
fn a_swapped_directory_is_noticed_when_it_is_opened_again() {
    for openat2 in [true, false] {
        let place = Place::new();
        let (target, root) = place.open(OVERWRITE);
        let target = if openat2 { target } else { target.without_openat2() };
        let above = target
            .create_directory(&root, name("a"), attributes(0o755))
            .unwrap();
        let below = target
            .create_directory(&above, name("b"), attributes(0o755))
            .unwrap();
        push_out(&target, &root);
        write(&target, &below, "before", "x").unwrap();
        push_out(&target, &root);

        // The last component, then one in the middle, is a symlink to outside.
        fs::rename(place.inside.join("a/b"), place.inside.join("a/away")).unwrap();
        symlink(&place.outside, place.inside.join("a/b")).unwrap();
        assert!(write(&target, &below, "victim", "new").is_err());
        fs::create_dir(place.outside.join("b")).unwrap();
        fs::rename(place.inside.join("a"), place.inside.join("away")).unwrap();
        symlink(&place.outside, place.inside.join("a")).unwrap();
        assert!(write(&target, &below, "f", "new").is_err());
        assert!(
            target
                .create_directory(&below, name("new"), attributes(0o755))
                .is_err()
        );
        assert!(
            target
                .create_symlink(&below, name("new"), b"x", &attributes(0), None)
                .is_err()
        );
        assert_eq!(fs::read_dir(place.outside.join("b")).unwrap().count(), 0);
        fs::remove_dir(place.outside.join("b")).unwrap();

        // Another real directory is another directory too.
        fs::remove_file(place.inside.join("a")).unwrap();
        fs::create_dir_all(place.inside.join("a/b")).unwrap();
        let error = write(&target, &below, "f", "new").unwrap_err();
        assert!(error.to_string().contains("a/b/f"), "{error}");
        place.assert_outside_untouched();
    }
}

#[test]
fn a_directory_held_open_stays_the_one_it_was() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let below = target
        .create_directory(&root, name("d"), attributes(0o755))
        .unwrap();
    fs::rename(place.inside.join("d"), place.inside.join("moved")).unwrap();
    symlink(&place.outside, place.inside.join("d")).unwrap();
    write(&target, &below, "victim", "new").unwrap();
    release(&target, below);
    place.assert_outside_untouched();
    assert_eq!(
        fs::read_to_string(place.inside.join("moved/victim")).unwrap(),
        "new"
    );
}

#[test]
fn long_and_deep_paths_work_with_few_descriptors() {
    for openat2 in [true, false] {
        let place = Place::new();
        let (target, root) = place.open(TargetOptions {
            open_directories: 2,
            ..OVERWRITE
        });
        let target = if openat2 { target } else { target.without_openat2() };
        let long = "x".repeat(255);
        let mut chain = vec![Arc::clone(&root)];
        for _ in 0..40 {
            let below = target
                .create_directory(chain.last().unwrap(), name(&long), attributes(0o750))
                .unwrap();
            chain.push(below);
        }
        for directory in &chain {
            write(&target, directory, "f", "x").unwrap();
        }
        for directory in chain {
            release(&target, directory);
        }
        release(&target, root);
        assert_eq!(
            fs::metadata(place.inside.join(&long)).unwrap().mode() & 0o777,
            0o750
        );
    }
}

#[test]
fn depth_has_a_limit() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let mut at = root;
    let mut depth = 0;
    let error = loop {
        match target.create_directory(&at, name("d"), attributes(0o755)) {
            Ok(below) => at = below,
            Err(error) => break error,
        }
        depth += 1;
        assert!(depth < 5000);
    };
    assert!(matches!(error, KopiaError::Corrupt { .. }), "{error}");
    release(&target, at);
}

#[test]
fn a_file_is_found_again_only_if_it_is_the_same() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let identity = FileIdentity::of_open(&target.create_file(&root, name("f")).unwrap()).unwrap();
    target.reopen_file(&root, name("f"), identity).unwrap();
    fs::rename(place.inside.join("f"), place.inside.join("g")).unwrap();
    assert!(target.reopen_file(&root, name("f"), identity).is_err());
    fs::hard_link(place.outside.join("victim"), place.inside.join("f")).unwrap();
    assert!(target.reopen_file(&root, name("f"), identity).is_err());
    fs::remove_file(place.inside.join("f")).unwrap();
    symlink(place.outside.join("victim"), place.inside.join("f")).unwrap();
    assert!(target.reopen_file(&root, name("f"), identity).is_err());
}

#[test]
fn what_is_the_same_is_recognised() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    write(&target, &root, "f", "data").unwrap();
    let modified = attributes(0).modified;
    let later = |seconds| Timespec {
        tv_sec: modified.tv_sec + seconds,
        ..modified
    };
    assert!(target.has_same_file(&root, name("f"), 4, modified));
    assert!(target.has_same_file(&root, name("f"), 4, later(1)));
    assert!(!target.has_same_file(&root, name("f"), 4, later(2)));
    assert!(!target.has_same_file(&root, name("f"), 5, modified));
    assert!(!target.has_same_file(&root, name("none"), 4, modified));
    symlink("f", place.inside.join("l")).unwrap();
    assert!(!target.has_same_file(&root, name("l"), 4, modified));
    assert!(target.has_symlink(&root, name("l")) && !target.has_symlink(&root, name("f")));
}

#[test]
fn zeros_become_holes() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let file = target.create_file(&root, name("f")).unwrap();
    let mut data = vec![0; 1 << 20];
    data[500_000] = 1;
    rustix::fs::ftruncate(&file, 4096 + data.len() as u64).unwrap();
    write_at(&file, &data, 4096, true, &CancellationToken::new()).unwrap();
    let path = place.inside.join("f");
    let read = fs::read(&path).unwrap();
    assert_eq!(read[4096..], data);
    assert_eq!(read[..4096], [0; 4096]);
    assert!(fs::metadata(path).unwrap().blocks() <= 64);
}

#[test]
fn a_cancelled_write_stops() {
    let place = Place::new();
    let (target, root) = place.open(OVERWRITE);
    let file = target.create_file(&root, name("f")).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = write_at(&file, b"data", 0, false, &cancel).unwrap_err();
    assert!(matches!(error.at("f"), KopiaError::Cancelled));
}

#[test]
fn a_file_is_no_device() {
    let place = Place::new();
    assert!(matches!(
        Device::open(&place.outside.join("victim"), 0),
        Err(KopiaError::Argument { .. })
    ));
    place.assert_outside_untouched();
}

#[test]
fn a_further_name_is_that_of_the_file_that_was_restored_or_there_is_none() {
    for openat2 in [true, false] {
        let place = Place::new();
        let (target, root) = place.open(OVERWRITE);
        let target = if openat2 { target } else { target.without_openat2() };
        let below = target
            .create_directory(&root, name("d"), attributes(0o755))
            .unwrap();
        write(&target, &below, "f", "data").unwrap();
        let path = place.inside.join("d/f");
        let identity = FileIdentity::of_open(&fs::File::open(&path).unwrap().into()).unwrap();
        let link = |to| target.create_hard_link(Path::new("d/f"), identity, &root, name(to));
        link("g").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().ino(),
            fs::metadata(place.inside.join("g")).unwrap().ino()
        );

        // Another file, and a symlink to the one that it was.
        fs::rename(&path, place.inside.join("moved")).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(link("h").is_err());
        fs::remove_file(&path).unwrap();
        symlink("../moved", &path).unwrap();
        assert!(link("h").is_err());
        fs::remove_file(&path).unwrap();
        assert!(link("h").is_err());

        // The file itself, on a way that leads outside.
        fs::rename(place.inside.join("moved"), &path).unwrap();
        link("h").unwrap();
        let outside = place.outside.join("d");
        fs::rename(place.inside.join("d"), &outside).unwrap();
        symlink(&outside, place.inside.join("d")).unwrap();
        assert!(link("i").is_err());
        assert!(fs::symlink_metadata(place.inside.join("i")).is_err());
        fs::remove_dir_all(&outside).unwrap();
        place.assert_outside_untouched();
    }
}
