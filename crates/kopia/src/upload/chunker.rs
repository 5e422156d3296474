//! Cuts a file, or a section of one, into the pieces that become contents.

use std::os::fd::BorrowedFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::extents::{Extent, Extents};
use super::read::ReadOnce;
use crate::splitter::Splitter;

/// Bytes read between two looks for the end of the piece, once it may end: what is read too much is copied.
const BLOCK: usize = 512 << 10;

/// Bytes read between two looks at whether to go on: a slow disk reads so many in less than 100 ms.
const READ: usize = 1 << 20;

/// A piece of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Its data.
    Data(Vec<u8>),
    /// Zeros, as many as the splitter lets through in one piece ([`zero_piece`]).
    Zeros,
}

/// The length of the pieces that endless zeros are cut into.
pub(super) fn zero_piece(splitter: Splitter) -> usize {
    let zeros = vec![0; splitter.max_size()];
    splitter.next_cut(&zeros, 0).unwrap_or(zeros.len())
}

/// Whether all bytes are zero.
pub(super) fn is_zero(data: &[u8]) -> bool {
    let (blocks, rest) = data.as_chunks::<128>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Reads a section of a file piece by piece.
#[derive(Debug)]
pub(super) struct Chunker<'a> {
    file: ReadOnce<'a>,
    extents: Extents<'a>,
    extent: Extent,
    splitter: Splitter,
    zero_piece: usize,
    /// Offset in the file of the byte after `piece`.
    position: u64,
    end: u64,
    piece: Vec<u8>,
    /// So many bytes of `piece` are known to end no piece.
    searched: usize,
    /// So many bytes at the end of `piece` were not read but are a hole.
    hole_tail: usize,
}

impl<'a> Chunker<'a> {
    /// Reads from `from` up to `end`, or up to where the file ends if that comes first.
    pub(super) fn new(
        file: BorrowedFd<'a>,
        stat: &Stat,
        splitter: Splitter,
        zero_piece: usize,
        from: u64,
        end: u64,
    ) -> Self {
        Self {
            file: ReadOnce::new(file),
            extents: Extents::new(file, stat),
            extent: Extent::Data(from),
            splitter,
            zero_piece,
            position: from,
            end,
            piece: Vec::new(),
            searched: 0,
            hole_tail: 0,
        }
    }

    /// The offset in the file up to which it was read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The most bytes that the next piece may need.
    pub(super) fn need(&self, length: u64) -> u64 {
        let left = length.min(self.end).saturating_sub(self.position);
        let left = left.saturating_add((self.piece.len() + BLOCK) as u64);
        left.min((self.splitter.max_size() + BLOCK) as u64)
    }

    /// The next piece; none at the end. [`Errno::CANCELED`] if `stopped` says so.
    pub(super) fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<Piece>, Errno> {
        loop {
            if stopped() {
                return Err(Errno::CANCELED);
            }
            if self.piece.is_empty() && self.is_hole_for(self.zero_piece) {
                self.position += self.zero_piece as u64;
                return Ok(Some(Piece::Zeros));
            }
            if let Some(length) = self.splitter.next_cut(&self.piece, self.searched) {
                return Ok(Some(self.cut(length)));
            }
            self.searched = self.piece.len();
            if !self.fill()? {
                let last = std::mem::take(&mut self.piece);
                return Ok((!last.is_empty()).then_some(Piece::Data(last)));
            }
        }
    }

    /// Whether the next `length` bytes are a hole.
    fn is_hole_for(&mut self, length: usize) -> bool {
        self.look();
        match self.extent {
            Extent::Hole(end) => end.min(self.end).saturating_sub(self.position) >= length as u64,
            Extent::Data(_) => false,
        }
    }

    fn look(&mut self) {
        if self.position >= self.extent.end() && self.position < self.end {
            self.extent = self.extents.at(self.position);
        }
    }

    fn cut(&mut self, length: usize) -> Piece {
        let length = length.min(self.piece.len());
        let mut next = Vec::new();
        let rest = self.piece.len() - length;
        if rest <= self.hole_tail {
            // Nothing that was read is lost, and the hole can be gone through in long steps.
            self.position -= rest as u64;
            self.hole_tail = 0;
        } else {
            next.reserve_exact(self.capacity());
            next.extend_from_slice(self.piece.get(length..).unwrap_or_default());
        }
        let mut piece = std::mem::replace(&mut self.piece, next);
        piece.truncate(length);
        // The room is for what encryption adds in place.
        piece.shrink_to(length + 64);
        self.searched = 0;
        Piece::Data(piece)
    }

    /// What the piece that is read next should have room for; pages that are not written to cost nothing.
    fn capacity(&self) -> usize {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        left.min(self.splitter.max_size()).saturating_add(BLOCK)
    }

    /// Appends to the piece; whether there was anything.
    fn fill(&mut self) -> Result<bool, Errno> {
        self.look();
        let held = self.piece.len();
        // No piece ends before the smallest size, so that much can be read at once.
        let wanted = self.splitter.min_size().saturating_sub(held).clamp(BLOCK, READ);
        let left = self.extent.end().min(self.end).saturating_sub(self.position);
        let wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(false);
        }
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(self.capacity());
        }
        self.piece.resize(held + wanted, 0);
        if matches!(self.extent, Extent::Hole(_)) {
            self.hole_tail += wanted;
            self.position += wanted as u64;
            return Ok(true);
        }
        let free = self.piece.get_mut(held..).unwrap_or_default();
        let read = self.file.read_at(free, self.position)?;
        self.piece.truncate(held + read);
        self.hole_tail = 0;
        self.position += read as u64;
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Data that no cut is alike in.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn pieces(file: &File, splitter: Splitter, from: u64, end: u64) -> Vec<Vec<u8>> {
        let stat = rustix::fs::fstat(file).unwrap();
        let zeros = zero_piece(splitter);
        let mut chunker = Chunker::new(file.as_fd(), &stat, splitter, zeros, from, end);
        let mut found = Vec::new();
        while let Some(piece) = chunker.next(|| false).unwrap() {
            found.push(match piece {
                Piece::Data(data) => data,
                Piece::Zeros => vec![0; zeros],
            });
        }
        found
    }

    fn expected(splitter: Splitter, mut data: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while !data.is_empty() {
            let length = splitter.next_cut(data, 0).unwrap_or(data.len());
            let (piece, rest) = data.split_at(length);
            pieces.push(piece.to_vec());
            data = rest;
        }
        pieces
    }

    #[test]
    fn files_are_cut_where_the_splitter_says() {
        for name in ["DYNAMIC-128K-BUZHASH", "FIXED-128K", "DYNAMIC-1M-BUZHASH"] {
            let splitter = Splitter::by_name(name).unwrap();
            for length in [0, 1, 131_072, 131_073, 1 << 20, 3_000_000] {
                let data = noise(length, 1 + length as u64);
                let file = tempfile::tempfile().unwrap();
                file.write_all_at(&data, 0).unwrap();
                assert_eq!(
                    pieces(&file, splitter, 0, u64::MAX),
                    expected(splitter, &data),
                    "{name} {length}"
                );
                let (from, to) = (length / 3, length / 2);
                let part = expected(splitter, &data[from..to]);
                assert_eq!(
                    pieces(&file, splitter, from as u64, to as u64),
                    part,
                    "{name} {length}"
                );
            }
        }
    }

    #[test]
    fn holes_give_the_pieces_that_zeros_give() {
        let splitter = Splitter::by_name("DYNAMIC-256K-BUZHASH").unwrap();
        let mut dense = noise(700_000, 5);
        dense.resize(8 << 20, 0);
        dense.extend(noise(300_000, 6));
        dense.resize(10 << 20, 0);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&dense[..700_000], 0).unwrap();
        file.write_all_at(&dense[8 << 20..(8 << 20) + 300_000], 8 << 20)
            .unwrap();
        file.set_len(10 << 20).unwrap();
        assert!(rustix::fs::fstat(&file).unwrap().st_blocks * 512 < 2 << 20);
        assert_eq!(pieces(&file, splitter, 0, u64::MAX), expected(splitter, &dense));

        let stat = rustix::fs::fstat(&file).unwrap();
        let mut chunker = Chunker::new(file.as_fd(), &stat, splitter, zero_piece(splitter), 0, u64::MAX);
        let mut read = 0;
        while let Some(piece) = chunker.next(|| false).unwrap() {
            if let Piece::Data(data) = piece {
                read += data.len();
            }
        }
        assert!(read < 4 << 20, "{read} bytes of zeros were not recognised");
        let mut chunker = Chunker::new(file.as_fd(), &stat, splitter, zero_piece(splitter), 0, u64::MAX);
        assert_eq!(chunker.next(|| true), Err(Errno::CANCELED));
    }

    #[test]
    fn zero_is_only_zero() {
        let mut data = vec![0; 1000];
        assert!(is_zero(&data) && is_zero(&[]));
        for place in [0, 127, 128, 999] {
            data[place] = 1;
            assert!(!is_zero(&data));
            data[place] = 0;
        }
    }
}
