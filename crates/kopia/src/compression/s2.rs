//! S2 streams: chunks with a type, a length and a checksum, most of them compressed blocks.
//!
//! The blocks are decoded by minlz. Its own reader of streams calls itself for every chunk that is skipped, so data could
//! exhaust the stack; and it copies each block twice.

use minlz::crc::crc;

/// What a stream begins with, and the same of Snappy, which S2 includes.
const STREAM: [&[u8]; 2] = [b"S2sTwO", b"sNaPpY"];
const CHUNK_HEADER: usize = 4;
const CHECKSUM: usize = 4;
/// The longest block that the format allows.
const MAX_BLOCK: usize = 4 << 20;

/// Decompresses a stream into at most `limit` bytes.
pub(super) fn decompress(mut data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    let mut begun = false;
    while !data.is_empty() {
        let (header, rest) = data
            .split_first_chunk::<CHUNK_HEADER>()
            .ok_or("a chunk is cut off")?;
        let [kind, length @ ..] = *header;
        let length = length
            .iter()
            .rev()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (chunk, rest) = rest.split_at_checked(length).ok_or("a chunk is cut off")?;
        data = rest;
        match kind {
            0xff if STREAM.contains(&chunk) => begun = true,
            _ if !begun => return Err("it does not begin as a stream does".into()),
            0x00 => block(chunk, limit, &mut output, compressed)?,
            0x01 => block(chunk, limit, &mut output, uncompressed)?,
            // Padding, indexes, and what may be skipped.
            0x80..=0xfe => {}
            _ => return Err(format!("there is an unknown chunk (0x{kind:02x})")),
        }
    }
    if begun {
        Ok(output)
    } else {
        Err("it is empty".into())
    }
}

/// Appends what a block holds to the output, at most so many bytes.
type Decode = fn(&[u8], usize, &mut Vec<u8>) -> Result<(), String>;

/// What a chunk with data holds.
fn block(chunk: &[u8], limit: usize, output: &mut Vec<u8>, decode: Decode) -> Result<(), String> {
    let (checksum, block) = chunk
        .split_first_chunk::<CHECKSUM>()
        .ok_or("a chunk is too short")?;
    let begin = output.len();
    decode(block, limit - begin, output)?;
    if crc(&output[begin..]) != u32::from_le_bytes(*checksum) {
        return Err("a checksum does not match".into());
    }
    Ok(())
}

fn compressed(block: &[u8], room: usize, output: &mut Vec<u8>) -> Result<(), String> {
    let (length, _) = minlz::s2::decode_len(block).map_err(|error| error.to_string())?;
    check(length, room)?;
    let begin = output.len();
    reserve(output, length, room);
    output.resize(begin + length, 0);
    let written = minlz::s2::decode_into(&mut output[begin..], block).map_err(|error| error.to_string())?;
    if written != length {
        return Err("a block is shorter than it says".into());
    }
    Ok(())
}

fn uncompressed(block: &[u8], room: usize, output: &mut Vec<u8>) -> Result<(), String> {
    check(block.len(), room)?;
    reserve(output, block.len(), room);
    output.extend_from_slice(block);
    Ok(())
}

/// Grows the output as a vector does, but not beyond `room` more bytes.
fn reserve(output: &mut Vec<u8>, length: usize, room: usize) {
    if output.capacity() - output.len() < length {
        output.reserve_exact(length.max(output.len()).min(room));
    }
}

fn check(length: usize, room: usize) -> Result<(), String> {
    match length {
        length if length > MAX_BLOCK => Err(format!("a block of {length} bytes is longer than S2 allows")),
        length if length > room => Err(super::too_long(room)),
        _ => Ok(()),
    }
}
