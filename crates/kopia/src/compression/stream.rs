//! Formats that are read as a stream: gzip, deflate, LZ4 frames.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use lz4_flex::frame::FrameDecoder;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

pub(super) fn gzip(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    read(MultiGzDecoder::new(data), limit)
}

pub(super) fn deflate(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    read(DeflateDecoder::new(data), limit)
}

pub(super) fn lz4(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    read(FrameDecoder::new(data), limit)
}

/// Reads to the end. The memory grows with what is there, up to the limit.
fn read(mut input: impl Read, limit: usize) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    loop {
        let filled = output.len();
        let room = limit - filled;
        if room == 0 {
            // There must be nothing more.
            let more = input.read(&mut [0]).map_err(|error| error.to_string())?;
            return if more == 0 {
                Ok(output)
            } else {
                Err(super::too_long(limit))
            };
        }
        let piece = PIECE.min(room);
        if output.capacity() - filled < piece {
            output.reserve_exact(piece.max(filled).min(room));
        }
        output.resize(filled + piece, 0);
        let read = input
            .read(&mut output[filled..])
            .map_err(|error| error.to_string())?;
        output.truncate(filled + read);
        if read == 0 {
            return Ok(output);
        }
    }
}
