//! Patterns of files to be ignored, as kopia reads them: like those of `.gitignore`, with differences that decide
//! which files are backed up and so are kept, odd as some are.

use std::sync::Arc;

use super::class::Class;

/// The longest pattern, in characters. Matching takes time, memory and stack in proportion to it.
const MAX_LENGTH: usize = 1024;

/// A pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The directory that the rule is in, which all patterns of a file share: it may be long, and they may be many.
    base: Arc<[char]>,
    /// What follows the directory.
    tokens: Vec<Token>,
    /// Whether only directories match.
    directories: bool,
    /// Whether what matches is *not* ignored.
    pub(super) negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Char(char),
    Slash,
    /// Any character but a slash.
    Any,
    /// Any characters up to a slash.
    Star,
    /// Any characters.
    DoubleStar,
    /// One of these, or none of these.
    OneOf(Box<Characters>),
}

/// Some characters, or all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Characters {
    pub(super) items: Vec<Item>,
    pub(super) negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Range(char, char),
    Class(Class),
}

impl Pattern {
    /// Reads a pattern of a rule in the directory `base`: empty for the root, else its path with a leading slash.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(text: &str, base: &Arc<[char]>) -> Result<Self, &'static str> {
        let text = trimmed(text);
        if text.chars().count() > MAX_LENGTH {
            return Err("it is too long");
        }
        let mut scanner = Scanner {
            text: text.chars().collect(),
            at: 0,
        };
        while scanner.peek().is_some_and(char::is_whitespace) {
            scanner.at += 1;
        }
        let negated = scanner.take('!');
        let rest = &scanner.text[scanner.at..];
        let rooted = rest.first() == Some(&'/');
        let slash = rest.iter().position(|char| *char == '/');
        let anywhere = slash.is_none_or(|slash| slash + 1 == rest.len());
        let mut tokens = Vec::new();
        if !text.is_empty() {
            if !base.is_empty() && !rooted {
                tokens.push(Token::Slash);
            }
            // A name without a slash, other than at its end, may be in any directory.
            if !rooted && text != "**" {
                if anywhere {
                    tokens.extend([Token::DoubleStar, Token::Slash]);
                } else if base.is_empty() {
                    tokens.push(Token::Slash);
                }
            }
        }
        let directories = scanner.text.last() == Some(&'/');
        if directories {
            scanner.text.pop();
        }
        scanner.tokens(&mut tokens)?;
        tokens.shrink_to_fit();
        Ok(Self {
            base: if text.is_empty() {
                Arc::default()
            } else {
                Arc::clone(base)
            },
            tokens,
            directories,
            negated,
        })
    }

    /// Bytes that it takes, without the directory, which other patterns have too.
    pub(super) fn memory(&self) -> usize {
        let characters = |token: &Token| match token {
            Token::OneOf(characters) => size_of::<Characters>() + size_of_val(characters.items.as_slice()),
            _ => 0,
        };
        size_of::<Self>()
            + size_of_val(self.tokens.as_slice())
            + self.tokens.iter().map(characters).sum::<usize>()
    }

    /// Whether a path is ignored as far as this pattern goes; the caller asks patterns that are negated only of what is
    /// ignored so far, and the others only of what is not.
    pub(super) fn ignores(&self, path: &[char], directory: bool) -> bool {
        if self.directories && !directory {
            return self.negated;
        }
        // What follows the directory begins with a slash, so no star begins within the directory.
        let below = path.strip_prefix(&*self.base);
        below.is_some_and(|path| super::matching::matches(&self.tokens, path)) != self.negated
    }
}

/// Without the spaces around it, unless the last of them is escaped.
fn trimmed(text: &str) -> &str {
    let bytes = text.as_bytes();
    match bytes.len().checked_sub(2) {
        Some(before_last) if before_last > 0 && bytes[before_last] != b'\\' => text.trim(),
        _ => text,
    }
}

fn literal(char: char) -> Token {
    if char == '/' {
        Token::Slash
    } else {
        Token::Char(char)
    }
}

const UNFINISHED: &str = "it ends after a backslash";
const NO_BRACKET: &str = "a ] is missing";

struct Scanner {
    text: Vec<char>,
    at: usize,
}

impl Scanner {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += 1;
        Some(char)
    }

    fn take(&mut self, char: char) -> bool {
        let is = self.peek() == Some(char);
        self.at += usize::from(is);
        is
    }

    fn tokens(&mut self, tokens: &mut Vec<Token>) -> Result<(), &'static str> {
        while let Some(char) = self.next() {
            let token = match char {
                '\\' => Token::Char(self.next().ok_or(UNFINISHED)?),
                '?' => Token::Any,
                '*' => self.star(),
                '[' => self.one_of()?,
                char => literal(char),
            };
            tokens.push(token);
        }
        Ok(())
    }

    /// After a star. Several are a double star at the beginning of the pattern and as a whole name, else one star.
    fn star(&mut self) -> Token {
        let before = self.at.checked_sub(2).map(|before| self.text[before]);
        if self.peek() != Some('*') {
            return Token::Star;
        }
        while self.take('*') {}
        let ends_name = matches!(self.peek(), None | Some('/'));
        if before.is_none() || (before == Some('/') && ends_name) {
            Token::DoubleStar
        } else {
            Token::Star
        }
    }

    /// After an opening bracket.
    fn one_of(&mut self) -> Result<Token, &'static str> {
        let negated = self.take('!');
        let mut items = Vec::new();
        loop {
            let mut char = self.next().ok_or(NO_BRACKET)?;
            if char == ']' {
                return Ok(Token::OneOf(Box::new(Characters { items, negated })));
            }
            if char == '\\' {
                char = self.next().ok_or(UNFINISHED)?;
            }
            let after = self.text.get(self.at + 1).copied();
            let item = if self.peek() == Some('-') && after.is_some_and(|after| after != ']') {
                self.at += 1;
                Item::Range(char, self.range_end()?)
            } else if char == '[' && self.peek() == Some(':') {
                self.class()?
            } else {
                Item::Range(char, char)
            };
            items.push(item);
        }
    }

    fn range_end(&mut self) -> Result<char, &'static str> {
        match self.next() {
            Some('\\') => self.next().ok_or(UNFINISHED),
            end => end.ok_or(NO_BRACKET),
        }
    }

    /// After `[` of `[:name:]`, before the colon.
    fn class(&mut self) -> Result<Item, &'static str> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|char| *char == ']').ok_or(NO_BRACKET)?;
        // kopia knows a class only where its name is longer than what comes before it in the pattern: it takes an
        // offset for a position. Elsewhere the bracket stands for itself.
        if end <= self.at + 1 || rest[end - 1] != ':' {
            return Ok(Item::Range('[', '['));
        }
        let name: String = rest[1..end - 1].iter().collect();
        self.at += end + 1;
        let class = Class::by_name(&name.to_lowercase()).ok_or("it names no class of characters")?;
        Ok(Item::Class(class))
    }
}
