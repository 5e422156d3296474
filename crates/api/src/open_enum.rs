//! Enums that keep a word they do not know.

/// Defines an enum of strings that decodes every string.
///
/// A controller must not stop reading a kind because a newer release of its owner has one more phase, and must not
/// rewrite that phase into something else. So a word outside the list becomes `Unknown(word)` and is written back as it
/// came. The definition (CRD) lists the words after `: enum`, and says only `type: string` after `: string` or nothing.
/// A type with a natural default says `#[derive(Default)]` and marks the variant `#[default]`.
///
/// The generated type has `KNOWN` (the words, in order), `as_str`, `is_known`, and implements `AsRef<str>`, `Display`,
/// `From<&str>`, `From<String>`, `FromStr` (which cannot fail), `Serialize`, `Deserialize`, `JsonSchema`. Make values
/// from text by `From`: `Unknown("New".into())` written by hand is a different value than `New`.
///
/// ```
/// holdfast_api::open_enum! {
///     /// How a location may be used.
///     pub enum AccessMode: enum {
///         /// Backups are read only.
///         ReadOnly = "ReadOnly",
///         /// Backups are read and written.
///         ReadWrite = "ReadWrite",
///     }
/// }
/// assert_eq!(AccessMode::from("ReadOnly"), AccessMode::ReadOnly);
/// assert_eq!(AccessMode::from("WriteOnce").to_string(), "WriteOnce");
/// assert_eq!(AccessMode::KNOWN, ["ReadOnly", "ReadWrite"]);
/// ```
#[macro_export]
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident $(: $schema:tt)? {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
            /// A word that this release does not know, kept as it came.
            Unknown(::std::string::String),
        }

        impl $name {
            /// The words that this release knows, in the order of the definition.
            pub const KNOWN: &'static [&'static str] = &[$($text),+];

            /// The word as it stands in the object.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )+
                    Self::Unknown(word) => word,
                }
            }

            /// Whether this release knows the word.
            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Unknown(_))
            }
        }

        impl ::std::convert::From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $( $text => Self::$variant, )+
                    other => Self::Unknown(other.to_owned()),
                }
            }
        }

        impl ::std::convert::From<::std::string::String> for $name {
            fn from(word: ::std::string::String) -> Self {
                match word.as_str() {
                    $( $text => Self::$variant, )+
                    _ => Self::Unknown(word),
                }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = ::std::convert::Infallible;

            fn from_str(word: &str) -> ::std::result::Result<Self, Self::Err> {
                ::std::result::Result::Ok(Self::from(word))
            }
        }

        impl ::std::convert::AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl $crate::__private::serde::Serialize for $name {
            fn serialize<S: $crate::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                <::std::string::String as $crate::__private::serde::Deserialize>::deserialize(deserializer)
                    .map(Self::from)
            }
        }

        impl $crate::__private::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                ::std::stringify!($name).into()
            }

            fn json_schema(
                _: &mut $crate::__private::schemars::SchemaGenerator,
            ) -> $crate::__private::schemars::Schema {
                $crate::open_enum!(@schema $($schema)?)
            }
        }
    };
    (@schema enum) => {
        $crate::__private::schemars::json_schema!({ "type": "string", "enum": Self::KNOWN })
    };
    (@schema string) => {
        $crate::open_enum!(@schema)
    };
    (@schema) => {
        $crate::__private::schemars::json_schema!({ "type": "string" })
    };
}

#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the macro makes more than these tests use"
)]
mod tests {
    open_enum! {
        /// Listed in the definition.
        pub enum Listed: enum {
            /// The empty word is a word.
            Accepted = "",
            /// At work.
            Running = "running",
        }
    }
    open_enum! {
        /// Not listed in the definition.
        pub enum Free {
            /// The only known one.
            Csi = "CSI",
        }
    }

    #[test]
    fn a_known_word_is_its_variant() {
        let running: Listed = serde_json::from_str("\"running\"").unwrap();
        assert_eq!(running, Listed::Running);
        assert_eq!(serde_json::from_str::<Listed>("\"\"").unwrap(), Listed::Accepted);
        assert!(running.is_known());
    }

    #[test]
    fn an_unknown_word_survives_decoding_and_encoding() {
        let odd: Listed = serde_json::from_str("\"Paused\"").unwrap();
        assert_eq!(odd, Listed::Unknown("Paused".to_owned()));
        assert!(!odd.is_known());
        assert_eq!(serde_json::to_string(&odd).unwrap(), "\"Paused\"");
        assert_eq!(format!("{odd:>8}|{}", odd.as_ref()), "  Paused|Paused");
    }

    #[test]
    fn only_strings_decode() {
        assert!(serde_json::from_str::<Listed>("7").is_err());
        assert!(serde_json::from_str::<Listed>("null").is_err());
    }

    #[test]
    fn the_schema_lists_the_words_only_where_asked() {
        let listed = schemars::schema_for!(Listed).to_value();
        assert_eq!(listed["enum"], serde_json::json!(["", "running"]));
        let free = schemars::schema_for!(Free).to_value();
        assert_eq!((free["type"].as_str(), free.get("enum")), (Some("string"), None));
        assert_eq!(Free::from("CSI".to_owned()), Free::Csi);
    }
}
