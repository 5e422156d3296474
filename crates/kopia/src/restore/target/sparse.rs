//! Zeros that need not be written.

use std::ops::Range;

/// The unit in which files have holes on Linux file systems; also the smallest hole that is left.
const BLOCK: usize = 4096;

/// The parts of `data` that must be written so that a file which reads as zeros reads as `data`. Holes are whole blocks,
/// aligned in the file; `offset` is where `data` belongs in the file.
pub(crate) fn data_ranges(data: &[u8], offset: u64) -> DataRanges<'_> {
    // The first block is what is left of the block that the data begins in.
    let within = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    DataRanges {
        data,
        position: 0,
        boundary: BLOCK - within,
    }
}

/// Iterator of [`data_ranges`].
#[derive(Debug)]
pub(crate) struct DataRanges<'a> {
    data: &'a [u8],
    position: usize,
    /// Where in `data` the block that `position` is in ends.
    boundary: usize,
}

impl DataRanges<'_> {
    /// The rest of the current block, or none at the end.
    fn block(&self) -> Option<(Range<usize>, bool)> {
        let range = self.position..self.boundary.min(self.data.len());
        let block = self.data.get(range.clone()).filter(|block| !block.is_empty())?;
        // Part of a block could share it with data, so only whole blocks are holes.
        Some((range, block.len() == BLOCK && is_zero(block)))
    }

    fn advance(&mut self) {
        self.position = self.boundary.min(self.data.len());
        self.boundary += BLOCK;
    }
}

impl Iterator for DataRanges<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        while let Some((_, true)) = self.block() {
            self.advance();
        }
        let start = self.block()?.0.start;
        let mut end = start;
        while let Some((range, false)) = self.block() {
            end = range.end;
            self.advance();
        }
        Some(start..end)
    }
}

/// Whether all bytes are zero. Most blocks with data show it in the first bytes; those of zeros are read in pieces wide
/// enough for vector registers.
fn is_zero(block: &[u8]) -> bool {
    block
        .chunks(128)
        .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::single_range_in_vec_init,
        reason = "lists of ranges are what is tested"
    )]

    use super::*;

    fn ranges(data: &[u8], offset: u64) -> Vec<Range<usize>> {
        data_ranges(data, offset).collect()
    }

    #[test]
    fn only_whole_aligned_blocks_of_zeros_are_left_out() {
        assert!(ranges(&[], 0).is_empty());
        assert!(ranges(&[0; 8192], 0).is_empty());
        assert_eq!(ranges(&[0; 4095], 0), [0..4095]);
        assert_eq!(ranges(&[1; 5000], 7), [0..5000]);
        // 100..4196 of the file: no whole block is in it.
        assert_eq!(ranges(&[0; 4096], 100), [0..4096]);
        let mut data = vec![0; 5 * BLOCK];
        data[2 * BLOCK] = 1;
        assert_eq!(ranges(&data, 0), [2 * BLOCK..3 * BLOCK]);
        assert_eq!(ranges(&data, BLOCK as u64 * 9), [2 * BLOCK..3 * BLOCK]);
        // Shifted by 96: the byte that is not zero is now 96 bytes into a block, and both ends are parts of blocks.
        assert_eq!(
            ranges(&data, 96),
            [
                0..BLOCK - 96,
                2 * BLOCK - 96..3 * BLOCK - 96,
                5 * BLOCK - 96..5 * BLOCK
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn writing_the_ranges_gives_the_data(
            runs in proptest::collection::vec((0u8..2, 0usize..9000), 0..8),
            offset in 0u64..10_000,
        ) {
            let data: Vec<u8> = runs.iter().flat_map(|(byte, length)| vec![*byte; *length]).collect();
            let mut written = vec![0; data.len()];
            let mut last = 0;
            for range in data_ranges(&data, offset) {
                proptest::prop_assert!(!range.is_empty() && range.start >= last);
                last = range.end;
                written[range.clone()].copy_from_slice(&data[range]);
            }
            proptest::prop_assert_eq!(written, data);
        }
    }
}
