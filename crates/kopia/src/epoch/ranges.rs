//! Which compactions of several epochs are used.

use std::collections::{BTreeMap, HashMap};

use crate::blob::BlobMetadata;

/// A compaction of the epochs from `first` to `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) blobs: Vec<BlobMetadata>,
}

/// The best chain of ranges from a point on.
#[derive(Clone, Copy)]
struct Chain {
    /// The last epoch that it reaches.
    reaches: i64,
    length: usize,
    /// Its first range.
    head: usize,
}

/// The ranges, each beginning where the one before ends, that begin with epoch 0 and reach farthest; of those that reach
/// equally far, the fewest.
pub(super) fn longest_chain(ranges: &[Range]) -> Vec<&Range> {
    let mut by_first: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (number, range) in ranges.iter().enumerate() {
        // A range that ends before it begins would lead in circles; kopia does not write such.
        if range.first >= 0 && range.first <= range.last {
            by_first.entry(range.first).or_default().push(number);
        }
    }
    // Chains only go upwards, so from the end every chain can be built on those that are known.
    let mut best: HashMap<i64, Chain> = HashMap::new();
    for (first, numbers) in by_first.iter().rev() {
        let mut chosen: Option<Chain> = None;
        for head in numbers.iter().copied() {
            let last = ranges[head].last;
            let rest = last.checked_add(1).and_then(|next| best.get(&next));
            let chain = Chain {
                reaches: rest.map_or(last, |rest| rest.reaches),
                length: 1 + rest.map_or(0, |rest| rest.length),
                head,
            };
            let better = match chosen {
                // A chain that ends with epoch 0 counts for nothing, in kopia too.
                None => chain.reaches > 0,
                Some(other) => {
                    chain.reaches > other.reaches
                        || (chain.reaches == other.reaches && chain.length < other.length)
                }
            };
            if better {
                chosen = Some(chain);
            }
        }
        best.extend(chosen.map(|chain| (*first, chain)));
    }
    let mut chain = Vec::new();
    let mut next = Some(0);
    while let Some(link) = next.and_then(|first| best.get(&first)) {
        let range = &ranges[link.head];
        chain.push(range);
        next = range.last.checked_add(1);
    }
    chain
}
