//! The server's backup manifest: which files there must be, with sizes and checksums.
//!
//! It can be large (about 150 bytes for each file), so it is read line by line, as the server writes it, and files are
//! kept as 24 bytes each. What holds the file names is their hash; that two of a million files collide in 64 bits has
//! a probability of 10^-8, and would be noticed as a file that does not fit.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The longest line that makes sense: a path of 1024 bytes in hexadecimal and its description.
const LONGEST_LINE: usize = 16 << 10;

/// Size and CRC-32C of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSum {
    pub(crate) size: u64,
    pub(crate) crc: u32,
}

/// The files that were seen.
#[derive(Debug, Default)]
pub(crate) struct SeenFiles(HashMap<u64, FileSum>);

impl SeenFiles {
    pub(crate) fn add(&mut self, path: &str, sum: FileSum) {
        self.0.insert(key(path), sum);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn get(&self, path: &str) -> Option<FileSum> {
        self.0.get(&key(path)).copied()
    }
}

fn key(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path.as_bytes());
    hasher.finish()
}

/// One file as the manifest describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    checksum: Option<String>,
}

/// Compares the manifest, as it streams by, with the files that were seen.
#[derive(Debug)]
pub(crate) struct ManifestCheck {
    line: Vec<u8>,
    hash: Sha256,
    files: u64,
    closed: bool,
    absent: &'static [&'static str],
}

impl ManifestCheck {
    /// Files named in `absent` need not be there.
    pub(crate) fn new(absent: &'static [&'static str]) -> Self {
        Self {
            line: Vec::new(),
            hash: Sha256::new(),
            files: 0,
            closed: false,
            absent,
        }
    }

    /// Takes the next piece. The error says which file differs and how.
    pub(crate) fn push(&mut self, mut data: &[u8], seen: &SeenFiles) -> Result<(), String> {
        while let Some(end) = data.iter().position(|&byte| byte == b'\n') {
            self.line.extend_from_slice(&data[..=end]);
            data = &data[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.check(&line, seen)?;
        }
        self.line.extend_from_slice(data);
        if self.line.len() > LONGEST_LINE {
            return Err("the backup manifest has a line that is too long".to_owned());
        }
        Ok(())
    }

    /// Whether the whole manifest came; answers the number of files.
    pub(crate) fn finish(self) -> Result<u64, String> {
        if self.closed && self.line.is_empty() {
            Ok(self.files)
        } else {
            Err("the backup manifest is incomplete".to_owned())
        }
    }

    fn check(&mut self, line: &[u8], seen: &SeenFiles) -> Result<(), String> {
        if self.closed {
            return Err("the backup manifest goes on after its end".to_owned());
        }
        let text = std::str::from_utf8(line).map_err(|_| "the backup manifest is not UTF-8".to_owned())?;
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("\"Manifest-Checksum\":") {
            let stated = rest.trim_matches(['"', '}', ' ']);
            let computed = HEXLOWER.encode(&std::mem::take(&mut self.hash).finalize());
            if stated != computed {
                return Err("the backup manifest does not match its own checksum".to_owned());
            }
            self.closed = true;
            return Ok(());
        }
        self.hash.update(line);
        // The first file follows the bracket on the same line or the next one, depending on the server's version.
        let text = text
            .strip_prefix("\"Files\": [")
            .unwrap_or(text)
            .trim()
            .trim_end_matches(',');
        if !(text.starts_with('{') && text.contains("\"Size\"")) {
            return Ok(());
        }
        let file: Line = serde_json::from_str(text)
            .map_err(|error| format!("a line of the backup manifest makes no sense: {error}"))?;
        let path = match (file.path, file.encoded_path) {
            (Some(path), _) => path,
            (None, Some(encoded)) => {
                decode(&encoded).ok_or("the backup manifest has a path that is not UTF-8")?
            }
            (None, None) => return Err("the backup manifest has a file without a path".to_owned()),
        };
        self.files += 1;
        if self.absent.contains(&path.as_str()) {
            return Ok(());
        }
        let found = seen.get(&path).ok_or_else(|| format!("{path} did not come"))?;
        if found.size != file.size {
            return Err(format!("{path} has {} bytes, not {}", found.size, file.size));
        }
        if file.algorithm.as_deref() == Some("CRC32C") {
            // The server writes the bytes of the number in the order of its memory.
            let stated = file.checksum.unwrap_or_default();
            let (little, big) = (
                HEXLOWER.encode(&found.crc.to_le_bytes()),
                HEXLOWER.encode(&found.crc.to_be_bytes()),
            );
            if stated != little && stated != big {
                return Err(format!("{path} has the CRC-32C {little}, not {stated}"));
            }
        }
        Ok(())
    }
}

fn decode(text: &str) -> Option<String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    String::from_utf8(pairs.map(|pair| pair[0] << 4 | pair[1]).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(lines: &[&str]) -> String {
        let mut text = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n".to_owned();
        text.push_str(&lines.join(",\n"));
        text.push_str("\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\" }\n],\n");
        let sum = HEXLOWER.encode(&Sha256::digest(&text));
        format!(
            "{text}\"Manifest-Checksum\": \"{sum}\"}}
"
        )
    }

    fn file(path: &str, data: &[u8]) -> String {
        let crc = HEXLOWER.encode(&crc32c::crc32c(data).to_le_bytes());
        format!(
            r#"{{ "Path": "{path}", "Size": {}, "Last-Modified": "2026-11-21 10:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "{crc}" }}"#,
            data.len()
        )
    }

    fn seen(files: &[(&str, &[u8])]) -> SeenFiles {
        let mut seen = SeenFiles::default();
        for (path, data) in files {
            seen.add(
                path,
                FileSum {
                    size: data.len() as u64,
                    crc: crc32c::crc32c(data),
                },
            );
        }
        seen
    }

    fn check(text: &str, seen: &SeenFiles) -> Result<u64, String> {
        let mut check = ManifestCheck::new(&["standby.signal"]);
        for piece in text.as_bytes().chunks(7) {
            check.push(piece, seen)?;
        }
        check.finish()
    }

    #[test]
    fn equal_files_pass() {
        let encoded = file("é", b"x").replace("\"Path\": \"é\"", "\"Encoded-Path\": \"c3a9\"");
        let text = manifest(&[
            &file("base/1/1259", b"data"),
            &file("PG_VERSION", b"15\n"),
            &encoded,
            &file("standby.signal", b""),
        ]);
        let seen = seen(&[("base/1/1259", b"data"), ("PG_VERSION", b"15\n"), ("é", b"x")]);
        assert_eq!(check(&text, &seen), Ok(4));
        assert_eq!(check(&manifest(&[]), &seen), Ok(0));
    }

    #[test]
    fn the_first_difference_is_named() {
        let text = manifest(&[&file("a", b"data")]);
        assert_eq!(check(&text, &seen(&[])), Err("a did not come".to_owned()));
        assert_eq!(
            check(&text, &seen(&[("a", b"dat")])),
            Err("a has 3 bytes, not 4".to_owned())
        );
        let error = check(&text, &seen(&[("a", b"dama")])).unwrap_err();
        assert!(error.starts_with("a has the CRC-32C "), "{error}");
    }

    #[test]
    fn a_damaged_or_cut_manifest_is_noticed() {
        let text = manifest(&[&file("a", b"data")]);
        let seen = seen(&[("a", b"data")]);
        assert_eq!(
            check(&text.replace("2026-11-21", "2025-11-21"), &seen),
            Err("the backup manifest does not match its own checksum".to_owned())
        );
        assert!(check(&text[..text.len() - 40], &seen).is_err());
    }
}
