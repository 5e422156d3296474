//! What an entry of an open directory takes.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use allocation_counter::measure;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::super::list::{Filter, Kind, Listing, Metadata};
use super::super::previous::compare;
use super::super::rules::Rules;
use super::super::tree::Directory;
use super::{BackupOptions, BackupTarget as _, Memory, info, run};
use crate::policy::effective_policy;
use crate::snapshot::Summary;

/// Bytes of each name with its NUL.
const NAME: u64 = 17;

struct All;

impl Filter for All {
    fn keep(&mut self, _: &[u8], _: &Metadata, _: u64) -> bool {
        true
    }

    fn wants_links(&self) -> bool {
        false
    }

    fn stopped(&self) -> bool {
        false
    }
}

/// The most that was allocated at one time for each of the entries while a directory that has not changed was read,
/// compared and, if it holds directories, finished. Beside the names.
async fn bytes_per_entry(entries: u32, make: impl Fn(&Path)) -> u64 {
    let folder: TempDir = tempfile::tempdir().unwrap();
    for number in 0..entries {
        make(&folder.path().join(format!("entry-{number:010}")));
    }
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let first = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let root = first.snapshot.root_object().unwrap();
    let policies = effective_policy(&memory.manifests().await, &info())
        .await
        .unwrap();
    let rules = Rules::above_root(Arc::new(policies));
    let source = memory.source();
    let handle = File::open(folder.path()).unwrap();
    let metadata = Metadata::new(&rustix::fs::fstat(&handle).unwrap()).unwrap();
    let runtime = Handle::current();
    let work = || {
        let listing = Listing::read(handle.as_fd(), &mut All).unwrap();
        assert_eq!(listing.len(), entries as usize);
        let known = runtime
            .block_on(compare(&source, &listing, &[root], true, &|| false))
            .unwrap();
        let directory = Directory::new(None, None, "root".into(), metadata, None, listing, rules);
        directory.begin(known.slots, known.further);
        let directories = u32::try_from(directory.listing().directories()).unwrap();
        assert_eq!(known.unchanged, (entries - directories) as usize);
        for index in 0..directories {
            assert_eq!(directory.entry(index).unwrap().kind(), Kind::Directory);
            let [before] = directory.take_previous(index)[..] else {
                panic!("one snapshot says one thing");
            };
            directory.written(index, before, Summary::default());
        }
    };
    let taken = tokio::task::block_in_place(|| measure(work));
    (taken.bytes_max / u64::from(entries)).saturating_sub(NAME)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_takes_few_bytes() {
    let bytes = bytes_per_entry(30_000, |path| fs::write(path, "").unwrap()).await;
    // 32 of the listing, 20 of what became of it; the rest is what is read of the older snapshot.
    assert!(bytes < 80, "{bytes} bytes for each file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_takes_few_bytes() {
    let bytes = bytes_per_entry(30_000, |path| fs::create_dir(path).unwrap()).await;
    // And 40 of its summary.
    assert!(bytes < 120, "{bytes} bytes for each directory");
}
