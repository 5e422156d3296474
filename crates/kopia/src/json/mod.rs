//! JSON, byte for byte as Go writes it.
//!
//! Directories and lists of parts are contents named by the hash of their JSON, so two tools deduplicate against each
//! other only if they write the same bytes.

mod stream;

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

use crate::error::{KopiaError, KopiaResult};

pub(crate) use stream::{Item, ItemStream};

/// What Go writes for a byte that is not UTF-8.
const REPLACEMENT: &[u8] = b"\\ufffd";

/// Writes a string with its quotes. Go keeps what is safe within HTML: `<`, `>`, `&` and the line separators of
/// JavaScript are escaped, every byte that is not UTF-8 is replaced.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        write_escaped(out, chunk.valid());
        for _ in chunk.invalid() {
            out.extend_from_slice(REPLACEMENT);
        }
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let Some((length, escape)) = escape(*byte, &bytes[index..]) else {
            continue;
        };
        out.extend_from_slice(&bytes[done..index]);
        match escape {
            Escape::Text(text) => out.extend_from_slice(text.as_bytes()),
            Escape::Control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(data_encoding::HEXLOWER.encode(&[*byte]).as_bytes());
            }
        }
        done = index + length;
    }
    out.extend_from_slice(&bytes[done..]);
}

enum Escape {
    Text(&'static str),
    Control,
}

/// How the character that begins with this byte is escaped, and its length, if it is not written as it is.
fn escape(byte: u8, rest: &[u8]) -> Option<(usize, Escape)> {
    let text = match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        0x08 => "\\b",
        0x0c => "\\f",
        b'<' => "\\u003c",
        b'>' => "\\u003e",
        b'&' => "\\u0026",
        0..0x20 => return Some((1, Escape::Control)),
        0xe2 if rest.starts_with("\u{2028}".as_bytes()) => return Some((3, Escape::Text("\\u2028"))),
        0xe2 if rest.starts_with("\u{2029}".as_bytes()) => return Some((3, Escape::Text("\\u2029"))),
        _ => return None,
    };
    Some((1, Escape::Text(text)))
}

/// What a reader of the JSON gets for a string written by [`write_string`].
pub(crate) fn replace_invalid(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}

/// The JSON of a value, without the line end that some of kopia's writers add.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> KopiaResult<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Go);
    value
        .serialize(&mut serializer)
        .map_err(|error| KopiaError::corrupt("a JSON document to be written", error))?;
    Ok(out)
}

/// serde_json's compact format with the strings as Go has them.
struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut out = Vec::with_capacity(fragment.len());
        write_escaped(&mut out, fragment);
        writer.write_all(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_as_go_writes_them() {
        let write = |text: &[u8]| {
            let mut out = Vec::new();
            write_string(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            write(b"a<b>&\x01\x7f\x08\x0c\n\r\t\"\\"),
            r#""a\u003cb\u003e\u0026\u0001"#.to_owned() + "\x7f" + r#"\b\f\n\r\t\"\\""#
        );
        assert_eq!(
            write("\u{2027}\u{2028}\u{2029}\u{fffd}".as_bytes()),
            "\"\u{2027}\\u2028\\u2029\u{fffd}\""
        );
        // A truncated character of two bytes, a surrogate, a byte that never occurs.
        assert_eq!(
            write(b"\xe6\x97a\xed\xa0\x80\xff"),
            "\"\\ufffd\\ufffda\\ufffd\\ufffd\\ufffd\\ufffd\""
        );
        assert_eq!(replace_invalid(b"\xe6\x97a"), "\u{fffd}\u{fffd}a");
    }

    #[test]
    fn both_writers_write_strings_alike() {
        let text: String = (0..0x3000).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        write_string(&mut out, text.as_bytes());
        assert_eq!(to_vec(&text).unwrap(), out);
    }
}
