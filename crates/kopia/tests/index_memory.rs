//! The memory and the speed of an index of ten million contents. Takes a minute and a gigabyte of disk:
//!
//! ```text
//! cargo test --release -p holdfast-kopia --test index_memory -- --ignored --nocapture ten_million
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a test; the lint's own exception does not see helpers outside test functions"
)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_kopia::blob::Retention;
use holdfast_kopia::content::{ContentId, Hash};
use holdfast_kopia::crypto::blob_iv;
use holdfast_kopia::format::{CreateOptions, RepositoryFormat};
use holdfast_kopia::index::CommittedIndex;
use holdfast_kopia::{BlobId, BlobMetadata, BlobStorage, KopiaError, KopiaResult};
use holdfast_store::Secret;
use jiff::Timestamp;

/// Contents of one large blob, as a compaction leaves it.
const COMPACTED: u64 = 9_000_000;
/// Blobs of single backups, and contents of each.
const BACKUPS: u64 = 20;
const BACKUP: u64 = 50_000;
/// Contents in a pack.
const PER_PACK: u64 = 20;
/// What the index may add to the memory of the process.
const LIMIT_KIB: u64 = 30 << 10;
const DIRECTORY: &str = "HOLDFAST_INDEX_MEMORY";

/// Blobs as files of one directory.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn open(&self, id: &BlobId) -> KopiaResult<File> {
        File::open(self.0.join(id.as_str())).map_err(|_| KopiaError::BlobNotFound { blob: id.to_string() })
    }
}

#[async_trait]
impl BlobStorage for Files {
    async fn get(&self, id: &BlobId, _: u64) -> KopiaResult<Bytes> {
        let length = self.open(id)?.metadata().unwrap().len();
        self.get_range(id, 0, length).await
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.open(id)?.read_exact_at(&mut bytes, offset).unwrap();
        Ok(bytes.into())
    }

    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, _: Option<&Retention>) -> KopiaResult<()> {
        std::fs::write(self.0.join(id.as_str()), pieces.concat()).unwrap();
        Ok(())
    }

    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        Ok(self
            .list(id.as_str())
            .await?
            .into_iter()
            .find(|blob| blob.id == *id))
    }

    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        let files = std::fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        let mut blobs: Vec<_> = files
            .map(|file| BlobMetadata {
                id: file.file_name().into_string().unwrap().into(),
                size: file.metadata().unwrap().len(),
                modified: Timestamp::UNIX_EPOCH,
            })
            .filter(|blob| blob.id.as_str().starts_with(prefix))
            .collect();
        blobs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(blobs)
    }

    async fn delete(&self, _: &BlobId) -> KopiaResult<()> {
        Ok(())
    }

    fn location(&self) -> String {
        "files".to_owned()
    }
}

/// The hash of content `number` of `count`, spread evenly and in order; `set` tells sets of contents apart.
fn hash(number: u64, count: u64, set: u64) -> [u8; 16] {
    let step = u128::MAX / u128::from(count);
    (step * u128::from(number) + u128::from(set)).to_be_bytes()
}

/// An index of version 2, written as a stream since a builder of millions of contents would need gigabytes.
fn index(count: u64, set: u64) -> Vec<u8> {
    const NAME: usize = 52;
    let packs = count / PER_PACK;
    let mut output = vec![2, 17, 0, 18];
    output.extend(u32::try_from(count).unwrap().to_be_bytes());
    output.extend(u32::try_from(packs).unwrap().to_be_bytes());
    output.push(1);
    output.extend([0; 4]);
    for number in 0..count {
        // Scattered, as the packs of sorted hashes are.
        let pack = u32::try_from(number.wrapping_mul(2_654_435_761) % packs)
            .unwrap()
            .to_be_bytes();
        output.push(0);
        output.extend(hash(number, count, set));
        output.extend(1_700_000_000_u32.to_be_bytes());
        output.extend(1000_u32.to_be_bytes());
        output.extend([0, 16, 0, 0, 15, 0, pack[2], pack[3], 0, pack[1]]);
    }
    let names = output.len() + usize::try_from(packs).unwrap() * 5 + 6;
    for pack in 0..usize::try_from(packs).unwrap() {
        output.push(u8::try_from(NAME).unwrap());
        output.extend(u32::try_from(names + pack * NAME).unwrap().to_be_bytes());
    }
    output.extend([0, 0, 0x11, 0, 3, 0]);
    for pack in 0..packs {
        output.extend(format!("p{set:012x}{pack:020x}-s0123456789abcdef1").bytes());
    }
    output
}

async fn write_repository(directory: &Path) {
    let storage = Files(directory.to_owned());
    let options = CreateOptions::default();
    let password = Secret::new("memory");
    let format = RepositoryFormat::create(&storage, &password, &options, Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    for set in 0..=BACKUPS {
        let mut data = index(if set == 0 { COMPACTED } else { BACKUP }, set);
        let id = BlobId::from(format!("xn0_{}-s{set}-c1", format.hasher.hash(&data)));
        format.cipher.seal(&blob_iv(&id).unwrap(), &mut data).unwrap();
        storage.put(&id, vec![data.into()], None).await.unwrap();
    }
}

#[test]
#[ignore = "takes a minute and a gigabyte"]
fn ten_million_contents_need_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(write_repository(directory.path()));
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", "measured_process"])
        .env(DIRECTORY, directory.path())
        .status()
        .unwrap();
    assert!(status.success());
}

/// A line of `/proc/self/status`, in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "started by the other test"]
fn measured_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let storage = Files(directory.clone());
        let format = RepositoryFormat::load(&storage, &Secret::new("memory"))
            .await
            .unwrap();
        // The computation of the key takes 64 MiB and gives them back; its peak is not what is meant here.
        reset_peak();
        let before = memory("VmRSS");
        let clock = Arc::new(|| Timestamp::UNIX_EPOCH);
        let began = Instant::now();
        let index = CommittedIndex::open(Arc::new(storage), Arc::new(format), &directory, clock)
            .await
            .unwrap();
        println!("open: {:.1} s", began.elapsed().as_secs_f64());
        println!(
            "memory: {before} KiB before, {} after, {} peak",
            memory("VmRSS"),
            memory("VmHWM")
        );
        assert_eq!(index.approximate_count(), COMPACTED + BACKUPS * BACKUP);

        let opened = memory("VmHWM");
        lookups(&index, 0, true);
        lookups(&index, BACKUPS + 1, false);
        // The lookups had a list of contents, which is not memory of the index.
        reset_peak();
        let (began, used) = (Instant::now(), cpu());
        let count = index.contents().unwrap().map(Result::unwrap).count() as u64;
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "all contents in order: {seconds:.1} s, {:.1} s of CPU",
            cpu() - used
        );
        assert_eq!(count, COMPACTED + BACKUPS * BACKUP);
        let peak = opened.max(memory("VmHWM"));
        println!("memory: {peak} KiB peak, {} more than before", peak - before);
        assert!(peak - before < LIMIT_KIB);
    });
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Seconds for which this thread ran: what others do on the machine does not count.
fn cpu() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn lookups(index: &CommittedIndex, set: u64, present: bool) {
    const COUNT: u64 = 1_000_000;
    let ids: Vec<ContentId> = (0..COUNT)
        .map(|number| {
            let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % COMPACTED;
            ContentId::new(None, Hash::new(&hash(number, COMPACTED, set)).unwrap())
        })
        .collect();
    let what = if present { "present" } else { "absent" };
    let rate = |seconds: f64| f64::from(u32::try_from(COUNT).unwrap()) / seconds;
    // The first time warms the page cache.
    for _ in 0..2 {
        let began = cpu();
        for id in &ids {
            assert_eq!(index.contains(id).unwrap(), present);
        }
        println!("contains, {what}: {:.0} per second of CPU", rate(cpu() - began));
    }
    let began = cpu();
    for id in &ids {
        assert_eq!(black_box(index.lookup(id).unwrap()).is_some(), present);
    }
    println!("lookup, {what}: {:.0} per second of CPU", rate(cpu() - began));
}
