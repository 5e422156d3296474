//! Credentials from a shared credentials file, read again when the file changes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

use crate::error::{StoreError, StoreResult};

/// A section of a file as the AWS command line has it; Velero mounts one and names it in
/// `AWS_SHARED_CREDENTIALS_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsFile {
    /// The file. It may be replaced at any time, as Kubernetes does with the files of a mounted Secret.
    pub path: PathBuf,
    /// The section; `default` unless told otherwise.
    pub profile: String,
}

/// What tells one version of a file from another: device, inode, size, time of change.
type Version = (u64, u64, u64, i64, i64);

/// No credentials file is larger; one that is, is another file.
const LIMIT: u64 = 1 << 20;

/// What a profile is, once read.
#[derive(Debug)]
pub(crate) enum Profile {
    /// Access key, secret key, and perhaps a session token.
    Keys(AwsCredential),
    /// ARN of the role, file with the token.
    WebIdentity(String, String),
}

/// Credentials that follow the file.
pub(crate) struct FileCredentials {
    file: CredentialsFile,
    known: Mutex<(Version, Arc<AwsCredential>)>,
}

impl std::fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileCredentials").field(&self.file).finish()
    }
}

impl FileCredentials {
    /// Begins with `credential`, which `version` of the file held.
    pub(crate) fn new(file: CredentialsFile, version: Version, credential: AwsCredential) -> Self {
        Self {
            file,
            known: Mutex::new((version, Arc::new(credential))),
        }
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match changed(&self.file, known.0) {
            Ok(None) => {}
            Ok(Some((version, Profile::Keys(credential)))) => {
                tracing::info!(path = %self.file.path.display(), "the credentials changed");
                *known = (version, Arc::new(credential));
            }
            // The old ones may be good still; if not, the storage says so.
            Ok(Some((version, Profile::WebIdentity(..)))) => {
                tracing::warn!(path = %self.file.path.display(), "the credentials became a role; restart to use it");
                known.0 = version;
            }
            Err(error) => tracing::warn!(%error, "the credentials cannot be read again"),
        }
        Arc::clone(&known.1)
    }
}

#[async_trait]
impl CredentialProvider for FileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // A look at one local file; nothing that deserves a thread.
        Ok(self.current())
    }
}

/// The profile and the version of the file it was read from.
pub(crate) fn read(file: &CredentialsFile) -> StoreResult<(Version, Profile)> {
    let failed = |error: std::io::Error| problem(file, &error.to_string());
    let version = version(&file.path).map_err(failed)?;
    if version.2 > LIMIT {
        return Err(problem(file, "too large to be a file of credentials"));
    }
    let text = std::fs::read_to_string(&file.path).map_err(failed)?;
    Ok((version, profile(&text, file)?))
}

fn changed(file: &CredentialsFile, known: Version) -> StoreResult<Option<(Version, Profile)>> {
    match version(&file.path) {
        Ok(now) if now == known => Ok(None),
        _ => read(file).map(Some),
    }
}

fn version(path: &Path) -> std::io::Result<Version> {
    let meta = std::fs::metadata(path)?;
    let (seconds, nanoseconds) = (meta.ctime(), meta.ctime_nsec());
    Ok((meta.dev(), meta.ino(), meta.size(), seconds, nanoseconds))
}

fn problem(file: &CredentialsFile, problem: &str) -> StoreError {
    StoreError::Setting {
        name: format!("credentials file {}", file.path.display()),
        problem: problem.to_owned(),
    }
}

/// Reads the section. The crates for INI files know neither that names of sections may begin with `profile` nor that
/// an indented line belongs to the one before, both of which this kind of file has.
fn profile(text: &str, file: &CredentialsFile) -> StoreResult<Profile> {
    let wrong = |text: String| problem(file, &text);
    let mut values: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.trim_start_matches('\u{feff}').lines() {
        let nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split(']').next().unwrap_or(rest).trim();
            let name = name.strip_prefix("profile ").map_or(name, str::trim);
            inside = name == file.profile;
            if inside {
                values.get_or_insert_default();
            }
        } else if let (true, false, Some((name, value))) = (inside, nested, line.split_once('=')) {
            let value = value.split(" #").next().unwrap_or(value).trim();
            if let Some(values) = &mut values {
                values.insert(name.trim().to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    let Some(mut values) = values else {
        return Err(wrong(format!("there is no profile \"{}\"", file.profile)));
    };
    let mut take = |name: &str| values.remove(name).filter(|value| !value.is_empty());
    match (take("aws_access_key_id"), take("aws_secret_access_key")) {
        (Some(key_id), Some(secret_key)) => Ok(Profile::Keys(AwsCredential {
            key_id,
            secret_key,
            token: take("aws_session_token"),
        })),
        (None, None) => match (take("role_arn"), take("web_identity_token_file")) {
            (Some(role), Some(token)) => Ok(Profile::WebIdentity(role, token)),
            (Some(_), None) => Err(wrong(format!(
                "profile \"{}\" takes on a role by another profile, which is not supported; give it a \
                 web_identity_token_file or keys",
                file.profile
            ))),
            _ => Err(wrong(format!("profile \"{}\" has no keys", file.profile))),
        },
        (None, Some(_)) => Err(wrong(format!(
            "profile \"{}\" has no aws_access_key_id",
            file.profile
        ))),
        (Some(_), None) => Err(wrong(format!(
            "profile \"{}\" has no aws_secret_access_key",
            file.profile
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "# a comment\n[default]\naws_access_key_id = one\naws_secret_access_key=hush=1\n\n\
        [ profile  other ]\nregion = x\nAWS_ACCESS_KEY_ID=two # mine\naws_secret_access_key = hush2\n\
        aws_session_token=tok\ns3 =\n  aws_access_key_id = nested\n[role]\nrole_arn = arn:a\n\
        web_identity_token_file = /t\n[chain]\nrole_arn=arn:b\nsource_profile=default\n[half]\naws_access_key_id=x\n";

    fn file(profile: &str) -> CredentialsFile {
        CredentialsFile {
            path: "/credentials/cloud".into(),
            profile: profile.to_owned(),
        }
    }

    fn keys(text: &str, name: &str) -> (String, String, Option<String>) {
        match profile(text, &file(name)).unwrap() {
            Profile::Keys(found) => (found.key_id, found.secret_key, found.token),
            other @ Profile::WebIdentity(..) => panic!("{other:?}"),
        }
    }

    #[test]
    fn profiles_are_read_as_the_command_line_does() {
        assert_eq!(keys(FILE, "default"), ("one".into(), "hush=1".into(), None));
        assert_eq!(
            keys(FILE, "other"),
            ("two".into(), "hush2".into(), Some("tok".into()))
        );
        let role = profile(FILE, &file("role")).unwrap();
        assert!(matches!(&role, Profile::WebIdentity(role, token) if role == "arn:a" && token == "/t"));
        for (name, text) in [
            ("chain", "not supported"),
            ("half", "no aws_secret_access_key"),
            ("nobody", "no profile"),
        ] {
            let error = profile(FILE, &file(name)).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains("hush"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloud");
        let write = |key: &str| {
            // As Kubernetes does: a new file takes the name of the old one.
            let next = folder.path().join("next");
            std::fs::write(
                &next,
                format!("[default]\naws_access_key_id={key}\naws_secret_access_key=s\n"),
            )
            .unwrap();
            std::fs::rename(next, &path).unwrap();
        };
        write("one");
        let file = CredentialsFile {
            path: path.clone(),
            profile: "default".to_owned(),
        };
        let (version, Profile::Keys(credential)) = read(&file).unwrap() else {
            panic!("no keys");
        };
        let provider = FileCredentials::new(file, version, credential);
        assert_eq!(provider.get_credential().await.unwrap().key_id, "one");
        write("two");
        assert_eq!(provider.get_credential().await.unwrap().key_id, "two");
        // While it is away or half written, what was known goes on.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(provider.get_credential().await.unwrap().key_id, "two");
        std::fs::write(&path, "[default]\naws_access_key_id=three").unwrap();
        assert_eq!(provider.get_credential().await.unwrap().key_id, "two");
        write("four");
        assert_eq!(provider.get_credential().await.unwrap().key_id, "four");
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "(\\PC|\\n|\\[|\\]|=|default){0,80}") {
            let _ = profile(&text, &file("default"));
        }
    }
}
