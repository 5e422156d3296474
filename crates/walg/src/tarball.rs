//! The tar archives of a server, taken apart as they stream by.

use jiff::Timestamp;
use tar::Header;

/// Size of a tar block.
pub(crate) const BLOCK: usize = 512;

/// What every archive ends with.
pub(crate) static END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A member of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Path below the data directory, without a slash at its beginning.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) kind: MemberKind,
    pub(crate) modified: Timestamp,
    header: Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
    Link,
}

impl Member {
    /// The header with the path as wal-g writes it.
    pub(crate) fn header_with(&self, path: &str) -> Result<[u8; BLOCK], String> {
        let mut header = self.header.clone();
        header.set_path_bytes(path)?;
        Ok(*header.as_bytes())
    }
}

/// Sets a path that begins with a slash, which the library's own method refuses.
trait SetPathBytes {
    fn set_path_bytes(&mut self, path: &str) -> Result<(), String>;
}

impl SetPathBytes for Header {
    fn set_path_bytes(&mut self, path: &str) -> Result<(), String> {
        let field = &mut self.as_old_mut().name;
        if path.len() > field.len() {
            return Err(format!("the path {path} is longer than {} bytes", field.len()));
        }
        field.fill(0);
        field[..path.len()].copy_from_slice(path.as_bytes());
        self.set_cksum();
        Ok(())
    }
}

/// One step through an archive.
#[derive(Debug)]
pub(crate) enum TarEvent<'a> {
    /// A member begins; its data follow.
    Member(Box<Member>),
    /// Data of the member.
    Data(&'a [u8]),
    /// The member is complete.
    End,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Header,
    Data(u64),
    Padding(u64),
    Closing,
}

/// Takes an archive apart. It holds one block at most.
#[derive(Debug)]
pub(crate) struct TarReader {
    block: Vec<u8>,
    state: State,
    padding: u64,
    zero_blocks: u32,
}

impl TarReader {
    pub(crate) fn new() -> Self {
        Self {
            block: Vec::with_capacity(BLOCK),
            state: State::Header,
            padding: 0,
            zero_blocks: 0,
        }
    }

    /// Takes what it can from `input` and answers the next step; none when `input` is used up.
    pub(crate) fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, String> {
        loop {
            match self.state {
                State::Closing => {
                    self.state = if self.padding > 0 {
                        State::Padding(self.padding)
                    } else {
                        State::Header
                    };
                    return Ok(Some(TarEvent::End));
                }
                _ if input.is_empty() => return Ok(None),
                State::Data(left) => {
                    let data = take(input, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 {
                        State::Closing
                    } else {
                        State::Data(left)
                    };
                    return Ok(Some(TarEvent::Data(data)));
                }
                State::Padding(left) => {
                    let left = left - take(input, left).len() as u64;
                    self.state = if left == 0 {
                        State::Header
                    } else {
                        State::Padding(left)
                    };
                }
                State::Header => {
                    let missing = (BLOCK - self.block.len()) as u64;
                    self.block.extend_from_slice(take(input, missing));
                    if self.block.len() == BLOCK
                        && let Some(member) = self.header()?
                    {
                        return Ok(Some(TarEvent::Member(Box::new(member))));
                    }
                }
            }
        }
    }

    /// Whether the archive ended where an archive may end.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Header && self.block.is_empty()
    }

    fn header(&mut self) -> Result<Option<Member>, String> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        if block.iter().all(|&byte| byte == 0) {
            self.zero_blocks += 1;
            return Ok(None);
        }
        if self.zero_blocks >= 2 {
            return Err("data follow the end of the archive".to_owned());
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let member = member(header)?;
        self.padding = (BLOCK as u64 - member.size % BLOCK as u64) % BLOCK as u64;
        self.state = if member.size > 0 {
            State::Data(member.size)
        } else {
            State::Closing
        };
        Ok(Some(member))
    }
}

fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (now, later) = input.split_at(length);
    *input = later;
    now
}

fn member(header: Header) -> Result<Member, String> {
    let stored = header.cksum().map_err(|error| error.to_string())?;
    let mut check = header.clone();
    check.set_cksum();
    if check.cksum().ok() != Some(stored) {
        return Err("a header has the wrong checksum".to_owned());
    }
    let path = String::from_utf8(header.path_bytes().into_owned()).map_err(|error| {
        format!(
            "a path is not UTF-8: {}",
            String::from_utf8_lossy(error.as_bytes())
        )
    })?;
    let path = path.trim_start_matches("./").trim_matches('/').to_owned();
    let kind = header.entry_type();
    let kind = if kind.is_file() {
        MemberKind::File
    } else if kind.is_dir() {
        MemberKind::Directory
    } else if kind.is_symlink() || kind.is_hard_link() {
        MemberKind::Link
    } else {
        return Err(format!("{path} is neither a file nor a directory nor a link"));
    };
    let size = match kind {
        MemberKind::File => header.entry_size().map_err(|error| format!("{path}: {error}"))?,
        MemberKind::Directory | MemberKind::Link => 0,
    };
    let modified = header
        .mtime()
        .ok()
        .and_then(|seconds| i64::try_from(seconds).ok());
    let modified = modified
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or_default();
    Ok(Member {
        path,
        size,
        kind,
        modified,
        header,
    })
}

/// Zeros that fill a member of `size` bytes up to a whole block.
pub(crate) fn padding(size: u64) -> &'static [u8] {
    let rest = size % BLOCK as u64;
    let missing = if rest == 0 { 0 } else { BLOCK as u64 - rest };
    &END[..usize::try_from(missing).unwrap_or(0)]
}

/// A path below a data directory as its components, if it stays below it.
pub(crate) fn confined(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let fine = parts.iter().all(|part| *part != ".." && !part.contains('\0'));
    fine.then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, data) in files {
            let mut header = Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(1_700_000_000);
            builder.append_data(&mut header, path, data.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let (mut reader, mut files, mut open) = (TarReader::new(), Vec::new(), 0);
        for mut piece in pieces.iter().copied() {
            while let Some(event) = reader.step(&mut piece)? {
                match event {
                    TarEvent::Member(member) => {
                        files.push((member.path.clone(), Vec::new()));
                        open += 1;
                    }
                    TarEvent::Data(data) => files.last_mut().unwrap().1.extend_from_slice(data),
                    TarEvent::End => open -= 1,
                }
            }
        }
        assert_eq!(open, 0);
        reader
            .is_complete()
            .then_some(files)
            .ok_or_else(|| "incomplete".to_owned())
    }

    #[test]
    fn damage_is_noticed() {
        let mut bytes = archive(&[("PG_VERSION".to_owned(), b"15\n".to_vec())]);
        assert!(read(&[&bytes[..700]]).is_err());
        bytes[3] ^= 1;
        assert_eq!(read(&[&bytes]), Err("a header has the wrong checksum".to_owned()));
    }

    #[test]
    fn headers_are_written_with_a_slash() {
        let bytes = archive(&[("global/1262".to_owned(), vec![1; 10])]);
        let Ok(Some(TarEvent::Member(member))) = TarReader::new().step(&mut bytes.as_slice()) else {
            panic!()
        };
        let block = member.header_with("/global/1262").unwrap();
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        assert_eq!(&*header.path_bytes(), b"/global/1262");
        assert_eq!(
            (header.entry_size().unwrap(), header.mode().unwrap()),
            (10, 0o600)
        );
        assert!(member.header_with(&"x".repeat(101)).is_err());
    }

    #[test]
    fn paths_stay_below_the_data_directory() {
        assert_eq!(confined("/base/1/../x"), None);
        assert_eq!(confined("../../etc/passwd"), None);
        assert_eq!(confined("/etc//./passwd"), Some(vec!["etc", "passwd"]));
    }

    proptest! {
        #[test]
        fn any_archive_in_any_pieces_is_read_whole(
            sizes in proptest::collection::vec(0usize..2000, 0..12),
            cuts in proptest::collection::vec(1usize..1500, 1..60),
        ) {
            let files: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(number, &size)| (format!("base/{number}"), vec![u8::try_from(number).unwrap(); size]))
                .collect();
            let bytes = archive(&files);
            let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.push(now);
                rest = later;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces).unwrap(), files);
        }
    }
}
