//! The agent's arguments. Secrets come by environment or by file, where no process list shows them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs, Subcommand, value_parser};
use holdfast_kopia::CacheOptions;
use holdfast_kopia::snapshot::SourceInfo;
use holdfast_runtime::args::{LogArgs, duration};

/// Takes, restores, verifies and lists snapshots in kopia repositories.
///
/// Exit codes: 0 done; 1 failed, and trying again may help; 2 failed, and trying again is pointless until somebody changes something;
/// 3 done, but something was left out or is damaged; 4 stopped by a signal.
#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
    /// Print one JSON object a line, for programs: progress, summary, error.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// How often progress is printed.
    #[arg(long, global = true, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(super) progress_interval: Duration,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a repository, in an empty place.
    Create(CreateArgs),
    /// Take a snapshot of a directory or a block device.
    Backup(BackupArgs),
    /// Restore a snapshot to a directory or a block device.
    Restore(RestoreArgs),
    /// Look whether all objects of snapshots are there, and read some or all of their files.
    Verify(VerifyArgs),
    /// List snapshots, oldest first.
    List(ListArgs),
}

/// Where the repository is, and how much of the machine may be used for it.
#[derive(ClapArgs, Debug)]
#[command(group(ArgGroup::new("place").required(true).args(["directory", "bucket"])))]
pub(super) struct RepositoryArgs {
    /// Directory of the repository, in the layout of `kopia repository create filesystem`.
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// S3 bucket of the repository.
    #[arg(long, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// What the keys of the repository begin with, such as `backups/kopia/shop/`; whole parts of a path only.
    #[arg(long, value_name = "PATH", default_value = "", conflicts_with = "directory")]
    pub(super) prefix: String,
    /// URL of the S3 server, `http://` or `https://`; Amazon's without it.
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    pub(super) endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, value_name = "NAME", env = "AWS_REGION")]
    pub(super) region: Option<String>,
    /// Whether the bucket is the first part of the path, not of the host name [default: unless the server is Amazon's].
    #[arg(long, value_name = "BOOL")]
    pub(super) path_style: Option<bool>,
    /// File with certificates of authorities to trust beside the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// File with the keys, as the AWS tools have it; read again when it changes. Without it AWS_ACCESS_KEY_ID and so on, then the
    /// identity of the pod or machine.
    #[arg(long, value_name = "FILE", env = "AWS_SHARED_CREDENTIALS_FILE")]
    pub(super) credentials_file: Option<PathBuf>,
    /// Section of that file.
    #[arg(long, value_name = "NAME", env = "AWS_PROFILE", default_value = "default")]
    pub(super) profile: String,
    /// File with the password of the repository; without it VOLUME_BACKUP_PASSWORD. White space around it is not part of it.
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Directory for indexes while the agent runs: some 160 bytes for each content of the repository, and what is kept for the next
    /// run [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    pub(super) scratch: Option<PathBuf>,
    /// Bytes per second that are stored at most, on average.
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(1..))]
    pub(super) upload_limit: Option<u64>,
    /// Bytes per second that are read from the storage at most, on average.
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u64).range(1..))]
    pub(super) download_limit: Option<u64>,
    /// How long the storage may be away before the work fails.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) storage_patience: Duration,
}

/// What is kept on disk for the next run. Not of `verify`, which is to look at the storage itself.
#[derive(ClapArgs, Clone, Debug)]
pub(super) struct CacheArgs {
    /// Directory in which indexes and metadata of repositories are kept for the next run, encrypted as they are stored; any number of
    /// agents may share it. Without it nothing is kept.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Bytes that the cache takes on the disk at most.
    #[arg(long, value_name = "BYTES", requires = "cache", default_value_t = 1 << 30)]
    cache_limit: u64,
}

impl CacheArgs {
    pub(super) fn options(&self) -> Option<CacheOptions> {
        let directory = self.cache.clone()?;
        Some(CacheOptions {
            directory,
            limit: self.cache_limit,
        })
    }
}

/// What a backup and a restore are told alike.
#[derive(ClapArgs, Debug)]
pub(super) struct TransferArgs {
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    /// User of the source, as kopia means it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    source_user: String,
    /// Host of the source, as kopia means it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    source_host: String,
    /// Path that the snapshot is filed under [default of a backup: SOURCE, absolute]. A restore needs it for `latest` only.
    #[arg(long, value_name = "PATH")]
    pub(super) source_path: Option<String>,
    /// How many files are read or written at once [default: by the number of processors].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=256))]
    pub(super) parallel: Option<u16>,
}

impl TransferArgs {
    /// What snapshots filed under this path are of.
    pub(super) fn source(&self, path: String) -> SourceInfo {
        SourceInfo {
            host: self.source_host.clone(),
            user_name: self.source_user.clone(),
            path,
        }
    }
}

#[derive(ClapArgs, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
    /// How contents are named.
    #[arg(long, value_name = "ALGORITHM", default_value = "BLAKE2B-256-128")]
    pub(super) block_hash: String,
    /// How contents are encrypted.
    #[arg(long, value_name = "ALGORITHM", default_value = "AES256-GCM-HMAC-SHA256")]
    pub(super) encryption: String,
    /// Where files are cut.
    #[arg(long, value_name = "NAME", default_value = "DYNAMIC-4M-BUZHASH")]
    pub(super) object_splitter: String,
}

#[derive(ClapArgs, Debug)]
pub(super) struct BackupArgs {
    /// Directory or block device.
    #[arg(value_name = "SOURCE")]
    pub(super) source: PathBuf,
    #[command(flatten)]
    pub(super) transfer: TransferArgs,
    /// Tag of the snapshot.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) tags: Vec<(String, String)>,
    /// Name under which the snapshot is kept from kopia's retention.
    #[arg(long = "pin", value_name = "NAME")]
    pub(super) pins: Vec<String>,
    /// Text that people see beside the snapshot.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) description: String,
    /// Leave out what cannot be read, count it and name it; without this the first such file ends the backup.
    #[arg(long)]
    pub(super) skip_unreadable: bool,
    /// Read every file, whatever an older snapshot says.
    #[arg(long)]
    pub(super) force_read: bool,
    /// Keep extended attributes, access control lists and capabilities of programs, and which names are one file. kopia has no place for
    /// these; it reads the snapshot as if they were not there.
    #[arg(long)]
    pub(super) extended_attributes: bool,
    /// How often a checkpoint is stored from which a killed run resumes; 45 min at most.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) checkpoint_interval: Option<Duration>,
}

#[derive(ClapArgs, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of a command line, each for itself"
)]
pub(super) struct RestoreArgs {
    /// Id of a snapshot or of an object, or `latest` with --source-path.
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshot: String,
    /// Directory (made if there is none) or block device.
    #[arg(value_name = "TARGET")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) transfer: TransferArgs,
    /// Go on when something cannot be restored, count it and name it.
    #[arg(long)]
    pub(super) ignore_errors: bool,
    /// Leave files that exist as they are.
    #[arg(long)]
    pub(super) skip_existing: bool,
    /// Leave owners as they come.
    #[arg(long)]
    pub(super) skip_owners: bool,
    /// Leave out extended attributes and hard links that the snapshot has.
    #[arg(long)]
    pub(super) skip_extended_attributes: bool,
    /// Fill long runs of zeros instead of leaving holes.
    #[arg(long)]
    pub(super) no_sparse: bool,
}

#[derive(ClapArgs, Debug)]
pub(super) struct VerifyArgs {
    /// Ids of snapshots; all complete ones without any.
    #[arg(value_name = "SNAPSHOT")]
    pub(super) snapshots: Vec<String>,
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
    /// How much of the data is read; of the rest it is only looked whether it is there.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub(super) percent: f64,
    /// Number of the run: each reads the next share, so that 10 runs of 10 % with consecutive numbers have read everything.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) run: u64,
    /// How many damaged files are told one by one.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) max_errors: usize,
}

#[derive(ClapArgs, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
    /// Only snapshots of this user.
    #[arg(long, value_name = "NAME")]
    pub(super) source_user: Option<String>,
    /// Only snapshots of this host.
    #[arg(long, value_name = "NAME")]
    pub(super) source_host: Option<String>,
    /// Only snapshots filed under this path.
    #[arg(long, value_name = "PATH")]
    pub(super) source_path: Option<String>,
    /// Only snapshots with this tag.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) tags: Vec<(String, String)>,
    /// Those too that were not finished.
    #[arg(long)]
    pub(super) incomplete: bool,
}

/// Reads `key=value`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("the form is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    fn parse(words: &str) -> Result<Cli, String> {
        let words = ["volume-backup", "agent"].into_iter().chain(words.split(' '));
        Cli::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn a_repository_is_in_a_directory_or_in_a_bucket() {
        parse("list --directory /r").unwrap();
        parse("list --bucket b --prefix a/b/ --endpoint http://s3 --json").unwrap();
        parse("restore latest /t --directory /r --cache /c --cache-limit 1000").unwrap();
        for wrong in [
            "list",
            "list --directory /r --bucket b",
            "list --directory /r --prefix p",
            "backup --directory /r",
            "backup /data --directory /r --tag novalue",
            "backup /data --directory /r --upload-limit 0",
            "backup /data --directory /r --cache-limit 1000",
            "verify --directory /r --cache /c",
        ] {
            parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn no_argument_takes_a_secret() {
        let error = parse("backup /data --directory /r --password hush").unwrap_err();
        assert!(error.contains("unexpected argument"), "{error}");
    }
}
