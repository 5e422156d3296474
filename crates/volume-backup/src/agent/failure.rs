//! From any error to one line and an exit code.

use std::error::Error;

use holdfast_fault::{Class, Fault};
use holdfast_kopia::KopiaError;
use holdfast_store::StoreError;

/// Exit code when all was done.
pub(super) const DONE: u8 = 0;
/// Exit code of a failure that may pass.
pub(super) const TRANSIENT: u8 = 1;
/// Exit code of a failure that stays until somebody changes something; clap's own code for wrong arguments.
pub(super) const PERMANENT: u8 = 2;
/// Exit code when the work was done, but not for everything.
pub(super) const PARTIAL: u8 = 3;
/// Exit code after a signal.
pub(super) const STOPPED: u8 = 4;

/// Why the agent failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) code: u8,
}

impl Failure {
    /// A failure that trying again does not help.
    pub(super) fn permanent(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            code: PERMANENT,
        }
    }

    /// A failure of this machine that may pass.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self {
            reason: "Internal",
            message: message.into(),
            code: TRANSIENT,
        }
    }

    fn of(error: &impl Fault) -> Self {
        let code = match error.class() {
            Class::Transient | Class::Conflict => TRANSIENT,
            Class::Invalid | Class::Denied => PERMANENT,
        };
        Self {
            reason: error.reason(),
            message: chain(error),
            code,
        }
    }
}

impl From<KopiaError> for Failure {
    fn from(error: KopiaError) -> Self {
        let code = matches!(error, KopiaError::Cancelled).then_some(STOPPED);
        let failure = Self::of(&error);
        Self {
            code: code.unwrap_or(failure.code),
            ..failure
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(&error)
    }
}

/// An error with its causes in one line, none of them twice.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    // A path may hold a line feed.
    text.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whether_trying_again_may_help() {
        let unavailable = KopiaError::from(StoreError::Unavailable {
            action: "read",
            location: "s3://b/x".to_owned(),
            attempts: 3,
            elapsed: std::time::Duration::from_secs(2),
            detail: "HTTP 503".to_owned(),
        });
        assert_eq!(Failure::from(unavailable).code, TRANSIENT);
        assert_eq!(Failure::from(KopiaError::Cancelled).code, STOPPED);
        let wrong = KopiaError::WrongPassword {
            location: "s3://b".to_owned(),
        };
        let failure = Failure::from(wrong);
        assert_eq!(
            (failure.reason, failure.code),
            ("RepositoryPasswordWrong", PERMANENT)
        );
    }

    #[test]
    fn a_message_is_one_line() {
        let error = KopiaError::Io {
            action: "cannot read",
            path: "/a\nb".into(),
            source: std::io::Error::other("no"),
        };
        let text = Failure::from(error).message;
        assert!(!text.contains('\n') && text.ends_with("no"), "{text}");
    }
}
