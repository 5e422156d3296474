//! Reading documents that are too large to be held.
//!
//! Directories, lists of parts and manifests have one shape: an object of which one field is a long array. The array's
//! elements are handed on one by one while the bytes come in.

/// A part of a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// An element of the array, as JSON.
    Element(&'a [u8]),
    /// Another field of the object: its name, its value as JSON.
    Field(&'a str, &'a [u8]),
}

/// Cuts a document into its items. What it hands on is not yet known to be valid JSON; whoever reads it finds out.
pub(crate) struct ItemStream {
    array: &'static str,
    limit: usize,
    state: State,
    /// Of the value under way, what earlier calls brought.
    held: Vec<u8>,
    nesting: Nesting,
    field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Start,
    /// Where a field's name, or the end of the object, may be.
    FieldOrEnd,
    /// Where a field's name must be.
    Field,
    /// In a field's name.
    Name,
    /// After a field's name.
    Colon,
    /// Before a field's value.
    Value,
    /// In a field's value.
    InValue,
    /// After a field's value.
    AfterValue,
    /// Where an element, or the end of the array, may be.
    ElementOrEnd,
    /// Where an element must be.
    Element,
    /// In an element.
    InElement,
    /// After an element.
    AfterElement,
    /// After the object; kopia ignores what follows.
    End,
}

/// How deep in a value we are.
#[derive(Clone, Copy, Default)]
struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes the next byte. Whether the value ends after it, or before it (numbers and words end only there).
    fn step(&mut self, byte: u8) -> Ends {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return self.ends_if_outermost();
                }
                _ => {}
            }
            return Ends::Not;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => match self.depth.checked_sub(1) {
                None => return Ends::Before,
                Some(depth) => {
                    self.depth = depth;
                    return self.ends_if_outermost();
                }
            },
            b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return Ends::Before,
            _ => {}
        }
        Ends::Not
    }

    fn ends_if_outermost(self) -> Ends {
        if self.depth == 0 { Ends::After } else { Ends::Not }
    }
}

#[derive(PartialEq, Eq)]
enum Ends {
    Not,
    Before,
    After,
}

impl ItemStream {
    /// For documents with this array, of which no element and no field is longer than `limit` bytes.
    pub(crate) fn new(array: &'static str, limit: usize) -> Self {
        Self {
            array,
            limit,
            state: State::Start,
            held: Vec::new(),
            nesting: Nesting::default(),
            field: String::new(),
        }
    }

    /// Takes the next bytes of the document. `visit` answers an error's text to stop.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut at = 0;
        while at < data.len() && self.state != State::End {
            at = match self.state {
                State::Name | State::InValue | State::InElement => self.value(data, at, visit)?,
                _ => self.between(data, at)?,
            };
        }
        Ok(())
    }

    /// Whether the whole object was there.
    pub(crate) fn finish(&self) -> Result<(), String> {
        match self.state {
            State::End => Ok(()),
            _ => Err("it ends too early".to_owned()),
        }
    }

    /// Goes on within a value from `at`; to where it came.
    fn value(
        &mut self,
        data: &[u8],
        at: usize,
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<usize, String> {
        let rest = &data[at..];
        let mut nesting = self.nesting;
        let end = rest
            .iter()
            .enumerate()
            .find_map(|(index, byte)| match nesting.step(*byte) {
                Ends::Not => None,
                Ends::Before => Some(index),
                Ends::After => Some(index + 1),
            });
        self.nesting = nesting;
        let part = &rest[..end.unwrap_or(rest.len())];
        if self.held.len() + part.len() > self.limit {
            return Err(format!("a part of it is longer than {} bytes", self.limit));
        }
        let Some(end) = end else {
            self.held.extend_from_slice(part);
            return Ok(data.len());
        };
        let held = if self.held.is_empty() {
            Vec::new()
        } else {
            self.held.extend_from_slice(part);
            std::mem::take(&mut self.held)
        };
        self.ended(if held.is_empty() { part } else { &held }, visit)?;
        Ok(at + end)
    }

    /// A value is complete.
    fn ended(
        &mut self,
        value: &[u8],
        visit: &mut dyn FnMut(Item<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        match self.state {
            State::Name => {
                self.field = serde_json::from_slice(value).map_err(|error| error.to_string())?;
                self.state = State::Colon;
            }
            State::InElement => {
                self.state = State::AfterElement;
                visit(Item::Element(value))?;
            }
            _ => {
                self.state = State::AfterValue;
                visit(Item::Field(&self.field, value))?;
            }
        }
        Ok(())
    }

    /// Takes one byte between values; where to go on.
    fn between(&mut self, data: &[u8], at: usize) -> Result<usize, String> {
        let byte = data[at];
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(at + 1);
        }
        let (state, taken) = match (self.state, byte) {
            (State::Start, b'{') => (State::FieldOrEnd, true),
            (State::FieldOrEnd | State::AfterValue, b'}') => (State::End, true),
            (State::FieldOrEnd | State::Field, b'"') => (State::Name, false),
            (State::Colon, b':') => (State::Value, true),
            (State::Value, b'[') if self.field == self.array => (State::ElementOrEnd, true),
            (State::Value, b',' | b'}' | b']') => return Err(unexpected(byte)),
            (State::Value, _) => (State::InValue, false),
            (State::AfterValue, b',') => (State::Field, true),
            (State::ElementOrEnd | State::AfterElement, b']') => (State::AfterValue, true),
            (State::AfterElement, b',') => (State::Element, true),
            (State::ElementOrEnd | State::Element, b',' | b'}' | b']') => return Err(unexpected(byte)),
            (State::ElementOrEnd | State::Element, _) => (State::InElement, false),
            _ => return Err(unexpected(byte)),
        };
        self.state = state;
        self.nesting = Nesting::default();
        Ok(at + usize::from(taken))
    }
}

fn unexpected(byte: u8) -> String {
    format!("{:?} is where it must not be", char::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut stream = ItemStream::new("entries", 100);
        let mut items = Vec::new();
        for part in text.chunks(step) {
            stream.feed(part, &mut |item| {
                items.push(match item {
                    Item::Element(json) => String::from_utf8_lossy(json).into_owned(),
                    Item::Field(name, json) => format!("{name}={}", String::from_utf8_lossy(json)),
                });
                Ok(())
            })?;
        }
        stream.finish().map(|()| items)
    }

    const DOCUMENT: &str = r#" {"stream" : "x\"}", "entries":[ {"a":[1,{}],"b":"]}\\"} ,7, "s",null],"n":-1.5e3,"o":{"entries":[1]}, "l":[]} tail"#;

    #[test]
    fn documents_come_in_pieces() {
        let expected = [
            r#"stream="x\"}""#,
            r#"{"a":[1,{}],"b":"]}\\"}"#,
            "7",
            "\"s\"",
            "null",
            "n=-1.5e3",
            r#"o={"entries":[1]}"#,
            "l=[]",
        ];
        for step in 1..DOCUMENT.len() {
            assert_eq!(read(DOCUMENT.as_bytes(), step).unwrap(), expected, "{step}");
        }
        assert_eq!(read(br#"{"entries":null}"#, 3).unwrap(), ["entries=null"]);
        assert_eq!(read(br#"{"entries":[]}"#, 3).unwrap(), [""; 0]);
        assert_eq!(read(b"{}", 1).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_object_or_too_long_is_refused() {
        let long = format!("{{\"entries\":[\"{}\"]}}", "x".repeat(100));
        for text in [
            "",
            "[]",
            "{",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"entries\":[,]}",
            "{\"entries\":[1,]}",
            &long,
        ] {
            assert!(read(text.as_bytes(), 7).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(data: Vec<u8>, step in 1_usize..20) {
            let _ = read(&data, step);
        }

        #[test]
        fn any_damage_is_harmless(at in 0..DOCUMENT.len(), byte: u8, step in 1_usize..20) {
            let mut text = DOCUMENT.as_bytes().to_vec();
            text[at] = byte;
            let _ = read(&text, step);
        }
    }
}
