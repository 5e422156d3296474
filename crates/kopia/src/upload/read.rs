//! Data that are read once.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, ReadWriteFlags};

use super::list::retry;

/// `RWF_DONTCACHE` of Linux 6.14: what the read brought into the page cache does not stay there.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A large file or a device.
///
/// A backup reads everything once. If that stayed in the page cache, what the programs of the machine use would have to
/// give way. What is in it already is read from there, and stays. Small files are read without this: for them it costs
/// more than it saves.
#[derive(Debug)]
pub(super) struct ReadOnce<'a> {
    file: BorrowedFd<'a>,
    flags: ReadWriteFlags,
}

impl<'a> ReadOnce<'a> {
    pub(super) fn new(file: BorrowedFd<'a>) -> Self {
        Self {
            file,
            flags: DONT_CACHE,
        }
    }

    /// As `pread`.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut read =
            |flags| retry(|| rustix::io::preadv2(self.file, &mut [IoSliceMut::new(buffer)], offset, flags));
        match read(self.flags) {
            // Older kernels cannot do it, nor can every file system.
            Err(Errno::OPNOTSUPP) if !self.flags.is_empty() => {
                self.flags = ReadWriteFlags::empty();
                read(self.flags)
            }
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::Advice;

    use super::*;

    const LENGTH: usize = 3 << 20;

    fn file(data: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(data, 0).unwrap();
        file.sync_all().unwrap();
        file
    }

    fn read_all(file: &File) -> (Vec<u8>, bool) {
        let mut source = ReadOnce::new(file.as_fd());
        let mut data = vec![0; LENGTH + 1];
        let mut length = 0;
        while let read @ 1.. = source.read_at(&mut data[length..], length as u64).unwrap() {
            length += read;
        }
        data.truncate(length);
        (data, !source.flags.is_empty())
    }

    /// Whether the page cache has the middle of it.
    fn is_cached(file: &File) -> bool {
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut buffers, LENGTH as u64 / 2, ReadWriteFlags::NOWAIT) {
            Ok(read) => read == 1,
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                false
            }
        }
    }

    #[test]
    fn the_page_cache_keeps_what_it_had_and_nothing_more() {
        let data: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
        let file = file(&data);
        assert!(is_cached(&file));
        assert_eq!(read_all(&file).0, data);
        assert!(is_cached(&file), "what others use was dropped");

        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let (read, can_leave_it_out) = read_all(&file);
        assert_eq!(read, data);
        if can_leave_it_out {
            assert!(!is_cached(&file), "what was read once stayed");
        } else {
            eprintln!("this kernel or file system has no uncached reads");
        }
    }
}
