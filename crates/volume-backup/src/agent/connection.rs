//! From arguments and environment to an open repository.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_kopia::BlobStorage;
use holdfast_kopia::blob::{Layout, StoreBlobs};
use holdfast_kopia::{CacheOptions, ConnectOptions, MemoryLimits, Repository};
use holdfast_runtime::environment::Environment;
use holdfast_store::{CredentialsFile, Limits, Place, RetryPolicy, S3Config, Secret, Store, StoreConfig};

use super::args::RepositoryArgs;
use super::failure::Failure;
use super::password::password;

/// What is needed to open a repository.
pub(super) struct Connection {
    /// The client beneath, for its counters.
    pub(super) store: Store,
    pub(super) storage: Arc<dyn BlobStorage>,
    pub(super) password: Secret,
    scratch: PathBuf,
    /// Removes the scratch directory at the end, if it is a temporary one.
    _temporary: Option<tempfile::TempDir>,
}

impl Connection {
    /// Sets everything up; nothing is sent yet.
    pub(super) fn new(args: &RepositoryArgs, environment: &Environment) -> Result<Self, Failure> {
        let password = password(environment, args.password_file.as_deref())?;
        let policy = RetryPolicy {
            total: args.storage_patience,
            ..RetryPolicy::default()
        };
        let config = config(args, environment)?;
        let layout = match config.place {
            Place::S3(_) => Layout::Flat,
            Place::Directory(_) => Layout::Sharded,
        };
        let store = Store::open(&config, policy)?;
        let storage = Arc::new(StoreBlobs::new(store.clone(), layout));
        let (scratch, temporary) = scratch(args)?;
        Ok(Self {
            store,
            storage,
            password,
            scratch,
            _temporary: temporary,
        })
    }

    /// How the repository is opened.
    pub(super) fn options(&self, memory: MemoryLimits) -> ConnectOptions {
        ConnectOptions::new(&self.scratch).memory(memory)
    }

    /// Opens the repository.
    pub(super) async fn open(
        &self,
        memory: MemoryLimits,
        cache: Option<CacheOptions>,
    ) -> Result<Repository, Failure> {
        let storage = Arc::clone(&self.storage);
        let options = self.options(memory).cache(cache);
        Ok(Repository::connect(storage, &self.password, options).await?)
    }
}

fn config(args: &RepositoryArgs, environment: &Environment) -> Result<StoreConfig, Failure> {
    let place = match (&args.directory, &args.bucket) {
        (Some(path), _) => Place::Directory(std::path::absolute(path).map_err(|error| {
            Failure::permanent(
                "ArgumentInvalid",
                format!("--directory {}: {error}", path.display()),
            )
        })?),
        (None, Some(bucket)) => Place::S3(Box::new(s3(args, bucket, environment)?)),
        (None, None) => {
            // clap asks for one of them.
            return Err(Failure::permanent(
                "ArgumentInvalid",
                "neither --directory nor --bucket is given",
            ));
        }
    };
    let mut config = StoreConfig::new(place, args.prefix.trim_matches('/'));
    config.limits = Limits {
        upload: args.upload_limit,
        download: args.download_limit,
    };
    Ok(config)
}

fn s3(args: &RepositoryArgs, bucket: &str, environment: &Environment) -> Result<S3Config, Failure> {
    if let Some(url) = &args.endpoint
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(Failure::permanent(
            "ArgumentInvalid",
            format!("--endpoint {url}: the URL must begin with http:// or https://"),
        ));
    }
    let mut s3 = S3Config::new(bucket, args.endpoint.clone());
    if let Some(region) = args.region.as_deref().or(environment.get("AWS_DEFAULT_REGION")) {
        region.clone_into(&mut s3.region);
    }
    s3.path_style = args.path_style.unwrap_or(s3.path_style);
    s3.ca_file.clone_from(&args.ca_file);
    s3.credentials_file = args.credentials_file.clone().map(|path| CredentialsFile {
        path,
        profile: args.profile.clone(),
    });
    s3.credentials = match (
        environment.get("AWS_ACCESS_KEY_ID"),
        environment.get("AWS_SECRET_ACCESS_KEY"),
    ) {
        (Some(key), Some(secret)) => Some((key.to_owned(), Secret::new(secret))),
        (None, None) => None,
        _ => {
            return Err(Failure::permanent(
                "StorageInvalid",
                "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set",
            ));
        }
    };
    s3.session_token = environment.get("AWS_SESSION_TOKEN").map(Secret::new);
    s3.web_identity = environment
        .get("AWS_ROLE_ARN")
        .zip(environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"))
        .map(|(role, file)| (role.to_owned(), file.to_owned()));
    Ok(s3)
}

/// The directory for indexes, made if there is none.
fn scratch(args: &RepositoryArgs) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let wrong = |error: std::io::Error| {
        Failure::permanent(
            "ScratchFailed",
            format!("cannot make the scratch directory: {error}"),
        )
    };
    if let Some(path) = &args.scratch {
        std::fs::create_dir_all(path).map_err(wrong)?;
        return Ok((path.clone(), None));
    }
    let folder = tempfile::Builder::new()
        .prefix("volume-backup-")
        .tempdir()
        .map_err(wrong)?;
    Ok((folder.path().to_owned(), Some(folder)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        repository: RepositoryArgs,
    }

    fn args(words: &str) -> RepositoryArgs {
        let words = ["x"].into_iter().chain(words.split(' '));
        Wrapper::try_parse_from(words).unwrap().repository
    }

    fn read(words: &str, variables: &[(&str, &str)]) -> Result<StoreConfig, Failure> {
        config(&args(words), &Environment::from(variables))
    }

    #[test]
    fn a_bucket_takes_its_keys_from_the_environment() {
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")];
        let words =
            "--bucket b --prefix a/kopia/shop/ --endpoint http://s3:7070 --region eu --upload-limit 5";
        let config = read(words, &keys).unwrap();
        assert_eq!(config.prefix, "a/kopia/shop");
        assert_eq!(config.limits.upload, Some(5));
        assert!(!format!("{config:?}").contains("hush"));
        let Place::S3(s3) = config.place else {
            panic!("not S3")
        };
        assert_eq!(
            (s3.bucket.as_str(), s3.region.as_str(), s3.path_style),
            ("b", "eu", true)
        );
        assert_eq!(s3.credentials, Some(("id".to_owned(), Secret::new("hush"))));
    }

    #[test]
    fn half_a_key_and_a_url_without_scheme_are_refused() {
        let failure = read("--bucket b", &[("AWS_ACCESS_KEY_ID", "id")]).unwrap_err();
        assert!(failure.message.contains("AWS_SECRET_ACCESS_KEY"), "{failure:?}");
        let failure = read("--bucket b --endpoint s3:7070", &[]).unwrap_err();
        assert!(failure.message.contains("http://"), "{failure:?}");
    }
}
