//! The environment: the storage's variables and the password, read in one place.

use std::collections::BTreeMap;

use holdfast_walg::replication::Password;

/// Variables of the process. It does not show its values.
pub(super) struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Reads everything that is text; which names mean a storage is known to holdfast-store alone.
    pub(super) fn read() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The password of the database user, as libpq takes it.
    pub(super) fn password(&self) -> Option<Password> {
        let password = self.0.get("PGPASSWORD").filter(|password| !password.is_empty());
        password.cloned().map(Password::from)
    }
}

#[cfg(test)]
impl From<BTreeMap<String, String>> for Environment {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }
}
