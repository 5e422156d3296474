//! How a verification is made, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};

use super::whole::Held;
use crate::content::ContentId;
use crate::tree::add;

/// Options of a [`Verification`](super::Verification).
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyOptions {
    /// How much of the data is read, in percent of the contents.
    pub read_percent: f64,
    /// The number of the run: with each the next share is read, so that 10 runs of 10 percent with consecutive numbers
    /// have read everything.
    pub run: u64,
    /// How many failures are listed of each snapshot, and damaged packs.
    pub list: usize,
    /// Ranges of packs that are read at the same time.
    pub parallel_reads: usize,
    /// Threads that decode; 0 is two for each processor, at most 8.
    pub workers: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            read_percent: 0.0,
            run: 0,
            list: 1000,
            parallel_reads: 12,
            workers: 0,
        }
    }
}

impl VerifyOptions {
    pub(super) fn share(&self) -> Share {
        let part = (self.read_percent / 100.0).clamp(0.0, 1.0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "the runs of thousands of years are exact"
        )]
        let begin = (self.run as f64 * part).fract();
        Share { begin, part }
    }
}

/// Which contents are read. Their hashes are spread evenly, so a range of hashes is a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    begin: f64,
    part: f64,
}

impl Share {
    pub(super) fn holds(self, content: &ContentId) -> bool {
        if self.part >= 1.0 {
            return true;
        }
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(content.hash().as_bytes()) {
            *to = *from;
        }
        let place = f64::from(u32::from_be_bytes(first)) / 4_294_967_296.0;
        (place - self.begin).rem_euclid(1.0) < self.part
    }
}

/// How far a verification is; it may be read at any time, by any thread.
#[derive(Debug, Default)]
pub struct VerifyProgress {
    pub(super) total_files: AtomicU64,
    pub(super) total_bytes: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) known_directories: AtomicU64,
    pub(super) known_files: AtomicU64,
    pub(super) contents: AtomicU64,
    pub(super) read_contents: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// The numbers of a [`VerifyProgress`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyCounts {
    /// Files and symlinks that there are, as the snapshot's summary says; 0 if it says nothing.
    pub total_files: u64,
    /// Bytes that there are, as the snapshot's summary says; 0 if it says nothing.
    pub total_bytes: u64,
    /// Directories that the snapshots have: what several of them share is counted for each, here and in the next three.
    pub directories: u64,
    /// Files that they have.
    pub files: u64,
    /// Symlinks that they have.
    pub symlinks: u64,
    /// Bytes that these files have.
    pub bytes: u64,
    /// Of the directories, those that were not read again because this run had found them whole, with all that is in
    /// them.
    pub known_directories: u64,
    /// Of the files and symlinks, those in such directories, and those of which this run had found all parts whole.
    pub known_files: u64,
    /// Contents of the other files and symlinks, looked up in the index, each as often as it is used.
    pub contents: u64,
    /// Contents read, decrypted, and compared with their hash. One that was right is not read again in the same run, as
    /// long as it is remembered.
    pub read_contents: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Entries with which something is wrong, those of each snapshot.
    pub failed: u64,
}

impl VerifyProgress {
    /// The numbers now.
    pub fn counts(&self) -> VerifyCounts {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        VerifyCounts {
            total_files: get(&self.total_files),
            total_bytes: get(&self.total_bytes),
            directories: get(&self.directories),
            files: get(&self.files),
            symlinks: get(&self.symlinks),
            bytes: get(&self.bytes),
            known_directories: get(&self.known_directories),
            known_files: get(&self.known_files),
            contents: get(&self.contents),
            read_contents: get(&self.read_contents),
            read_bytes: get(&self.read_bytes),
            failed: get(&self.failed),
        }
    }

    /// Counts what a directory or a file holds.
    pub(super) fn found(&self, held: Held) {
        add(&self.directories, held.directories);
        add(&self.files, held.files);
        add(&self.symlinks, held.symlinks);
        add(&self.bytes, held.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Hash;

    #[test]
    fn shares_together_are_everything_and_each_is_about_as_large() {
        let ids: Vec<ContentId> = (0..1000_u32)
            .map(|number| {
                ContentId::new(
                    None,
                    Hash::new(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]).unwrap(),
                )
            })
            .collect();
        let in_share = |read_percent, run| {
            let options = VerifyOptions {
                read_percent,
                run,
                ..VerifyOptions::default()
            };
            ids.iter()
                .filter(|id| options.share().holds(id))
                .copied()
                .collect::<Vec<_>>()
        };
        let mut all: Vec<ContentId> = (7..17).flat_map(|run| in_share(10.0, run)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ids.len());
        assert!((60..140).contains(&in_share(10.0, 3).len()));
        assert!(in_share(0.0, 3).is_empty());
        assert_eq!(in_share(100.0, 3).len(), ids.len());
        assert_eq!(in_share(f64::NAN, 3).len(), 0);
    }
}
