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

    /// By the name in a policy. An empty one, and one that kopia does not know either, is `repository`, what the
    /// repository's other objects are cut with; so does kopia.
    ///
    /// # Errors
    ///
    /// [`KopiaError::Unsupported`] for those that kopia has and we do not: cut in another way, a file would not be the
    /// same object that kopia makes of it.
    pub fn of_policy(name: &str, repository: Self) -> KopiaResult<Self> {
        if name.is_empty() {
            return Ok(repository);
        }
        match Self::by_name(name) {
            Err(_) if !is_rabin_karp(name) => {
                tracing::warn!(splitter = name, "the policy names an unknown splitter");
                Ok(repository)
            }
            named => named,
        }
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

/// Whether it is the splitter of kopia that is not here.
fn is_rabin_karp(name: &str) -> bool {
    let size_of = |name: &str| size(name.strip_prefix("DYNAMIC-")?.strip_suffix("-RABINKARP")?);
    size_of(name).is_some()
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
