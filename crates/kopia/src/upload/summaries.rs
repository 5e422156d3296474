//! What is below the directories of a directory, in 40 bytes for each: a directory may have a million.

use std::collections::HashMap;

use crate::snapshot::{Summary, UtcTime};

/// The summary of each directory below one.
#[derive(Debug)]
pub(super) struct Summaries {
    brief: Vec<Brief>,
    /// Those that say more.
    others: HashMap<u32, Box<Summary>>,
}

/// A summary of a directory that is complete and in which nothing failed.
#[derive(Clone, Copy, Debug, Default)]
struct Brief {
    size: u64,
    files: u64,
    symlinks: u64,
    dirs: u64,
    max_time: UtcTime,
}

impl Brief {
    /// None if the summary says more.
    fn new(summary: &Summary) -> Option<Self> {
        let brief = Self {
            size: summary.size,
            files: summary.files,
            symlinks: summary.symlinks,
            dirs: summary.dirs,
            max_time: summary.max_time,
        };
        (brief.summary() == *summary).then_some(brief)
    }

    fn summary(self) -> Summary {
        Summary {
            size: self.size,
            files: self.files,
            symlinks: self.symlinks,
            dirs: self.dirs,
            max_time: self.max_time,
            ..Summary::default()
        }
    }
}

impl Summaries {
    /// Of so many directories, none of which is known yet.
    pub(super) fn new(directories: usize) -> Self {
        Self {
            brief: vec![Brief::default(); directories],
            others: HashMap::new(),
        }
    }

    /// The summary of a directory that is stored; none of what is no directory.
    pub(super) fn get(&self, index: u32) -> Option<Summary> {
        if let Some(summary) = self.others.get(&index) {
            return Some((**summary).clone());
        }
        Some(self.brief.get(index as usize)?.summary())
    }

    /// Keeps the summary of a directory.
    pub(super) fn set(&mut self, index: u32, summary: Summary) {
        match (self.brief.get_mut(index as usize), Brief::new(&summary)) {
            (Some(place), Some(brief)) => *place = brief,
            _ => {
                self.others.insert(index, Box::new(summary));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let brief = Summary {
            size: 1,
            files: 2,
            symlinks: 3,
            dirs: 4,
            max_time: UtcTime::from_nanos(5),
            ..Summary::default()
        };
        let failed = Summary {
            ignored_errors: 1,
            ..brief.clone()
        };
        let mut summaries = Summaries::new(2);
        summaries.set(0, brief.clone());
        summaries.set(1, failed.clone());
        assert_eq!(summaries.get(0), Some(brief));
        assert_eq!(summaries.get(1), Some(failed));
        assert_eq!(summaries.get(2), None);
        assert_eq!((size_of::<Brief>(), summaries.others.len()), (40, 1));
    }
}
