//! The names of wal-g's objects, relative to the prefix.

use crate::compress::Codec;
use crate::lsn::{Lsn, Segment, SegmentSize, history_file_name};

/// Folder of the backups.
pub const BACKUPS: &str = "basebackups_005";

/// Folder of the WAL.
pub const WAL: &str = "wal_005";

const SENTINEL_SUFFIX: &str = "_backup_stop_sentinel.json";

/// The name of a full backup: the segment that holds its start.
///
/// wal-g takes the position one byte earlier on a standby; that differs only at the very first byte of a segment.
pub fn backup_name(start: Lsn, timeline: u32, size: SegmentSize, standby: bool) -> String {
    let lsn = if standby { start.before() } else { start };
    format!(
        "base_{}",
        Segment::containing(lsn, timeline, size).file_name(size)
    )
}

/// Whether a text is the name of a backup: `base_<24 hex>(_D_<24 hex>)?(_<8 hex>)?`.
pub fn is_backup_name(name: &str) -> bool {
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
    };
    let Some(rest) = name.strip_prefix("base_") else {
        return false;
    };
    let parts: Vec<&str> = rest.split('_').collect();
    match parts.as_slice() {
        [own] => hex(own, 24),
        [own, offset] => hex(own, 24) && hex(offset, 8),
        [own, "D", parent] => hex(own, 24) && hex(parent, 24),
        [own, "D", parent, offset] => hex(own, 24) && hex(parent, 24) && hex(offset, 8),
        _ => false,
    }
}

/// The timeline in a backup's name.
pub fn timeline_of(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_prefix("base_")?.get(..8)?, 16).ok()
}

/// The own segment in a backup's name.
pub(crate) fn own_segment(name: &str) -> Option<&str> {
    name.strip_prefix("base_")?.get(..24)
}

/// The segment in a delta backup's name that names its parent.
pub(crate) fn parent_segment(name: &str) -> Option<&str> {
    name.split_once("_D_")?.1.get(..24)
}

/// The object whose existence makes the backup.
pub fn sentinel(name: &str) -> String {
    format!("{BACKUPS}/{name}{SENTINEL_SUFFIX}")
}

/// The backup that a sentinel is of.
pub fn backup_of_sentinel(key: &str) -> Option<&str> {
    let name = key
        .strip_prefix(BACKUPS)?
        .strip_prefix('/')?
        .strip_suffix(SENTINEL_SUFFIX)?;
    is_backup_name(name).then_some(name)
}

/// The folder with everything of a backup but its sentinel.
pub fn folder(name: &str) -> String {
    format!("{BACKUPS}/{name}/")
}

/// What `wal-g backup-list --detail` reads.
pub fn metadata(name: &str) -> String {
    format!("{}metadata.json", folder(name))
}

/// The list of files, and which part holds them.
pub fn files_metadata(name: &str) -> String {
    format!("{}files_metadata.json", folder(name))
}

/// The server's backup manifest; ours, wal-g does not know it.
pub fn manifest(name: &str) -> String {
    format!("{}backup_manifest.json", folder(name))
}

/// The list of all objects with their sizes; ours, wal-g does not know it.
pub fn inventory(name: &str) -> String {
    format!("{}holdfast.json", folder(name))
}

/// The folder of the tar archives.
pub fn parts(name: &str) -> String {
    format!("{}tar_partitions/", folder(name))
}

/// File name of a part, numbered from 1.
pub fn part_file(number: u32, codec: Codec) -> String {
    with_extension(&format!("part_{number:03}.tar"), codec)
}

/// File name of the archive with `global/pg_control` only.
pub fn pg_control_file(codec: Codec) -> String {
    with_extension("pg_control.tar", codec)
}

/// File name of the archive with `backup_label` and `tablespace_map`.
pub fn backup_label_file(codec: Codec) -> String {
    with_extension("backup_label.tar", codec)
}

/// A complete WAL segment.
pub fn wal_segment(segment: Segment, size: SegmentSize, codec: Codec) -> String {
    with_extension(&format!("{WAL}/{}", segment.file_name(size)), codec)
}

/// The beginning of a WAL segment that nothing completed in time; ours, kept with the one backup that needs it.
pub fn partial_segment(name: &str, segment: Segment, size: SegmentSize, codec: Codec) -> String {
    with_extension(
        &format!("{}wal/{}.partial", folder(name), segment.file_name(size)),
        codec,
    )
}

/// A timeline's history.
pub fn history(timeline: u32, codec: Codec) -> String {
    with_extension(&format!("{WAL}/{}", history_file_name(timeline)), codec)
}

/// Adds the extension of a compression.
pub fn with_extension(name: &str, codec: Codec) -> String {
    match codec.extension() {
        "" => name.to_owned(),
        extension => format!("{name}.{extension}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_wal_g() {
        let size = SegmentSize::default();
        assert_eq!(
            backup_name(Lsn(0x2_0000_0028), 1, size, false),
            "base_000000010000000200000000"
        );
        assert_eq!(
            backup_name(Lsn(0x2_0000_0000), 1, size, true),
            "base_0000000100000001000000FF"
        );
        let name = "base_000000010000000000000002";
        assert_eq!(
            sentinel(name),
            "basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json"
        );
        assert_eq!(backup_of_sentinel(&sentinel(name)), Some(name));
        assert_eq!(
            backup_of_sentinel("basebackups_005/base_1_backup_stop_sentinel.json"),
            None
        );
        let part = format!("{}{}", parts(name), part_file(1, Codec::Lz4));
        assert_eq!(
            part,
            "basebackups_005/base_000000010000000000000002/tar_partitions/part_001.tar.lz4"
        );
        assert_eq!(part_file(1234, Codec::None), "part_1234.tar");
        assert_eq!(pg_control_file(Codec::zstd(3)), "pg_control.tar.zst");
        let segment = Segment {
            timeline: 1,
            number: 2,
        };
        assert_eq!(
            wal_segment(segment, size, Codec::Lz4),
            "wal_005/000000010000000000000002.lz4"
        );
        assert_eq!(history(2, Codec::Lz4), "wal_005/00000002.history.lz4");
    }

    #[test]
    fn only_names_of_backups_pass() {
        for name in [
            "base_000000010000000000000002",
            "base_000000010000000000000004_D_000000010000000000000002",
            "base_000000010000000000000004_00000028",
            "base_000000010000000000000004_D_000000010000000000000002_00000028",
        ] {
            assert!(is_backup_name(name), "{name}");
        }
        for name in [
            "",
            "base_",
            "base_00000001000000000000000",
            "base_00000001000000000000000g",
            "LATEST",
            "../x",
        ] {
            assert!(!is_backup_name(name), "{name}");
        }
        let delta = "base_000000010000000000000004_D_000000010000000000000002";
        assert_eq!(parent_segment(delta), Some("000000010000000000000002"));
        assert_eq!(timeline_of("base_0000001A0000000000000002"), Some(26));
    }
}
