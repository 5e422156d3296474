//! A rolling hash (cyclic polynomial) of the last 64 bytes.

use super::table::BYTES;

/// Bytes that the hash is of. Twice the width of the hash, so what leaves the window is not rotated.
const WINDOW: usize = 64;

/// How many bytes are hashed between two looks at whether one of them was a cut.
const STRIDE: usize = 4;

/// The end of the first piece: the first place, from half the average on, where as many low bits of the hash are zero
/// as the average has, but at most twice the average.
///
/// kopia carries the hash on over a cut; as it is a function of the last 64 bytes only and no piece is shorter than
/// that, starting afresh gives the same.
pub(super) fn next_cut(average: usize, data: &[u8], searched: usize) -> Option<usize> {
    let (min, max) = (average / 2, average * 2);
    let end = data.len().min(max);
    let start = min.max(searched + 1);
    if start <= end
        && let Some(cut) = first_zero(mask(average), data, start, end)
    {
        return Some(cut);
    }
    (data.len() >= max).then_some(max)
}

/// The low bits that must be zero.
fn mask(average: usize) -> u32 {
    u32::try_from(average - 1).unwrap_or(u32::MAX)
}

/// The first length in `start..=end` after which the hash is zero under the mask.
fn first_zero(mask: u32, data: &[u8], start: usize, end: usize) -> Option<usize> {
    let window = data.get(start - WINDOW..start)?;
    let hash = window.iter().fold(0, |hash: u32, byte| {
        hash.rotate_left(1) ^ BYTES[usize::from(*byte)]
    });
    if hash & mask == 0 {
        return Some(start);
    }
    let leaving = &data[start - WINDOW..end - WINDOW];
    let entering = &data[start..end];
    roll(hash, leaving, entering, mask).map(|index| start + index + 1)
}

/// The index of the first byte after which the hash is zero under the mask.
fn roll(mut hash: u32, leaving: &[u8], entering: &[u8], mask: u32) -> Option<usize> {
    let (old, old_rest) = leaving.as_chunks::<STRIDE>();
    let (new, new_rest) = entering.as_chunks::<STRIDE>();
    for (stride, (old, new)) in old.iter().zip(new).enumerate() {
        // The bytes of a stride are combined among themselves first, so that only one rotation and one xor of each
        // stride wait for the stride before.
        let (mut change, mut last, mut hit) = (0_u32, 0, false);
        for (turns, (old, new)) in (1..).zip(old.iter().zip(new)) {
            change = change.rotate_left(1) ^ BYTES[usize::from(*old)] ^ BYTES[usize::from(*new)];
            last = hash.rotate_left(turns) ^ change;
            hit |= last & mask == 0;
        }
        if hit {
            return each(hash, old, new, mask).map(|index| stride * STRIDE + index);
        }
        hash = last;
    }
    each(hash, old_rest, new_rest, mask).map(|index| new.len() * STRIDE + index)
}

/// [`roll`], byte by byte.
fn each(mut hash: u32, leaving: &[u8], entering: &[u8], mask: u32) -> Option<usize> {
    leaving.iter().zip(entering).position(|(old, new)| {
        hash = hash.rotate_left(1) ^ BYTES[usize::from(*old)] ^ BYTES[usize::from(*new)];
        hash & mask == 0
    })
}
