//! Entries as JSON. Written by hand: serde's strings cannot be the bytes that are no UTF-8.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::entry::{DirEntry, EntryKind};
use super::name::EntryName;
use super::time::UtcTime;
use crate::error::KopiaResult;
use crate::json;

impl DirEntry {
    /// Appends the JSON that kopia writes for it.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) -> KopiaResult<()> {
        let mut fields = Fields { out, first: true };
        if !self.name.as_bytes().is_empty() {
            json::write_string(fields.begin("name"), self.name.as_bytes());
        }
        if self.kind != EntryKind::Unknown {
            fields.string("type", self.kind.letter());
        }
        if !self.permissions.is_none() {
            fields.string("mode", self.permissions);
        }
        fields.number("size", self.size);
        if self.mtime != UtcTime::default() {
            fields.string("mtime", self.mtime);
        }
        fields.number("uid", self.uid.into());
        fields.number("gid", self.gid.into());
        match &self.object {
            Some(object) => fields.string("obj", object),
            None => fields.string("obj", ""),
        }
        if let Some(summary) = &self.summary {
            let summary = json::to_vec(summary)?;
            fields.begin("summ").extend_from_slice(&summary);
        }
        for (name, value) in self.extra.iter().flat_map(|extra| extra.iter()) {
            let value = json::to_vec(value)?;
            fields.begin(name).extend_from_slice(&value);
        }
        fields.out.push(b'}');
        Ok(())
    }
}

struct Fields<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Fields<'_> {
    /// Begins a field; the value is to follow.
    fn begin(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(if self.first { b'{' } else { b',' });
        self.first = false;
        json::write_string(self.out, name.as_bytes());
        self.out.push(b':');
        self.out
    }

    /// A value that needs no escapes.
    fn string(&mut self, name: &str, value: impl fmt::Display) {
        let out = self.begin(name);
        // Writing to memory does not fail.
        let _ = write!(out, "\"{value}\"");
    }

    /// A number, unless it is 0.
    fn number(&mut self, name: &str, value: u64) {
        if value != 0 {
            let out = self.begin(name);
            let _ = write!(out, "{value}");
        }
    }
}

impl Serialize for DirEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        self.write_json(&mut out).map_err(S::Error::custom)?;
        let text = String::from_utf8(out).map_err(S::Error::custom)?;
        RawValue::from_string(text)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DirEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = DirEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry of a directory")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DirEntry, A::Error> {
        let mut entry = DirEntry::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "name" => entry.name = map.next_value::<EntryName>()?,
                "type" => entry.kind = EntryKind::from_letter(&map.next_value::<Cow<'de, str>>()?),
                "mode" => entry.permissions = map.next_value()?,
                "size" => entry.size = map.next_value()?,
                "mtime" => entry.mtime = map.next_value()?,
                "uid" => entry.uid = map.next_value()?,
                "gid" => entry.gid = map.next_value()?,
                "obj" => {
                    let text = map.next_value::<Cow<'de, str>>()?;
                    entry.object = match &*text {
                        "" => None,
                        text => Some(text.parse().map_err(A::Error::custom)?),
                    };
                }
                "summ" => entry.summary = map.next_value()?,
                _ => {
                    let value = map.next_value()?;
                    entry
                        .extra
                        .get_or_insert_default()
                        .insert(key.into_owned(), value);
                }
            }
        }
        Ok(entry)
    }
}
