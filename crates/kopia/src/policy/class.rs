//! Classes of characters in patterns.

/// A class, like `[:alpha:]`.
///
/// kopia asks Unicode's general categories; the standard library has properties that differ in a few characters beyond
/// ASCII (letters that are numbers, marks, symbols). Those few are in neither or both of some classes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Alnum,
    Alpha,
    Ascii,
    Blank,
    Control,
    Digit,
    Graph,
    Lower,
    Print,
    Punct,
    Space,
    Upper,
    Hex,
}

impl Class {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "alnum" => Self::Alnum,
            "alpha" => Self::Alpha,
            "ascii" => Self::Ascii,
            "blank" => Self::Blank,
            "cntrl" => Self::Control,
            "digit" => Self::Digit,
            "graph" => Self::Graph,
            "lower" => Self::Lower,
            "print" => Self::Print,
            "punct" => Self::Punct,
            "space" => Self::Space,
            "upper" => Self::Upper,
            "xdigit" => Self::Hex,
            _ => return None,
        })
    }

    pub(super) fn has(self, char: char) -> bool {
        let digit = || char.is_ascii_digit() || (!char.is_ascii() && char.is_numeric());
        let space = |char: char| char.is_whitespace() && !char.is_control();
        match self {
            Self::Alnum => char.is_alphabetic() || digit(),
            Self::Alpha => char.is_alphabetic(),
            Self::Ascii => char.is_ascii(),
            Self::Blank => space(char) || char == '\t',
            Self::Control => char.is_control(),
            Self::Digit => digit(),
            Self::Graph => !char.is_control() && (char == ' ' || !matches!(char, '\u{2028}' | '\u{2029}')),
            Self::Lower => char.is_lowercase(),
            Self::Print => !char.is_control() && (char == ' ' || !char.is_whitespace()),
            Self::Punct => {
                char.is_ascii_punctuation()
                    || !(char.is_ascii()
                        || char.is_alphanumeric()
                        || char.is_whitespace()
                        || char.is_control())
            }
            Self::Space => char.is_whitespace(),
            Self::Upper => char.is_uppercase(),
            Self::Hex => char.is_ascii_hexdigit() || digit(),
        }
    }
}
