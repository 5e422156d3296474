//! wal-g's JSON documents, byte for byte.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format of times that wal-g notes beside them.
const DATE_FORMAT: &str = "%Y-%m-%dT%H:%M:%S.%fZ";

/// `<name>_backup_stop_sentinel.json`, version 2; older versions lack fields and are read as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sentinel {
    /// Start of the backup.
    #[serde(rename = "LSN", default)]
    pub lsn: Option<u64>,
    /// Start of the parent of a delta backup.
    #[serde(
        rename = "DeltaLSN",
        alias = "DeltaFromLSN",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub delta_lsn: Option<u64>,
    /// Parent of a delta backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_from: Option<String>,
    /// Full backup at the end of a chain of deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_full_name: Option<String>,
    /// Number of deltas in the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_count: Option<u32>,
    /// Version of the server, 150020 for instance.
    #[serde(default)]
    pub pg_version: u32,
    /// Where the backup becomes consistent.
    #[serde(rename = "FinishLSN", default)]
    pub finish_lsn: Option<u64>,
    /// System identifier of the database cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<u64>,
    /// Bytes before compression.
    #[serde(default)]
    pub uncompressed_size: u64,
    /// Bytes as stored.
    #[serde(default)]
    pub compressed_size: u64,
    /// Bytes in the data directory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub data_catalog_size: u64,
    /// Tablespaces; none, or null in the JSON, without.
    #[serde(default, alias = "spec")]
    pub spec: Option<serde_json::Value>,
    /// Whatever the user noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<serde_json::Value>,
    /// Whether there is no `files_metadata.json`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_metadata_disabled: bool,
    /// Of OrioleDB.
    #[serde(default)]
    pub chkp_num: Option<u32>,
    /// Of OrioleDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_chkp_num: Option<u32>,
    /// 2; missing in older ones.
    #[serde(default)]
    pub version: u32,
    /// When the backup started.
    #[serde(default)]
    pub start_time: Option<Timestamp>,
    /// When its data was complete.
    #[serde(default)]
    pub finish_time: Option<Timestamp>,
    /// Format of the times, for people.
    #[serde(rename = "DateFmt", default)]
    pub date_format: String,
    /// Host of the database.
    #[serde(default)]
    pub hostname: String,
    /// Data directory on that host.
    #[serde(default)]
    pub data_dir: String,
    /// Whether deletion is refused.
    #[serde(default)]
    pub is_permanent: bool,
}

/// `metadata.json`: what the detailed list of backups shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// When the backup started.
    pub start_time: Timestamp,
    /// When its data was complete.
    pub finish_time: Timestamp,
    /// Format of the times, for people.
    pub date_fmt: String,
    /// Host of the database.
    pub hostname: String,
    /// Data directory on that host.
    pub data_dir: String,
    /// Version of the server, 150020 for instance.
    pub pg_version: u32,
    /// Start of the backup.
    pub start_lsn: u64,
    /// Where the backup becomes consistent.
    pub finish_lsn: u64,
    /// Whether deletion is refused.
    pub is_permanent: bool,
    /// System identifier of the database cluster.
    pub system_identifier: Option<u64>,
    /// Bytes before compression.
    pub uncompressed_size: u64,
    /// Bytes as stored.
    pub compressed_size: u64,
    /// Whatever the user noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<serde_json::Value>,
}

impl Sentinel {
    /// User data that tells whom a backup was taken for.
    pub fn owned_by(owner: &str) -> serde_json::Value {
        serde_json::json!({ "holdfast": { "owner": owner } })
    }

    /// Whom the backup was taken for, where the user data tells.
    pub fn owner(&self) -> Option<&str> {
        self.user_data.as_ref()?.get("holdfast")?.get("owner")?.as_str()
    }

    /// Puts in what every sentinel that is written now has.
    #[must_use]
    pub fn current(self) -> Self {
        Self {
            version: 2,
            date_format: DATE_FORMAT.to_owned(),
            ..self
        }
    }

    /// The document that goes with this sentinel.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            start_time: self.start_time.unwrap_or_default(),
            finish_time: self.finish_time.unwrap_or_default(),
            date_fmt: DATE_FORMAT.to_owned(),
            hostname: self.hostname.clone(),
            data_dir: self.data_dir.clone(),
            pg_version: self.pg_version,
            start_lsn: self.lsn.unwrap_or_default(),
            finish_lsn: self.finish_lsn.unwrap_or_default(),
            is_permanent: self.is_permanent,
            system_identifier: self.system_identifier,
            uncompressed_size: self.uncompressed_size,
            compressed_size: self.compressed_size,
            user_data: self.user_data.clone(),
        }
    }

    /// The tablespaces' names; the data directory itself is none.
    pub fn tablespaces(&self) -> Vec<String> {
        let names = self
            .spec
            .as_ref()
            .and_then(|spec| spec.get("tablespaces"))
            .and_then(|names| names.as_array());
        names
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    }

    /// Whether only changes against another backup are stored.
    pub fn is_delta(&self) -> bool {
        self.delta_from.is_some()
    }
}

/// A version as people write it: `15.20` of 150020.
pub fn version_text(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// `files_metadata.json` as it grows: which file is in which part.
///
/// wal-g needs it for deltas and to restore single files. With very many files it would be large; once its text
/// exceeds a limit it is given up, and the sentinel says so (`FilesMetadataDisabled`).
#[derive(Debug)]
pub struct FilesMetadata {
    limit: usize,
    files: String,
    sets: Vec<(String, String)>,
    exceeded: bool,
}

impl FilesMetadata {
    /// Grows to so many bytes of JSON at most.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            files: String::new(),
            sets: Vec::new(),
            exceeded: false,
        }
    }

    /// Notes a file: `path` as in the archive, the archive's file name, and when the file was modified.
    pub fn add(&mut self, archive: &str, path: &str, modified: Timestamp) {
        if self.exceeded {
            return;
        }
        let Ok(path) = serde_json::to_string(path) else {
            return;
        };
        if self.sets.last().is_none_or(|(last, _)| last != archive) {
            self.sets.push((archive.to_owned(), String::new()));
        }
        if let Some((_, set)) = self.sets.last_mut() {
            append(set, &path);
        }
        let description = format!(
            "{path}:{{\"IsIncremented\":false,\"IsSkipped\":false,\"MTime\":\"{modified}\",\"UpdatesCount\":0}}"
        );
        append(&mut self.files, &description);
        let size = self.files.len() + self.sets.iter().map(|(_, set)| set.len()).sum::<usize>();
        if size > self.limit {
            *self = Self {
                exceeded: true,
                ..Self::with_limit(self.limit)
            };
        }
    }

    /// The document; none when it grew too large.
    pub fn into_json(self) -> Option<String> {
        if self.exceeded {
            return None;
        }
        let sets: Vec<String> = self
            .sets
            .iter()
            .map(|(name, set)| format!("\"{name}\":[{set}]"))
            .collect();
        Some(format!(
            "{{\"Files\":{{{}}},\"TarFileSets\":{{{}}}}}",
            self.files,
            sets.join(",")
        ))
    }
}

fn append(list: &mut String, item: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(item);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `holdfast.json`: everything that belongs to a backup, with its size; ours, wal-g does not know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// 1.
    pub version: u32,
    /// Objects below the folder of the backup, keys relative to the prefix, this one not among them.
    pub objects: Vec<InventoryEntry>,
    /// WAL that a restore needs, keys relative to the prefix.
    pub wal: Vec<InventoryEntry>,
    /// Size of a WAL segment.
    pub wal_segment_size: u64,
}

/// One object of an [`Inventory`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// Key relative to the prefix.
    pub key: String,
    /// Bytes as stored.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentinel() -> Sentinel {
        Sentinel {
            lsn: Some(0x200_0028),
            pg_version: 150_020,
            finish_lsn: Some(0x200_0138),
            system_identifier: Some(7_428_993_466_124_349_467),
            uncompressed_size: 31_457_280,
            compressed_size: 4_194_304,
            start_time: Some("2026-11-21T10:00:00.123456Z".parse().unwrap()),
            finish_time: Some("2026-11-21T10:00:05Z".parse().unwrap()),
            hostname: "pg-0".into(),
            data_dir: "/home/postgres/pgdata".into(),
            ..Sentinel::default()
        }
        .current()
    }

    #[test]
    fn the_sentinel_is_that_of_wal_g() {
        assert_eq!(
            serde_json::to_string(&sentinel()).unwrap(),
            concat!(
                r#"{"LSN":33554472,"PgVersion":150020,"FinishLSN":33554744,"SystemIdentifier":7428993466124349467,"#,
                r#""UncompressedSize":31457280,"CompressedSize":4194304,"Spec":null,"ChkpNum":null,"Version":2,"#,
                r#""StartTime":"2026-11-21T10:00:00.123456Z","FinishTime":"2026-11-21T10:00:05Z","#,
                r#""DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"pg-0","DataDir":"/home/postgres/pgdata","#,
                r#""IsPermanent":false}"#
            )
        );
    }

    #[test]
    fn the_metadata_is_that_of_wal_g() {
        assert_eq!(
            serde_json::to_string(&sentinel().metadata()).unwrap(),
            concat!(
                r#"{"start_time":"2026-11-21T10:00:00.123456Z","finish_time":"2026-11-21T10:00:05Z","#,
                r#""date_fmt":"%Y-%m-%dT%H:%M:%S.%fZ","hostname":"pg-0","data_dir":"/home/postgres/pgdata","#,
                r#""pg_version":150020,"start_lsn":33554472,"finish_lsn":33554744,"is_permanent":false,"#,
                r#""system_identifier":7428993466124349467,"uncompressed_size":31457280,"compressed_size":4194304}"#
            )
        );
    }

    #[test]
    fn older_and_delta_sentinels_are_read() {
        let text = r#"{"LSN":100,"DeltaFromLSN":50,"DeltaFrom":"base_x","DeltaFullName":"base_y","DeltaCount":1,
            "Files":{"/a":{}},"PgVersion":90600,"FinishLSN":200,"spec":{"base_prefix":"/d","tablespaces":["16400"],
            "16400":{"loc":"/t","link":"pg_tblspc/16400"}}}"#;
        let old: Sentinel = serde_json::from_str(text).unwrap();
        assert_eq!((old.delta_lsn, old.is_delta(), old.version), (Some(50), true, 0));
        assert_eq!(old.tablespaces(), ["16400"]);
    }

    #[test]
    fn the_files_are_listed_as_wal_g_does() {
        let mut files = FilesMetadata::with_limit(1 << 20);
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        files.add("part_001.tar.lz4", "/base/1/1259", time);
        files.add("part_001.tar.lz4", "/PG_VERSION", time);
        files.add("part_002.tar.lz4", "/a \"quoted\"", time);
        let json = files.into_json().unwrap();
        assert!(
            json.starts_with(concat!(
                r#"{"Files":{"/base/1/1259":{"IsIncremented":false,"IsSkipped":false,"#,
                r#""MTime":"2026-11-21T10:00:00Z","UpdatesCount":0},"/PG_VERSION":"#
            )),
            "{json}"
        );
        let sets = concat!(
            r#""TarFileSets":{"part_001.tar.lz4":["/base/1/1259","/PG_VERSION"],"#,
            r#""part_002.tar.lz4":["/a \"quoted\""]}}"#
        );
        assert!(json.ends_with(sets), "{json}");
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }

    #[test]
    fn a_list_that_would_be_too_long_is_given_up() {
        let mut files = FilesMetadata::with_limit(1000);
        for number in 0..100 {
            files.add(
                "part_001.tar.lz4",
                &format!("/base/1/{number}"),
                Timestamp::UNIX_EPOCH,
            );
        }
        assert_eq!(files.into_json(), None);
    }

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(
            (version_text(150_020), version_text(170_000)),
            ("15.20".into(), "17.0".into())
        );
    }
}
