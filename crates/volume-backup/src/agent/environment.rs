//! The environment: keys of the storage and the password, read in one place.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_store::Secret;

use super::failure::Failure;

/// Where the password of the repository is when no file is named.
pub(super) const PASSWORD: &str = "VOLUME_BACKUP_PASSWORD";
/// No password is longer.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// Variables of the process. It does not show their values.
pub(super) struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Reads everything that is text.
    pub(super) fn read() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// The password of the repository: from the file, else from the environment. Velero cuts white space off, and so do we.
    pub(super) fn password(&self, file: Option<&Path>) -> Result<Secret, Failure> {
        let text = match file {
            Some(path) => {
                let wrong = |problem: &dyn std::fmt::Display| {
                    let message = format!("cannot read the password from {}: {problem}", path.display());
                    Failure::permanent("PasswordMissing", message)
                };
                let size = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
                if size > PASSWORD_LIMIT {
                    return Err(wrong(&"the file is too large for a password"));
                }
                std::fs::read_to_string(path).map_err(|error| wrong(&error))?
            }
            None => self.get(PASSWORD).unwrap_or_default().to_owned(),
        };
        match text.trim() {
            "" => Err(Failure::permanent(
                "PasswordMissing",
                format!("the password of the repository is missing: use --password-file or {PASSWORD}"),
            )),
            password => Ok(Secret::new(password)),
        }
    }
}

#[cfg(test)]
impl From<&[(&str, &str)]> for Environment {
    fn from(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(variables.iter().map(owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_before_the_environment_and_white_space_is_cut() {
        let environment = Environment::from([(PASSWORD, "of the environment")].as_slice());
        assert_eq!(environment.password(None).unwrap().expose(), "of the environment");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, " of the file \n").unwrap();
        assert_eq!(environment.password(Some(&file)).unwrap().expose(), "of the file");
        std::fs::write(&file, "\n").unwrap();
        let failure = environment.password(Some(&file)).unwrap_err();
        assert_eq!(failure.reason, "PasswordMissing");
        assert!(!format!("{environment:?}").contains("of the environment"));
    }
}
