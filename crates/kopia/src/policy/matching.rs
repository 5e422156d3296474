//! Whether a path matches a pattern.

use super::pattern::{Item, Token};

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Match,
    /// Another place may match.
    Mismatch,
    /// The path ended first, so no later place can match.
    PathEnded,
    /// A star came to a slash, so only a double star can go on.
    StarEnded,
}

/// Whether the whole path matches.
pub(super) fn matches(tokens: &[Token], path: &[char]) -> bool {
    let mut attempt = Attempt {
        tokens,
        path,
        known: Vec::new(),
    };
    attempt.from(0, 0) == Outcome::Match
}

struct Attempt<'a> {
    tokens: &'a [Token],
    path: &'a [char],
    /// How attempts from a token and a place ended, so that none is made twice: patterns with many stars would take
    /// exponential time. A byte for each place, for those tokens from which attempts are made.
    known: Vec<Vec<Option<Outcome>>>,
}

impl Attempt<'_> {
    /// Matches the tokens from `first` on with the path from `start` on.
    fn from(&mut self, first: usize, start: usize) -> Outcome {
        let mut at = start;
        for index in first..self.tokens.len() {
            let char = self.path.get(at).copied();
            let fits = match (&self.tokens[index], char) {
                (Token::Star, _) if self.is_slash(index + 1) => match self.skip_name(start, at) {
                    Some(end) => {
                        at = end;
                        continue;
                    }
                    None => false,
                },
                (token @ (Token::Star | Token::DoubleStar), _) => {
                    return self.star(index, at, *token == Token::DoubleStar);
                }
                (_, None) => return Outcome::PathEnded,
                (Token::Char(expected), Some(char)) => char == *expected,
                (Token::Slash, Some(char)) => char == '/',
                (Token::Any, Some(char)) => char != '/',
                (Token::OneOf(of), Some(char)) => of.items.iter().any(|item| has(item, char)) != of.negated,
            };
            if !fits {
                return Outcome::Mismatch;
            }
            at += 1;
        }
        if at >= self.path.len() {
            Outcome::Match
        } else {
            Outcome::Mismatch
        }
    }

    fn is_slash(&self, index: usize) -> bool {
        self.tokens.get(index) == Some(&Token::Slash)
    }

    /// Where the next slash is, for a star before a slash. A star with which an attempt begins does not match an empty
    /// name.
    fn skip_name(&self, start: usize, at: usize) -> Option<usize> {
        let length = self.path.get(at..)?.iter().position(|char| *char == '/')?;
        (length > 0 || at > start).then_some(at + length)
    }

    /// Tries how much a star takes.
    fn star(&mut self, index: usize, start: usize, double: bool) -> Outcome {
        let rest = self.path.get(start..).unwrap_or_default();
        let next = index + 1;
        if next == self.tokens.len() {
            let fits = double || !rest.contains(&'/');
            return if fits { Outcome::Match } else { Outcome::Mismatch };
        }
        // A double star as a whole name can be no name at all.
        let optional = double && self.is_slash(next) && next + 1 < self.tokens.len();
        if optional && self.known_from(next + 1, start) == Outcome::Match {
            return Outcome::Match;
        }
        for at in start..self.path.len() {
            match self.known_from(next, at) {
                Outcome::Mismatch => {
                    // A star takes a slash that follows something, which kopia may not have meant; not one with which
                    // it begins.
                    let last = self.path[at.saturating_sub(1).max(start)];
                    if !double && last == '/' {
                        return Outcome::StarEnded;
                    }
                }
                Outcome::StarEnded if double => {}
                outcome => return outcome,
            }
        }
        Outcome::PathEnded
    }

    fn known_from(&mut self, first: usize, start: usize) -> Outcome {
        let known = self.known.get(first).and_then(|places| *places.get(start)?);
        if let Some(outcome) = known {
            return outcome;
        }
        let outcome = self.from(first, start);
        if self.known.is_empty() {
            self.known.resize_with(self.tokens.len(), Vec::new);
        }
        let places = &mut self.known[first];
        if places.is_empty() {
            places.resize(self.path.len() + 1, None);
        }
        places[start] = Some(outcome);
        outcome
    }
}

fn has(item: &Item, char: char) -> bool {
    match item {
        Item::Range(first, last) => (*first..=*last).contains(&char),
        Item::Class(class) => class.has(char),
    }
}
