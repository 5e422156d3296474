//! The environment of a data-plane agent, read in one place.

use std::collections::BTreeMap;
use std::fmt;

/// Variables of the process. It does not show their values.
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Reads everything that is text.
    pub fn read() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// All variables, as they are.
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// A variable that is set to something, without white space around it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }
}

impl From<BTreeMap<String, String>> for Environment {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }
}

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
    fn what_is_empty_is_not_set_and_no_value_is_shown() {
        let environment = Environment::from([("A", " hush\n"), ("B", " ")].as_slice());
        assert_eq!((environment.get("A"), environment.get("B")), (Some("hush"), None));
        assert_eq!(environment.variables()["A"], " hush\n");
        assert_eq!(format!("{environment:?}"), r#"{"A", "B"}"#);
    }
}
