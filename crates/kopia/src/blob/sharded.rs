//! How kopia's filesystem provider names the files of blobs.
//!
//! Blobs with short names lie in the folder itself, the others in folders named by the first characters of their
//! names, so that no folder grows too large. The file `.shards` says how many characters each level takes. Source:
//! `repo/blob/sharded` of kopia 0.21.1.

use serde::{Deserialize, Serialize};

use crate::error::{KopiaError, KopiaResult};

/// Key of the file that holds [`Parameters`].
pub(super) const PARAMETERS_FILE: &str = ".shards";

/// No such file is larger; one that is, is not ours.
pub(super) const PARAMETERS_LIMIT: u64 = 64 << 10;

/// What every file of a blob ends with; other files are not blobs.
const SUFFIX: &str = ".f";

/// Names up to this length, in bytes, are not sharded unless the file says otherwise.
const UNSHARDED_LENGTH: usize = 20;

/// What the file `.shards` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parameters {
    #[serde(default, rename = "default", deserialize_with = "null_is_empty")]
    shards: Vec<usize>,
    #[serde(default, rename = "maxNonShardedLength")]
    unsharded: usize,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    overrides: Vec<Override>,
}

/// Other levels for names that begin so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Override {
    prefix: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    shards: Vec<usize>,
}

/// Go writes an empty list as null.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Parameters {
    /// What kopia gives a repository that it creates.
    pub(super) fn for_new() -> Self {
        Self::of(vec![1, 3])
    }

    /// What kopia takes for a repository that has no such file: one made before the file existed.
    pub(super) fn for_old() -> Self {
        Self::of(vec![3, 3])
    }

    fn of(shards: Vec<usize>) -> Self {
        Self {
            shards,
            unsharded: UNSHARDED_LENGTH,
            overrides: Vec::new(),
        }
    }

    /// Reads the file.
    pub(super) fn parse(data: &[u8]) -> KopiaResult<Self> {
        serde_json::from_slice(data).map_err(|error| KopiaError::corrupt(PARAMETERS_FILE, error))
    }

    /// The file, as kopia writes it.
    pub(super) fn to_json(&self) -> KopiaResult<Vec<u8>> {
        let mut json =
            serde_json::to_vec(self).map_err(|error| KopiaError::corrupt(PARAMETERS_FILE, error))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Key of the file of a blob; none if its name cannot be cut where a level ends.
    pub(super) fn key(&self, name: &str) -> Option<String> {
        let mut key = String::with_capacity(name.len() + 8);
        let mut rest = name;
        if name.len() > self.unsharded {
            let exception = self.overrides.iter().find(|o| name.starts_with(&o.prefix));
            for &size in exception.map_or(&self.shards, |o| &o.shards) {
                if rest.len() <= size {
                    break;
                }
                // A level of no characters is no level.
                if size > 0 {
                    let (folder, below) = rest.split_at_checked(size)?;
                    key.push_str(folder);
                    key.push('/');
                    rest = below;
                }
            }
        }
        key.push_str(rest);
        key.push_str(SUFFIX);
        Some(key)
    }
}

/// Name of the blob in a file; none if the file is foreign.
pub(super) fn blob_name(key: &str) -> Option<String> {
    let name = key.strip_suffix(SUFFIX)?.replace('/', "");
    (!name.is_empty()).then_some(name)
}

/// Whether blobs whose name begins with `prefix` may lie in a folder.
pub(super) fn may_hold(folder: &str, prefix: &str) -> bool {
    let name = folder.replace('/', "");
    name.starts_with(prefix) || prefix.starts_with(&name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile::{self, Bound};

    fn key(parameters: &Parameters, name: &str) -> String {
        parameters.key(name).unwrap()
    }

    #[test]
    fn files_lie_where_kopia_looks_for_them() {
        let name = "foobarbaz12345678910123213123";
        assert_eq!(
            key(&Parameters::for_old(), name),
            "foo/bar/baz12345678910123213123.f"
        );
        assert_eq!(
            key(&Parameters::for_new(), name),
            "f/oob/arbaz12345678910123213123.f"
        );
        assert_eq!(
            key(&Parameters::for_new(), "kopia.repository"),
            "kopia.repository.f"
        );

        let json = br#"{"default":[3,2,1],"overrides":[{"prefix":"p","shards":[2,2]},
            {"prefix":"x","shards":[1,1,1]},{"prefix":"n","shards":null}],"maxNonShardedLength":2}"#;
        let parameters = Parameters::parse(json).unwrap();
        for (name, file) in [
            ("ab", "ab.f"),
            ("defaultsharded", "def/au/l/tsharded.f"),
            ("phello", "ph/el/lo.f"),
            ("xhello", "x/h/e/llo.f"),
            ("xo", "xo.f"),
            ("none", "none.f"),
        ] {
            assert_eq!(key(&parameters, name), file);
        }
        let short = Parameters::parse(br#"{"default":[3,0,3],"maxNonShardedLength":0}"#).unwrap();
        for (name, file) in [
            ("foo", "foo.f"),
            ("foob", "foo/b.f"),
            ("foobar", "foo/bar.f"),
            ("foobar2", "foo/bar/2.f"),
        ] {
            assert_eq!(key(&short, name), file);
        }
    }

    #[test]
    fn the_file_is_what_kopia_writes() {
        let json = Parameters::for_new().to_json().unwrap();
        assert_eq!(json, b"{\"default\":[1,3],\"maxNonShardedLength\":20}\n");
        assert_eq!(Parameters::parse(&json).unwrap(), Parameters::for_new());
        for wrong in ["", "7", "{\"default\":[-1]}", "\u{1}\u{2}"] {
            assert!(Parameters::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_name_comes_back_from_its_file(name in "[a-zéx0-9_.-]{1,60}", shards in prop::collection::vec(0_usize..5, 0..4)) {
            let parameters = Parameters { shards, unsharded: 3, overrides: Vec::new() };
            if let Some(key) = parameters.key(&name) {
                prop_assert_eq!(blob_name(&key), Some(name.clone()));
                let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
                for (end, _) in name.char_indices() {
                    prop_assert!(may_hold(folder, &name[..end]));
                }
            } else {
                prop_assert!(!name.is_ascii());
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(parameters) = Parameters::parse(&data) {
                parameters.key("q0123456789abcdef0123456789abcdef-s0");
            }
        }
    }

    #[test]
    fn hostile_parameters_and_names_are_harmless() {
        let overrides =
            br#"{"default":[3,2,1],"overrides":[{"prefix":"q","shards":[2,2]}],"maxNonShardedLength":2}"#;
        let golden = [
            &b"{\"default\":[1,3],\"maxNonShardedLength\":20}\n"[..],
            overrides,
        ];
        hostile::check(&golden, Bound::new(4096, 40), |data| {
            if let Ok(parameters) = Parameters::parse(data) {
                parameters.key("q0123456789abcdef0123456789abcdef-s0");
                drop(parameters.to_json());
            }
        });
        let names = [&b"f/oob/arbaz12345678910123213123.f"[..], b"kopia.repository.f"];
        hostile::check(&names, Bound::new(1024, 10), |name| {
            let name = String::from_utf8_lossy(name);
            blob_name(&name);
            may_hold(&name, "q0");
            may_hold("q/012", &name);
            Parameters::for_new().key(&name);
        });
    }
}
