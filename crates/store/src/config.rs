//! Where the storage is and how to reach it; also by the names that wal-g and Spilo use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::credentials::CredentialsFile;
use crate::error::{StoreError, StoreResult};

/// A text that never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where the storage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// S3 or a directory.
    pub place: Place,
    /// The path below which every key lies, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Limits on what passes.
    pub limits: Limits,
}

/// Limits on what passes, of a storage and everything that shares its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes per second that are stored, on average. A request is held back until its body fits, then sent as fast as
    /// the network allows: bodies are at most a pack or a part.
    pub upload: Option<u64>,
    /// Bytes per second that are read, on average.
    pub download: Option<u64>,
}

/// The kinds of storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An S3 bucket.
    S3(Box<S3Config>),
    /// A directory of this machine, with wal-g's layout in it.
    Directory(PathBuf),
}

/// An S3 bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// Name of the bucket.
    pub bucket: String,
    /// URL of the server; none means Amazon's.
    pub endpoint: Option<String>,
    /// Region, `us-east-1` unless told otherwise.
    pub region: String,
    /// Whether the bucket is the first part of the path rather than of the host name.
    pub path_style: bool,
    /// Access key and secret key; none means the identity of the machine or of the pod.
    pub credentials: Option<(String, Secret)>,
    /// Token that belongs to temporary credentials.
    pub session_token: Option<Secret>,
    /// File with the keys, read again whenever it changes; where it is given, `credentials` are not looked at.
    pub credentials_file: Option<CredentialsFile>,
    /// ARN of the role and file with the token of a pod's identity; the file is read for each new session.
    pub web_identity: Option<(String, String)>,
    /// File with the certificates of the authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The same as text, PEM; in addition to the file.
    pub ca_bundle: Option<String>,
    /// Whether to trust whoever answers. For those who ask for it by name only.
    pub insecure: bool,
    /// Storage class of new objects, `STANDARD_IA` for instance.
    pub storage_class: Option<String>,
    /// Encryption on the server: `AES256` or `aws:kms`.
    pub encryption: Option<String>,
    /// Key of `aws:kms`.
    pub kms_key: Option<String>,
}

impl S3Config {
    /// A bucket, reached as is usual: by the first part of the host name at Amazon, by the path at other servers;
    /// with the identity of the machine or of the pod.
    pub fn new(bucket: impl Into<String>, endpoint: Option<String>) -> Self {
        Self {
            bucket: bucket.into(),
            path_style: endpoint
                .as_deref()
                .is_some_and(|url| !url.contains(".amazonaws.com")),
            endpoint: endpoint.map(|url| url.trim_end_matches('/').to_owned()),
            region: "us-east-1".to_owned(),
            credentials: None,
            session_token: None,
            credentials_file: None,
            web_identity: None,
            ca_file: None,
            ca_bundle: None,
            insecure: false,
            storage_class: None,
            encryption: None,
            kms_key: None,
        }
    }
}

/// Names that would change what is stored or where, and that nothing here implements.
const REFUSED: [(&str, &str); 14] = [
    (
        "WALG_LIBSODIUM_KEY",
        "encryption with libsodium; the data would be stored in clear",
    ),
    (
        "WALG_PGP_KEY",
        "encryption with OpenPGP; the data would be stored in clear",
    ),
    (
        "WALE_GPG_KEY_ID",
        "encryption with OpenPGP; the data would be stored in clear",
    ),
    (
        "WALG_GPG_KEY_ID",
        "encryption with OpenPGP; the data would be stored in clear",
    ),
    (
        "WALG_ENVELOPE_PGP",
        "encryption with OpenPGP; the data would be stored in clear",
    ),
    (
        "WALG_CSE_KMS",
        "encryption by a key service; the data would be stored in clear",
    ),
    (
        "YC_CSE_KMS",
        "encryption by a key service; the data would be stored in clear",
    ),
    ("WALG_GS_PREFIX", "Google Cloud Storage"),
    ("WALE_GS_PREFIX", "Google Cloud Storage"),
    ("WALG_AZ_PREFIX", "Azure Blob Storage"),
    ("WALG_SWIFT_PREFIX", "OpenStack Swift"),
    ("WALG_SSH_PREFIX", "storage over SSH"),
    ("WALG_FAILOVER_STORAGES", "several storages at once"),
    ("S3_", "this option of wal-g for S3"),
];

/// Names beginning with `WALG_S3_` that are understood, or only tune wal-g itself.
const KNOWN_S3: [&str; 8] = [
    "WALG_S3_PREFIX",
    "WALG_S3_CA_CERT_FILE",
    "WALG_S3_STORAGE_CLASS",
    "WALG_S3_SSE",
    "WALG_S3_SSE_KMS_ID",
    "WALG_S3_MAX_PART_SIZE",
    "WALG_S3_MAX_RETRIES",
    "WALG_S3_DISABLE_100_CONTINUE",
];

impl StoreConfig {
    /// A storage without limits, everything below `prefix`.
    pub fn new(place: Place, prefix: &str) -> Self {
        Self {
            place,
            prefix: prefix.trim_matches('/').to_owned(),
            limits: Limits::default(),
        }
    }

    /// Reads a map of environment variables. Other names than those of a storage are ignored; a name that belongs to
    /// a storage and is not supported is refused, because ignoring it would put data elsewhere or in clear.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> StoreResult<Self> {
        let get = |name: &str| variables.get(name).map(|v| v.trim()).filter(|v| !v.is_empty());
        refuse_unsupported(variables)?;
        let prefixes: Vec<(&str, &str)> = ["WALG_S3_PREFIX", "WALE_S3_PREFIX"]
            .into_iter()
            .filter_map(|name| get(name).map(|value| (name, value)))
            .collect();
        if let Some(folder) = get("WALG_FILE_PREFIX") {
            if let Some((name, _)) = prefixes.first() {
                return Err(setting(
                    name,
                    "WALG_FILE_PREFIX is set as well; only one storage can be meant",
                ));
            }
            let folder = PathBuf::from(folder.strip_prefix("file://").unwrap_or(folder));
            if !folder.is_absolute() {
                return Err(setting("WALG_FILE_PREFIX", "the path must be absolute"));
            }
            return Ok(Self::new(Place::Directory(folder), ""));
        }
        let (bucket, prefix) = match (prefixes.first(), get("WAL_S3_BUCKET")) {
            (Some((name, url)), _) => split_url(name, url)?,
            (None, Some(bucket)) => (bucket.to_owned(), String::new()),
            (None, None) => return Err(StoreError::NotConfigured),
        };
        if bucket.is_empty() || bucket.contains(['/', ':', '?', '#', '%', ' ']) {
            return Err(setting(
                "WAL_S3_BUCKET",
                &format!("\"{bucket}\" is not the name of a bucket"),
            ));
        }
        let endpoint = get("AWS_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned());
        if let Some(url) = &endpoint
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return Err(setting(
                "AWS_ENDPOINT",
                "the value must begin with http:// or https://",
            ));
        }
        let path_style = match get("AWS_S3_FORCE_PATH_STYLE") {
            // Nearly every server that is not Amazon's wants the bucket in the path.
            None => endpoint.is_some(),
            Some(text) => parse_bool("AWS_S3_FORCE_PATH_STYLE", text)?,
        };
        let s3 = S3Config {
            path_style,
            region: get("AWS_REGION")
                .or_else(|| get("AWS_DEFAULT_REGION"))
                .unwrap_or("us-east-1")
                .to_owned(),
            credentials: credentials(get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"))?,
            session_token: get("AWS_SESSION_TOKEN").map(Secret::new),
            web_identity: get("AWS_ROLE_ARN")
                .zip(get("AWS_WEB_IDENTITY_TOKEN_FILE"))
                .map(|(role, file)| (role.to_owned(), file.to_owned())),
            ca_file: get("WALG_S3_CA_CERT_FILE").map(PathBuf::from),
            storage_class: get("WALG_S3_STORAGE_CLASS").map(str::to_owned),
            encryption: encryption(get("WALG_S3_SSE"))?,
            kms_key: get("WALG_S3_SSE_KMS_ID").map(str::to_owned),
            ..S3Config::new(bucket, endpoint)
        };
        if s3.encryption.as_deref() == Some("aws:kms") && s3.kms_key.is_none() {
            return Err(setting("WALG_S3_SSE", "aws:kms needs WALG_S3_SSE_KMS_ID"));
        }
        Ok(Self::new(Place::S3(Box::new(s3)), &prefix))
    }

    /// Name of the bucket, or the path of the directory.
    pub fn bucket(&self) -> String {
        match &self.place {
            Place::S3(s3) => s3.bucket.clone(),
            Place::Directory(path) => path.display().to_string(),
        }
    }
}

fn refuse_unsupported(variables: &BTreeMap<String, String>) -> StoreResult<()> {
    for (name, _) in variables.iter().filter(|(_, value)| !value.trim().is_empty()) {
        for (refused, problem) in REFUSED {
            if name.starts_with(refused) {
                return Err(StoreError::Unsupported {
                    name: name.clone(),
                    problem,
                });
            }
        }
        if name.starts_with("WALG_S3_") && !KNOWN_S3.contains(&name.as_str()) {
            return Err(StoreError::Unsupported {
                name: name.clone(),
                problem: "this option of wal-g for S3",
            });
        }
    }
    Ok(())
}

fn setting(name: &str, problem: &str) -> StoreError {
    StoreError::Setting {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}

fn split_url(name: &str, url: &str) -> StoreResult<(String, String)> {
    let rest = url
        .strip_prefix("s3://")
        .ok_or_else(|| setting(name, "the value must be s3://bucket or s3://bucket/path"))?;
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((bucket.to_owned(), path.trim_matches('/').to_owned()))
}

fn parse_bool(name: &str, text: &str) -> StoreResult<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(setting(name, "the value must be true or false")),
    }
}

fn credentials(key: Option<&str>, secret: Option<&str>) -> StoreResult<Option<(String, Secret)>> {
    match (key, secret) {
        (Some(key), Some(secret)) => Ok(Some((key.to_owned(), Secret::new(secret)))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(setting(
            "AWS_SECRET_ACCESS_KEY",
            "missing, though AWS_ACCESS_KEY_ID is set",
        )),
        (None, Some(_)) => Err(setting(
            "AWS_ACCESS_KEY_ID",
            "missing, though AWS_SECRET_ACCESS_KEY is set",
        )),
    }
}

fn encryption(text: Option<&str>) -> StoreResult<Option<String>> {
    match text {
        None | Some("AES256" | "aws:kms") => Ok(text.map(str::to_owned)),
        Some(_) => Err(setting("WALG_S3_SSE", "the value must be AES256 or aws:kms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> StoreResult<StoreConfig> {
        let map = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        StoreConfig::from_variables(&map)
    }

    fn message(pairs: &[(&str, &str)]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn spilo_and_wal_g_name_the_same_bucket() {
        let Place::S3(spilo) = read(&[("WAL_S3_BUCKET", "pg"), ("AWS_ENDPOINT", "http://s3:7070/")])
            .unwrap()
            .place
        else {
            panic!("not S3")
        };
        assert_eq!(
            (spilo.bucket.as_str(), spilo.endpoint.as_deref()),
            ("pg", Some("http://s3:7070"))
        );
        assert!(spilo.path_style && spilo.region == "us-east-1");
        let both = read(&[("WAL_S3_BUCKET", "other"), ("WALG_S3_PREFIX", "s3://pg/a/b/")]).unwrap();
        assert_eq!((both.bucket().as_str(), both.prefix.as_str()), ("pg", "a/b"));
    }

    #[test]
    fn nothing_configured_names_the_variables() {
        assert_eq!(
            message(&[("PATH", "/bin"), ("WAL_S3_BUCKET", " ")]),
            "no storage is configured: set one of WALG_S3_PREFIX, WAL_S3_BUCKET or WALG_FILE_PREFIX"
        );
    }

    #[test]
    fn what_would_be_ignored_silently_is_refused() {
        for name in [
            "WALG_LIBSODIUM_KEY_PATH",
            "WALG_PGP_KEY",
            "WALG_GS_PREFIX",
            "WALG_S3_SSE_C",
            "S3_RETENTION_PERIOD",
        ] {
            let text = message(&[("WAL_S3_BUCKET", "pg"), (name, "value-of-it")]);
            assert!(text.starts_with(name) && !text.contains("value-of-it"), "{text}");
        }
    }

    #[test]
    fn wrong_values_name_their_variable() {
        for (name, value) in [
            ("WALG_S3_PREFIX", "pg/a"),
            ("AWS_ENDPOINT", "s3:7070"),
            ("AWS_S3_FORCE_PATH_STYLE", "maybe"),
            ("WALG_S3_SSE", "rot13"),
            ("WALG_FILE_PREFIX", "relative/path"),
        ] {
            let text = message(&[("WAL_S3_BUCKET", "pg"), (name, value)]);
            assert!(text.starts_with(name), "{text}");
        }
        assert!(
            message(&[("WAL_S3_BUCKET", "pg"), ("AWS_ACCESS_KEY_ID", "k")]).contains("AWS_SECRET_ACCESS_KEY")
        );
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let config = read(&[
            ("WAL_S3_BUCKET", "pg"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "hush-1"),
            ("AWS_SESSION_TOKEN", "hush-2"),
        ]);
        assert!(!format!("{:?}", config.unwrap()).contains("hush"));
    }
}
