//! Merging runs: each content once, with the entry that is valid.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::entry::{Entry, Key, supersedes};
use super::packs::PackTable;
use super::run::{RecordLayout, Run, RunCursor, RunWriter};
use super::scratch::{ScratchFile, WINDOW};
use crate::error::KopiaResult;

/// What all read buffers of a merge need at most, unless there are very many runs.
const BUFFERS: usize = 2 << 20;
/// The smallest read buffer.
const MIN_BUFFER: usize = 4 << 10;
/// The most runs that are merged at once.
const MAX_RUNS: usize = 512;

/// Goes through runs in order.
pub(super) struct Merge {
    cursors: Vec<RunCursor>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    layout: RecordLayout,
    packs: Arc<PackTable>,
    best: Vec<u8>,
}

impl Merge {
    /// Begins at the first entry whose key is not less.
    pub(super) fn new(
        runs: &[Arc<Run>],
        from: Option<&Key>,
        layout: RecordLayout,
        packs: Arc<PackTable>,
    ) -> KopiaResult<Self> {
        let window = (BUFFERS / runs.len().max(1)).clamp(MIN_BUFFER, WINDOW);
        let mut this = Self {
            cursors: runs
                .iter()
                .map(|run| run.cursor(from, window))
                .collect::<KopiaResult<_>>()?,
            heap: BinaryHeap::with_capacity(runs.len()),
            layout,
            packs,
            best: Vec::new(),
        };
        for number in 0..this.cursors.len() {
            this.queue(number)?;
        }
        Ok(this)
    }

    /// The valid entry of the next content, as runs have it.
    pub(super) fn next(&mut self) -> KopiaResult<Option<&[u8]>> {
        let Some(Reverse((key, number))) = self.heap.pop() else {
            return Ok(None);
        };
        self.best.clear();
        self.best
            .extend(self.cursors[number].record()?.unwrap_or_default());
        self.step(number)?;
        while let Some(Reverse((other, number))) = self.heap.peek().copied()
            && other == key
        {
            self.heap.pop();
            let record = self.cursors[number].record()?.unwrap_or_default();
            if record_supersedes(self.layout, &self.packs, record, &self.best)? {
                self.best.clear();
                self.best.extend(record);
            }
            self.step(number)?;
        }
        Ok(Some(&self.best))
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        self.heap.clear();
    }

    fn step(&mut self, number: usize) -> KopiaResult<()> {
        self.cursors[number].advance();
        self.queue(number)
    }

    fn queue(&mut self, number: usize) -> KopiaResult<()> {
        let key_size = self.layout.key_size();
        let record = self.cursors[number].record()?;
        let key = record.and_then(|record| Key::from_bytes(&record[..key_size]));
        self.heap.extend(key.map(|key| Reverse((key, number))));
        Ok(())
    }
}

fn record_supersedes(layout: RecordLayout, packs: &PackTable, a: &[u8], b: &[u8]) -> KopiaResult<bool> {
    entry_supersedes(packs, &layout.decode(a)?, &layout.decode(b)?)
}

/// [`supersedes`] for entries whose packs have numbers.
pub(super) fn entry_supersedes(packs: &PackTable, a: &Entry, b: &Entry) -> KopiaResult<bool> {
    if a.timestamp != b.timestamp {
        return Ok(a.timestamp > b.timestamp);
    }
    Ok(supersedes(
        &a.with_pack(packs.name(a.pack)?),
        &b.with_pack(packs.name(b.pack)?),
    ))
}

/// Makes one run of several.
pub(super) fn merge_runs(
    mut runs: Vec<Arc<Run>>,
    layout: RecordLayout,
    packs: &Arc<PackTable>,
    scratch: impl Fn() -> KopiaResult<ScratchFile>,
) -> KopiaResult<Arc<Run>> {
    loop {
        let rest = runs.split_off(runs.len().min(MAX_RUNS));
        let file = Arc::new(scratch()?);
        let mut writer = RunWriter::new(file, layout, runs.iter().map(|run| run.count()).sum());
        let mut merge = Merge::new(&runs, None, layout, packs.clone())?;
        while let Some(record) = merge.next()? {
            writer.push_record(record)?;
        }
        let members = runs
            .iter()
            .flat_map(|run| run.members().iter().cloned())
            .collect();
        let merged = Arc::new(writer.finish(members)?);
        if rest.is_empty() {
            return Ok(merged);
        }
        runs = rest;
        runs.push(merged);
    }
}

/// How many of the smallest runs are to be merged, given the sizes of all in order: so many that every run is at least
/// twice as large as all smaller ones together, and that there are few. None or one means that nothing is to be done.
pub(super) fn to_merge(sizes: &[u64], most: usize) -> usize {
    let mut smaller = 0;
    let mut merged = (sizes.len() + 1).saturating_sub(most);
    for (number, size) in sizes.iter().enumerate() {
        if number > 0 && *size <= 2 * smaller {
            merged = merged.max(number + 1);
        }
        smaller += size;
    }
    merged
}
