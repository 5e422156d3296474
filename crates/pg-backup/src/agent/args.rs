//! The agent's arguments. Secrets come by environment only, where no process list shows them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use holdfast_runtime::args::{LogArgs, duration};
use holdfast_walg::compress::Codec;
use holdfast_walg::replication::SslMode;

/// Takes, restores, verifies, lists and deletes backups in wal-g's layout.
///
/// The storage is given by wal-g's environment variables: WALG_S3_PREFIX or WAL_S3_BUCKET with AWS_ENDPOINT,
/// AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; or WALG_FILE_PREFIX.
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    /// Where the result goes as JSON, besides standard output [default: /dev/termination-log, if it exists].
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) termination_message: Option<PathBuf>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take a full backup of a running server, with the WAL it needs, and read it back.
    Backup(BackupArgs),
    /// Restore a backup into an empty directory; PostgreSQL starts on it without a restore_command.
    Restore(RestoreArgs),
    /// Look whether everything of a backup is in storage.
    Verify(NamedArgs),
    /// List backups, oldest first.
    List(ListArgs),
    /// Delete a backup; its WAL stays, other backups need it.
    Delete(DeleteArgs),
}

/// Where in the storage the backups are.
#[derive(ClapArgs, Debug)]
#[group(required = false, multiple = true)]
pub(super) struct LocationArgs {
    /// Path in the bucket below which basebackups_005 lies, whatever the environment says about a path.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["scope_path", "pg_major"])]
    pub(super) path: Option<String>,
    /// Path below the storage's own prefix, without the major version: spilo/<scope>/<uid>/wal.
    #[arg(long, value_name = "PATH")]
    pub(super) scope_path: Option<String>,
    /// Major version that is appended to the scope path; `backup` asks the server.
    #[arg(long, value_name = "N", requires = "scope_path")]
    pub(super) pg_major: Option<u32>,
    /// How long the storage may be away before the work fails.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) storage_patience: Duration,
}

#[derive(ClapArgs, Debug)]
pub(super) struct BackupArgs {
    /// Host to read from.
    #[arg(long, value_name = "HOST")]
    pub(super) host: String,
    /// Host to read from when the first one made no checkpoint since the last backup.
    #[arg(long, value_name = "HOST")]
    pub(super) alternate_host: Option<String>,
    /// Port of the server.
    #[arg(long, default_value_t = 5432)]
    pub(super) port: u16,
    /// Role with the REPLICATION attribute; its password is in PGPASSWORD.
    #[arg(long, env = "PGUSER", default_value = "standby")]
    pub(super) user: String,
    /// disable, prefer, require, verify-ca or verify-full.
    #[arg(long, env = "PGSSLMODE", default_value = "prefer")]
    pub(super) ssl_mode: SslMode,
    /// File with the certificates that verify-ca and verify-full trust.
    #[arg(long, env = "PGSSLROOTCERT", value_name = "FILE")]
    pub(super) ssl_root_cert: Option<PathBuf>,
    #[command(flatten)]
    pub(super) location: LocationArgs,
    /// lz4, zstd, zstd:<level> or none.
    #[arg(long, env = "WALG_COMPRESSION_METHOD", default_value = "lz4")]
    pub(super) compression: Codec,
    /// Level of zstd: 1 to 19, or wal-g's words fastest, default, better, best.
    #[arg(long, env = "WALG_ZSTD_LEVEL", value_name = "LEVEL", value_parser = zstd_level)]
    pub(super) zstd_level: Option<i32>,
    /// A part is closed above so many bytes.
    #[arg(long, env = "WALG_TAR_SIZE_THRESHOLD", value_name = "BYTES", default_value_t = (1 << 30) - 1)]
    pub(super) part_size: u64,
    /// MiB of buffers in flight; more does not make a backup faster than its disks.
    #[arg(long, env = "HOLDFAST_BUFFERS", value_name = "MIB", default_value_t = 48, value_parser = clap::value_parser!(u64).range(32..=4096))]
    pub(super) buffers: u64,
    /// Most bytes per second that the server shall send.
    #[arg(long, env = "WALG_NETWORK_RATE_LIMIT", value_name = "BYTES")]
    pub(super) max_rate: Option<u64>,
    /// How long the last WAL segment may take to be completed, before its beginning is kept with the backup.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(super) wal_patience: Duration,
    /// Do not let the server verify page checksums; with damaged pages no backup is possible otherwise.
    #[arg(long)]
    pub(super) no_verify_checksums: bool,
    /// Whom the backup is taken for, noted with it; `delete --owner` spares others' backups.
    #[arg(long, value_name = "ID")]
    pub(super) owner: Option<String>,
    /// How long the whole run may take.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) max_duration: Option<Duration>,
    /// How long nothing at all may move.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) stall: Duration,
    /// Where GET /progress, /metrics and /livez are answered [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin_address: Option<SocketAddr>,
}

#[derive(ClapArgs, Debug)]
pub(super) struct RestoreArgs {
    /// Directory that becomes the data directory; created when missing, must be empty.
    #[arg(long, value_name = "DIR")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) named: NamedArgs,
    /// Size of a WAL segment in MiB, for backups of wal-g, which do not say it.
    #[arg(long, env = "WALG_PG_WAL_SIZE", value_name = "MIB", default_value_t = 16)]
    pub(super) wal_segment_size: u64,
}

#[derive(ClapArgs, Debug)]
pub(super) struct NamedArgs {
    /// Name of the backup; LATEST is the newest (not for delete).
    #[arg(long, value_name = "NAME")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) location: LocationArgs,
}

#[derive(ClapArgs, Debug)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) named: NamedArgs,
    /// Spare a backup of this name that was taken for somebody else.
    #[arg(long, value_name = "ID")]
    pub(super) owner: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) location: LocationArgs,
    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Reads a level; wal-g's words are those of its library.
fn zstd_level(text: &str) -> Result<i32, String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "fastest" => 1,
        "default" => 3,
        "better" => 7,
        "best" => 11,
        other => other
            .parse()
            .map_err(|_| "1 to 19, fastest, default, better or best".to_owned())?,
    };
    (1..=19)
        .contains(&level)
        .then_some(level)
        .ok_or_else(|| "1 to 19".to_owned())
}

impl BackupArgs {
    /// The compression with its level.
    pub(super) fn codec(&self) -> Codec {
        match (self.compression, self.zstd_level) {
            (Codec::Zstd { .. }, Some(level)) => Codec::zstd(level),
            (codec, _) => codec,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_controller_passes_is_understood() {
        let backup = "x backup --host=10.0.0.1 --user=standby --ssl-mode=prefer --scope-path=spilo/a/b/wal \
                      --admin-address=0.0.0.0:8080 --max-duration=3600s --alternate-host=10.0.0.2";
        let Command::Backup(backup) = Cli::parse_from(backup.split_whitespace()).args.command else {
            panic!()
        };
        assert_eq!(backup.max_duration, Some(Duration::from_hours(1)));
        let delete = "x delete --path=spilo/a/b/wal/15 --name=base_000000010000000000000002";
        let Command::Delete(delete) = Cli::parse_from(delete.split_whitespace()).args.command else {
            panic!()
        };
        assert_eq!(delete.named.location.path.as_deref(), Some("spilo/a/b/wal/15"));
    }

    #[test]
    fn levels_are_numbers_or_the_words_of_wal_g() {
        assert_eq!((zstd_level("best"), zstd_level("19")), (Ok(11), Ok(19)));
        assert!(zstd_level("20").is_err() && zstd_level("huge").is_err());
    }
}
