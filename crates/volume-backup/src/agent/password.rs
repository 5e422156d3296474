//! The password of the repository.

use std::path::Path;

use holdfast_runtime::environment::Environment;
use holdfast_store::Secret;

use super::failure::Failure;

/// Where the password of the repository is when no file is named.
pub(super) const PASSWORD: &str = "VOLUME_BACKUP_PASSWORD";
/// No password is longer.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// The password of the repository: from the file, else from the environment. Velero cuts white space off, and so do we.
pub(super) fn password(environment: &Environment, file: Option<&Path>) -> Result<Secret, Failure> {
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
        None => environment.get(PASSWORD).unwrap_or_default().to_owned(),
    };
    match text.trim() {
        "" => Err(Failure::permanent(
            "PasswordMissing",
            format!("the password of the repository is missing: use --password-file or {PASSWORD}"),
        )),
        password => Ok(Secret::new(password)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_before_the_environment_and_white_space_is_cut() {
        let environment = Environment::from([(PASSWORD, "of the environment")].as_slice());
        assert_eq!(
            password(&environment, None).unwrap().expose(),
            "of the environment"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, " of the file \n").unwrap();
        assert_eq!(
            password(&environment, Some(&file)).unwrap().expose(),
            "of the file"
        );
        std::fs::write(&file, "\n").unwrap();
        let failure = password(&environment, Some(&file)).unwrap_err();
        assert_eq!(failure.reason, "PasswordMissing");
    }
}
