//! Field managers: who wrote which field.

use std::fmt;

/// The name under which the API server records who owns a field: `holdfast/<controller>/<concern>`.
///
/// One for each controller and purpose, a constant:
///
/// ```
/// use holdfast_status::FieldManager;
/// const STATUS: FieldManager = FieldManager::new("pg-backup", "status");
/// assert_eq!(STATUS.to_string(), "holdfast/pg-backup/status");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldManager {
    owner: &'static str,
    controller: &'static str,
    concern: &'static str,
}

/// What the API server accepts as a field manager, in bytes.
const LIMIT: usize = 128;

impl FieldManager {
    /// Names a manager of this project. Meant for constants, so that a bad name does not compile.
    ///
    /// # Panics
    /// If a part is empty or is anything but `a-z`, `0-9`, `-` and `.`, or if the whole is longer than 128 bytes.
    #[must_use]
    pub const fn new(controller: &'static str, concern: &'static str) -> Self {
        Self::owned("holdfast", controller, concern)
    }

    /// Names a manager of another project, `<owner>/<controller>/<concern>`.
    ///
    /// # Panics
    /// As [`FieldManager::new`].
    #[must_use]
    pub const fn owned(owner: &'static str, controller: &'static str, concern: &'static str) -> Self {
        assert!(
            is_word(owner) && is_word(controller) && is_word(concern),
            "a part of a field manager is a word"
        );
        assert!(
            owner.len() + controller.len() + concern.len() + 2 <= LIMIT,
            "a field manager has at most 128 bytes"
        );
        Self {
            owner,
            controller,
            concern,
        }
    }

    /// The controller, for instance as a metric label.
    #[must_use]
    pub const fn controller(&self) -> &'static str {
        self.controller
    }

    /// What the controller writes under this name.
    #[must_use]
    pub const fn concern(&self) -> &'static str {
        self.concern
    }
}

impl fmt::Display for FieldManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.owner, self.controller, self.concern)
    }
}

const fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.') {
            return false;
        }
        at += 1;
    }
    at > 0
}
