//! Which ranges of which packs to read for many contents.

use std::ops::Range;

use crate::blob::BlobId;
use crate::content::ContentInfo;

/// A range of a pack that is read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRange {
    /// The pack.
    pub pack: BlobId,
    /// Bytes to read.
    pub range: Range<u64>,
    /// Which of the contents are in it, as positions in what was given, in the order of the pack.
    pub contents: Vec<usize>,
}

/// How ranges are merged.
#[derive(Clone, Copy, Debug)]
pub struct MergeRules {
    /// Two contents of a pack are read at once if not more than these bytes are between them.
    pub gap: u64,
    /// But no more than these bytes at once, unless a single content is longer.
    pub longest: u64,
}

impl Default for MergeRules {
    /// Reading 256 KiB for nothing takes less time than another request; 8 MiB are two average contents.
    fn default() -> Self {
        Self {
            gap: 256 << 10,
            longest: 8 << 20,
        }
    }
}

impl ContentInfo {
    /// Where it is in its pack, in bytes.
    pub fn packed_range(&self) -> Range<u64> {
        let begin = u64::from(self.offset);
        begin..begin + u64::from(self.packed_length)
    }
}

/// Groups contents by pack and merges what is near to each other; ranges are sorted by pack and offset. A content that is
/// given twice is read once.
pub fn plan_ranges(contents: &[ContentInfo], rules: MergeRules) -> Vec<PackRange> {
    let mut order: Vec<usize> = (0..contents.len()).collect();
    order.sort_by_key(|&at| (&contents[at].pack, contents[at].offset));
    let mut ranges: Vec<PackRange> = Vec::new();
    for at in order {
        let info = &contents[at];
        let wanted = info.packed_range();
        if let Some(last) = ranges.last_mut()
            && last.pack == info.pack
            && wanted.start <= last.range.end.saturating_add(rules.gap)
            && wanted.end.max(last.range.end) - last.range.start
                <= rules.longest.max(last.range.end - last.range.start)
        {
            last.range.end = last.range.end.max(wanted.end);
            last.contents.push(at);
        } else {
            ranges.push(PackRange {
                pack: info.pack.clone(),
                range: wanted,
                contents: vec![at],
            });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compression::HeaderId;
    use crate::content::{ContentId, Hash};

    fn info(pack: &str, offset: u32, packed_length: u32) -> ContentInfo {
        ContentInfo {
            id: ContentId::new(None, Hash::new(&[0; 16]).unwrap()),
            pack: pack.into(),
            offset,
            packed_length,
            original_length: packed_length,
            compression: HeaderId::NONE,
            format_version: 3,
            encryption_key: 0,
            timestamp: 0,
            deleted: false,
        }
    }

    #[test]
    fn neighbours_are_read_at_once() {
        let rules = MergeRules {
            gap: 10,
            longest: 100,
        };
        let contents = [
            info("p2", 50, 10),
            info("p1", 0, 5),
            info("p2", 32, 8),
            info("p2", 71, 10),
            info("p2", 50, 10),
        ];
        let ranges = plan_ranges(&contents, rules);
        let shown: Vec<_> = ranges
            .iter()
            .map(|range| (range.pack.as_str(), range.range.clone(), &*range.contents))
            .collect();
        assert_eq!(
            shown,
            [
                ("p1", 0..5, &[1][..]),
                ("p2", 32..60, &[2, 0, 4][..]),
                ("p2", 71..81, &[3][..])
            ]
        );
    }

    proptest! {
        #[test]
        fn every_content_is_in_one_range(
            places in proptest::collection::vec((0..3_u8, any::<u32>(), 0..200_u32), 0..40),
            gap in 0..100_u64,
            longest in 0..400_u64,
        ) {
            let contents: Vec<_> = places.iter().map(|(pack, offset, length)| info(&format!("p{pack}"), offset % 5000, *length)).collect();
            let ranges = plan_ranges(&contents, MergeRules { gap, longest });
            let mut seen = vec![0; contents.len()];
            for range in &ranges {
                for &at in &range.contents {
                    seen[at] += 1;
                    let wanted = contents[at].packed_range();
                    prop_assert!(contents[at].pack == range.pack);
                    prop_assert!(range.range.start <= wanted.start && wanted.end <= range.range.end);
                }
                prop_assert!(range.contents.len() == 1 || range.range.end - range.range.start <= longest.max(200));
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
        }
    }
}
