//! Where objects are cut into contents.
//!
//! Two tools deduplicate against each other only if they cut at the same places, so the cuts are those of kopia
//! 0.21.1 (`repo/splitter`), bit for bit.

mod buzhash;
mod table;

use crate::error::{KopiaError, KopiaResult};

/// How objects are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Splitter {
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    /// Every so many bytes.
    Fixed(usize),
    /// Where the content says so: on average after so many bytes, a power of two.
    Buzhash(usize),
}

impl Splitter {
    /// What kopia cuts new repositories' objects with, and Velero: `DYNAMIC-4M-BUZHASH`.
    pub const DEFAULT: Self = Self {
        rule: Rule::Buzhash(4 << 20),
    };

    /// By the name in the repository format or in a policy: `DYNAMIC-<size>-BUZHASH` and `FIXED-<size>` from 128K to
    /// 8M, and the old names `DYNAMIC` and `FIXED`. An empty name is `FIXED`, as kopia has it.
    ///
    /// # Errors
    ///
    /// [`KopiaError::Unsupported`] for any other name. How an object is cut matters to its writer only: objects of a
    /// repository with another splitter can still be read.
    pub fn by_name(name: &str) -> KopiaResult<Self> {
        let rule = match name {
            "" | "FIXED" => Some(Rule::Fixed(4 << 20)),
            "DYNAMIC" => Some(Rule::Buzhash(4 << 20)),
            _ => {
                let fixed = name.strip_prefix("FIXED-").and_then(size).map(Rule::Fixed);
                let dynamic = name.strip_prefix("DYNAMIC-");
                let buzhash = dynamic.and_then(|rest| rest.strip_suffix("-BUZHASH"));
                fixed.or_else(|| buzhash.and_then(size).map(Rule::Buzhash))
            }
        };
        rule.map(|rule| Self { rule })
            .ok_or_else(|| KopiaError::Unsupported {
                feature: format!("splitter {name:?}"),
                detail: "objects can be read but not written, else two tools would not deduplicate"
                    .to_owned(),
            })
    }

    /// The longest piece, in bytes.
    pub const fn max_size(self) -> usize {
        match self.rule {
            Rule::Fixed(length) => length,
            Rule::Buzhash(average) => 2 * average,
        }
    }

    /// The shortest piece but for the last of an object, in bytes.
    pub const fn min_size(self) -> usize {
        match self.rule {
            Rule::Fixed(length) => length,
            Rule::Buzhash(average) => average / 2,
        }
    }

    /// The length of the first piece of `data`, which begins where the last piece ended; none if its end is not in
    /// `data`, so more is needed (or the object ends there).
    ///
    /// The bytes before `searched` are known to end no piece: when a call finds nothing, pass the length of its `data`
    /// to the next one with more data.
    pub fn next_cut(self, data: &[u8], searched: usize) -> Option<usize> {
        match self.rule {
            Rule::Fixed(length) => (data.len() >= length).then_some(length),
            Rule::Buzhash(average) => buzhash::next_cut(average, data, searched),
        }
    }
}

/// The sizes that kopia has, by their names.
fn size(name: &str) -> Option<usize> {
    Some(match name {
        "128K" => 128 << 10,
        "256K" => 256 << 10,
        "512K" => 512 << 10,
        "1M" => 1 << 20,
        "2M" => 2 << 20,
        "4M" => 4 << 20,
        "8M" => 8 << 20,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
