//! Unpacking one archive below a directory, and nowhere else.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{WalgError, WalgResult};
use crate::manifest::{FileSum, SeenFiles};
use crate::tarball::confined;

/// Bytes read from an archive at a time.
const BUFFER: usize = 256 << 10;

/// Pieces of a download, as a reader for a thread that may block.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Unpacks an archive below `target`. A file that exists already is an error unless `replace` is set. Links are
/// refused: none can lead out of the directory, because there is none.
pub(crate) fn unpack(source: impl Read, target: &Path, backup: &str, replace: bool) -> WalgResult<SeenFiles> {
    let damaged =
        |error: io::Error| WalgError::corrupt(backup, format!("an archive cannot be read: {error}"));
    let mut seen = SeenFiles::default();
    let mut archive = tar::Archive::new(source);
    let mut buffer = vec![0; BUFFER];
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let parts = confined(&path).ok_or_else(|| {
            WalgError::corrupt(
                backup,
                format!("an archive holds the path {path}, which leads out"),
            )
        })?;
        let place: PathBuf = parts
            .iter()
            .fold(target.to_owned(), |place, part| place.join(part));
        let mode = entry.header().mode().unwrap_or(0o600) & 0o777;
        if kind.is_dir() {
            make_directory(&place)?;
            fs::set_permissions(&place, Permissions::from_mode(mode)).map_err(WalgError::io(&place))?;
        } else if kind.is_file() {
            if let Some(parent) = place.parent() {
                make_directory(parent)?;
            }
            let sum = write_file(&mut entry, &place, mode, replace, &mut buffer, backup)?;
            seen.add(&parts.join("/"), sum);
        } else {
            let what = format!("backup {backup} holds the link {path}; tablespaces are not supported yet");
            return Err(WalgError::Unsupported { what });
        }
    }
    // What follows the end of the archive is of no use, but damage in it must show.
    let mut source = archive.into_inner();
    io::copy(&mut source, &mut io::sink()).map_err(damaged)?;
    Ok(seen)
}

/// Writes what an object holds to a file.
pub(crate) fn write_stream(mut source: impl Read, place: &Path, backup: &str) -> WalgResult<u64> {
    let mut buffer = vec![0; BUFFER];
    if let Some(parent) = place.parent() {
        make_directory(parent)?;
    }
    Ok(write_file(&mut source, place, 0o600, false, &mut buffer, backup)?.size)
}

/// Creates a directory that only its owner enters, with its parents.
pub(crate) fn make_directory(place: &Path) -> WalgResult<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place)
        .map_err(WalgError::io(place))
}

fn write_file(
    source: &mut impl Read,
    place: &Path,
    mode: u32,
    replace: bool,
    buffer: &mut [u8],
    backup: &str,
) -> WalgResult<FileSum> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if replace {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let mut file: File = options.open(place).map_err(WalgError::io(place))?;
    let mut sum = FileSum { size: 0, crc: 0 };
    loop {
        let length = match source.read(buffer) {
            Ok(0) => return Ok(sum),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let problem = format!("{} cannot be read from storage: {error}", place.display());
                return Err(WalgError::corrupt(backup, problem));
            }
        };
        let data = &buffer[..length];
        file.write_all(data).map_err(WalgError::io(place))?;
        sum.size += length as u64;
        sum.crc = crc32c::crc32c_append(sum.crc, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::header;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, data) in members {
            let mut block = header("x", data.len() as u64);
            block[..100].fill(0);
            block[..path.len()].copy_from_slice(path.as_bytes());
            let mut fixed = tar::Header::new_old();
            fixed.as_mut_bytes().copy_from_slice(&block);
            fixed.set_cksum();
            bytes.extend(fixed.as_bytes());
            bytes.extend(*data);
            bytes.extend(crate::tarball::padding(data.len() as u64));
        }
        bytes.extend(crate::tarball::END);
        bytes
    }

    #[test]
    fn names_with_and_without_a_slash_land_below_the_target() {
        let target = tempfile::tempdir().unwrap();
        let bytes = archive(&[("/global/1262", b"with"), ("base/1/1259", b"without")]);
        unpack(bytes.as_slice(), target.path(), "b", false).unwrap();
        assert_eq!(fs::read(target.path().join("global/1262")).unwrap(), b"with");
        assert_eq!(fs::read(target.path().join("base/1/1259")).unwrap(), b"without");
        let mode = fs::metadata(target.path().join("base/1/1259"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_leads_out_of_the_target() {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("data");
        fs::create_dir(&target).unwrap();
        let bytes = archive(&[("/../outside", b"x")]);
        assert!(
            unpack(bytes.as_slice(), &target, "b", false)
                .unwrap_err()
                .to_string()
                .contains("leads out")
        );
        let mut link = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        link.append_link(&mut header, "base", outer.path()).unwrap();
        let bytes = link.into_inner().unwrap();
        assert!(
            unpack(bytes.as_slice(), &target, "b", false)
                .unwrap_err()
                .to_string()
                .contains("link base")
        );
        assert!(!outer.path().join("outside").exists());
    }

    #[test]
    fn a_file_is_not_replaced_unless_asked() {
        let target = tempfile::tempdir().unwrap();
        let bytes = archive(&[("backup_label", b"x")]);
        unpack(bytes.as_slice(), target.path(), "b", false).unwrap();
        assert!(unpack(bytes.as_slice(), target.path(), "b", false).is_err());
        unpack(bytes.as_slice(), target.path(), "b", true).unwrap();
    }

    #[test]
    fn a_cut_archive_is_noticed() {
        let target = tempfile::tempdir().unwrap();
        let bytes = archive(&[("base/1/1259", &[1; 3000])]);
        assert!(unpack(&bytes[..2000], target.path(), "b", false).is_err());
    }
}
