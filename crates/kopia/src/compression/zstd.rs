//! zstd, both ways, with one context of each kind for each thread.

use std::cell::RefCell;

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name, get_frame_content_size};

use crate::error::{KopiaError, KopiaResult};

thread_local! {
    // A context has megabytes of tables, which cost more to set up than a small content to compress.
    static COMPRESS: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESS: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

/// The answer of zstd if the output has no room.
const NO_ROOM: usize = code(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall);
const NO_MEMORY: usize = code(ZSTD_ErrorCode::ZSTD_error_memory_allocation);

/// Appends the compressed data to `out`, unless that takes more than `room` bytes.
pub(super) fn compress(level: i32, data: &[u8], out: &mut Vec<u8>, room: usize) -> KopiaResult<bool> {
    let begin = out.len();
    out.resize(begin + room, 0);
    let result = COMPRESS.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(CCtx::try_create().ok_or(NO_MEMORY)?),
        };
        context.set_parameter(CParameter::CompressionLevel(level))?;
        context.compress2(&mut out[begin..], data)
    });
    out.truncate(begin + result.unwrap_or(0));
    match result {
        Ok(_) => Ok(true),
        Err(NO_ROOM) => Ok(false),
        Err(code) => Err(KopiaError::Argument {
            name: "zstd",
            problem: get_error_name(code).into(),
        }),
    }
}

/// Decompresses all frames of `data`, into at most `limit` bytes.
pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    // The frame may say how long it is, but a second one can follow; and what it says is not to be believed.
    let declared = get_frame_content_size(data).ok().flatten();
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut room = declared.unwrap_or(limit).min(limit);
    loop {
        match decompress_into(data, room) {
            Err(NO_ROOM) if room < limit => room = limit,
            Err(NO_ROOM) => return Err(super::too_long(limit)),
            Err(code) => return Err(get_error_name(code).into()),
            Ok(output) => return Ok(output),
        }
    }
}

/// All at once, so zstd finds what it refers back to in the output and allocates no window, whose size the data chooses.
fn decompress_into(data: &[u8], room: usize) -> Result<Vec<u8>, usize> {
    let mut output = Vec::new();
    output.try_reserve_exact(room).map_err(|_| NO_MEMORY)?;
    DECOMPRESS.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(DCtx::try_create().ok_or(NO_MEMORY)?),
        };
        context.decompress(&mut output, data)
    })?;
    Ok(output)
}

const fn code(error: ZSTD_ErrorCode) -> usize {
    (error as usize).wrapping_neg()
}
