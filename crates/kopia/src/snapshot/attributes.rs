//! What kopia does not keep of an entry: extended attributes (access control lists are such), and which names are one
//! file.
//!
//! It is a field of our own in the object of a directory: in the entry of a file or symlink, and beside the entries for
//! the directory itself. Go leaves out fields that it does not know, so kopia lists, verifies and restores such a tree as
//! if the field were not there, and keeps it as long as the directory; see decision 8.
//!
//! ```json
//! "holdfast":{"v":1,"xattrs":{"user.color":"Z3JlZW4="},"link":{"id":"2a","names":2}}
//! ```

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::Value;

use super::entry::DirEntry;
use crate::error::{KopiaError, KopiaResult};

/// Name of the field.
pub(super) const FIELD: &str = "holdfast";

/// The version that is written and read.
const VERSION: u64 = 1;

/// Bytes of all names and values of one entry. Linux has at most 64 KiB of names and 64 KiB in each value; ext4 as it
/// usually is has 4 KiB for everything.
pub const MAX_ATTRIBUTE_BYTES: usize = 256 << 10;

/// The longest name that Linux knows.
const MAX_NAME: usize = 255;

/// The longest identity that makes sense: two numbers of 64 bits and what is between them.
const MAX_ID: usize = 64;

/// Extended attributes of an entry, and which file it is a name of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedAttributes {
    /// Values by name, such as `user.color` or `system.posix_acl_access`.
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Set if the file had several names.
    pub link: Option<HardLink>,
}

/// Says which file an entry is a name of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HardLink {
    /// The same for all names of one file in one snapshot; it means nothing else.
    pub id: String,
    /// How many names the file had, whether in the snapshot or not.
    pub names: u64,
}

/// Whether an attribute is kept in snapshots. Those of other namespaces are made by the file system itself, and
/// `security.evm` is a code of the number of the inode, too, which another inode does not have.
pub fn is_kept(name: &[u8]) -> bool {
    let has_namespace = |namespace: &&[u8]| name.len() > namespace.len() && name.starts_with(namespace);
    let namespaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let is_kept = namespaces.iter().any(has_namespace) && name != b"security.evm";
    is_kept || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

impl ExtendedAttributes {
    /// Whether there is nothing to be kept.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.link.is_none()
    }

    /// The value of the field as JSON; the same bytes for the same attributes.
    pub fn to_json(&self) -> Vec<u8> {
        let values = (!self.values.is_empty()).then(|| values_json(&self.values));
        field_json(values.as_deref(), self.link.as_ref())
    }

    /// The attributes of an entry as its directory has them; none if there are none. Directories have theirs in their own
    /// object, see [`DirectoryStream::own_attributes`](super::DirectoryStream::own_attributes).
    ///
    /// # Errors
    ///
    /// [`KopiaError::Unsupported`] for a version that is not known, [`KopiaError::Corrupt`] for what is not as it must be.
    pub fn of_entry(entry: &DirEntry) -> KopiaResult<Option<Self>> {
        let field = entry.extra.as_ref().and_then(|extra| extra.get(FIELD));
        field.map(Self::from_json).transpose()
    }

    /// Reads the value of the field.
    pub(super) fn from_json(field: &Value) -> KopiaResult<Self> {
        let version = field.get("v").and_then(Value::as_u64);
        match version {
            Some(VERSION) => Self::read(field)
                .map_err(|problem| KopiaError::corrupt("the record of extended attributes", problem)),
            Some(version) => Err(KopiaError::Unsupported {
                feature: format!("version {version} of extended attributes"),
                detail: format!(
                    "this program knows version {VERSION}; restore with a newer one, or without extended attributes"
                ),
            }),
            None => Err(KopiaError::corrupt(
                "the record of extended attributes",
                "it has no version",
            )),
        }
    }

    fn read(field: &Value) -> Result<Self, String> {
        let mut read = Self::default();
        let none = serde_json::Map::new();
        let values = match field.get("xattrs") {
            None => &none,
            Some(values) => values.as_object().ok_or("its attributes are no object")?,
        };
        let mut bytes = 0;
        for (name, value) in values {
            let name = unescape(name).filter(|name| name.len() <= MAX_NAME && !name.contains(&0));
            let name = name
                .filter(|name| is_kept(name))
                .ok_or("one has a name that none can have")?;
            let value = value
                .as_str()
                .ok_or_else(|| "a value is no text".to_owned())
                .and_then(|value| BASE64.decode(value.as_bytes()).map_err(|error| error.to_string()))?;
            bytes += name.len() + value.len();
            if bytes > MAX_ATTRIBUTE_BYTES {
                return Err(format!("it has more than {MAX_ATTRIBUTE_BYTES} bytes"));
            }
            read.values.insert(name, value);
        }
        if let Some(link) = field.get("link") {
            let link = HardLink::deserialize(link).map_err(|error| error.to_string())?;
            if link.id.is_empty() || link.id.len() > MAX_ID {
                return Err("it names no file".to_owned());
            }
            read.link = Some(link);
        }
        Ok(read)
    }
}

/// Values by name, as JSON.
pub(crate) fn values_json(values: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut json = Vec::new();
    for (name, value) in values {
        json.push(if json.is_empty() { b'{' } else { b',' });
        json.push(b'"');
        escape(name, &mut json);
        json.extend_from_slice(b"\":\"");
        json.extend_from_slice(BASE64.encode(value).as_bytes());
        json.push(b'"');
    }
    json.extend_from_slice(if json.is_empty() { b"{}" } else { b"}" });
    json
}

/// The value of the field, of values that are JSON already.
pub(crate) fn field_json(values: Option<&[u8]>, link: Option<&HardLink>) -> Vec<u8> {
    let mut json = format!("{{\"v\":{VERSION}").into_bytes();
    if let Some(values) = values {
        json.extend_from_slice(b",\"xattrs\":");
        json.extend_from_slice(values);
    }
    if let Some(HardLink { id, names }) = link {
        json.extend_from_slice(b",\"link\":{\"id\":");
        crate::json::write_string(&mut json, id.as_bytes());
        json.extend_from_slice(format!(",\"names\":{names}}}").as_bytes());
    }
    json.push(b'}');
    json
}

/// Names are bytes to Linux: what is no plain character of ASCII, and what JSON or Go would escape, is written as `%41`.
fn escape(name: &[u8], json: &mut Vec<u8>) {
    for byte in name {
        match byte {
            b'%' | b'"' | b'\\' | b'<' | b'>' | b'&' => {
                json.extend_from_slice(format!("%{byte:02x}").as_bytes());
            }
            b'!'..=b'~' => json.push(*byte),
            _ => json.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len().min(MAX_NAME));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let value = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?;
            name.extend(value);
        } else {
            name.push(byte);
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hostile::{self, Bound};

    fn sample() -> ExtendedAttributes {
        ExtendedAttributes {
            values: BTreeMap::from([
                (b"user.color".to_vec(), b"green".to_vec()),
                (b"user.\xff%\" <".to_vec(), Vec::new()),
                (b"system.posix_acl_access".to_vec(), vec![2, 0, 0, 0]),
            ]),
            link: Some(HardLink {
                id: "2a".to_owned(),
                names: 2,
            }),
        }
    }

    #[expect(clippy::unwrap_in_result, reason = "a helper of tests")]
    fn read(json: &[u8]) -> KopiaResult<ExtendedAttributes> {
        ExtendedAttributes::from_json(&serde_json::from_slice(json).unwrap())
    }

    #[test]
    fn hostile_fields_are_harmless() {
        let golden = sample().to_json();
        hostile::check(&[&golden], Bound::new(4096, 100), |json| {
            if let Ok(field) = serde_json::from_slice(json) {
                drop(ExtendedAttributes::from_json(&field));
            }
        });
    }

    #[test]
    fn what_is_written_stays_as_it_is_for_ever() {
        // Snapshots have it.
        let json = r#"{"v":1,"xattrs":{"system.posix_acl_access":"AgAAAA==","user.color":"Z3JlZW4=","user.%ff%25%22%20%3c":""},"link":{"id":"2a","names":2}}"#;
        assert_eq!(String::from_utf8(sample().to_json()).unwrap(), json);
        assert_eq!(read(json.as_bytes()).unwrap(), sample());
        assert_eq!(ExtendedAttributes::default().to_json(), b"{\"v\":1}");
    }

    #[test]
    fn what_is_unknown_or_damaged_is_an_error_that_says_so() {
        let error = read(br#"{"v":2,"new":[]}"#).unwrap_err();
        assert!(matches!(error, KopiaError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("version 2"), "{error}");
        let long = format!(r#"{{"v":1,"xattrs":{{"user.a":"{}"}}}}"#, "AAAA".repeat(90 << 10));
        for json in [
            "null",
            "{}",
            r#"{"v":"1"}"#,
            r#"{"v":1,"xattrs":[]}"#,
            r#"{"v":1,"xattrs":{"user.a":1}}"#,
            r#"{"v":1,"xattrs":{"user.a":"?"}}"#,
            r#"{"v":1,"xattrs":{"user.":""}}"#,
            r#"{"v":1,"xattrs":{"user.%00":""}}"#,
            r#"{"v":1,"xattrs":{"user.%f":""}}"#,
            r#"{"v":1,"xattrs":{"system.nfs4_acl":""}}"#,
            r#"{"v":1,"xattrs":{"security.evm":""}}"#,
            r#"{"v":1,"link":{"id":""}}"#,
            r#"{"v":1,"link":{"id":"","names":2}}"#,
            r#"{"v":1,"link":7}"#,
            &long,
        ] {
            let error = read(json.as_bytes()).unwrap_err();
            assert!(
                matches!(error, KopiaError::Corrupt { .. }),
                "{json:.100}: {error}"
            );
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let namespace = prop_oneof![Just("user."), Just("trusted."), Just("security.")];
        let rest = proptest::collection::vec(1_u8.., 1..30);
        (namespace, rest)
            .prop_map(|(namespace, rest)| [namespace.as_bytes(), &rest].concat())
            .prop_filter("is never kept", |name| is_kept(name))
    }

    proptest! {
        #[test]
        fn everything_comes_back(
            values in proptest::collection::btree_map(name(), any::<Vec<u8>>(), 0..5),
            link: Option<(u64, u64)>,
        ) {
            let link = link.map(|(id, names)| HardLink { id: format!("{id:x}"), names });
            let attributes = ExtendedAttributes { values, link };
            prop_assert_eq!(read(&attributes.to_json()).unwrap(), attributes);
        }

        #[test]
        fn any_damage_is_harmless(at: proptest::sample::Index, byte: u8) {
            let mut json = sample().to_json();
            let at = at.index(json.len());
            json[at] = byte;
            if let Ok(value) = serde_json::from_slice::<Value>(&json)
                && let Ok(read) = ExtendedAttributes::from_json(&value)
            {
                let bytes: usize = read.values.iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert!(bytes <= json.len());
            }
        }

        #[test]
        fn any_text_is_harmless(text: String) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = ExtendedAttributes::from_json(&value);
            }
            let _ = unescape(&text);
        }
    }
}
