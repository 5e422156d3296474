//! The numbers of all rounds, for people and for programs.

use serde_json::{Value, json};

use super::{measure::Usage, tools::Tool};
use crate::bench::{float, median};

/// One program doing one thing, in every round.
pub(super) struct Row {
    /// What it did, such as `text-backup`.
    pub case: String,
    /// Who did it.
    pub tool: Tool,
    /// What each run took.
    pub runs: Vec<Usage>,
    /// Bytes in the bucket afterwards, in the last round.
    pub stored_bytes: u64,
}

impl Row {
    fn seconds(&self) -> f64 {
        median(self.runs.iter().map(|run| run.seconds).collect())
    }

    fn cpu_seconds(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cpu_seconds).collect())
    }

    /// The worst of all rounds: memory is a limit, not a mean.
    fn peak_rss_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.peak_rss_bytes).max().unwrap_or(0)
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> Value {
        let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
        json!({
            "case": self.case,
            "tool": self.tool.name(),
            "seconds": rounded(self.seconds()),
            "cpu_seconds": rounded(self.cpu_seconds()),
            "peak_rss_bytes": self.peak_rss_bytes(),
            "stored_bytes": self.stored_bytes,
        })
    }

    /// The heading of [`Row::text`].
    pub(super) fn heading() -> String {
        format!(
            "{:20} {:9} {:>9} {:>8} {:>9} {:>9} {:>10}",
            "case", "tool", "seconds", "spread", "CPU s", "peak MB", "stored MB"
        )
    }

    /// One line of a table.
    pub(super) fn text(&self) -> String {
        let seconds = self.runs.iter().map(|run| run.seconds);
        let spread = seconds.clone().fold(f64::MIN, f64::max) - seconds.fold(f64::MAX, f64::min);
        format!(
            "{:20} {:9} {:9.2} {:8.2} {:9.2} {:9.1} {:10.1}",
            self.case,
            self.tool.name(),
            self.seconds(),
            spread,
            self.cpu_seconds(),
            float(self.peak_rss_bytes()) / 1e6,
            float(self.stored_bytes) / 1e6,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_times_and_the_worst_of_the_memory_count() {
        let run = |seconds, peak_rss_bytes| Usage {
            seconds,
            cpu_seconds: 2.0 * seconds,
            peak_rss_bytes,
        };
        let row = Row {
            case: "text-backup".to_owned(),
            tool: Tool::Restic,
            runs: vec![run(3.0, 10), run(1.0, 30), run(2.0, 20)],
            stored_bytes: 7,
        };
        assert_eq!(
            row.json(),
            json!({
                "case": "text-backup", "tool": "restic", "seconds": 2.0, "cpu_seconds": 4.0,
                "peak_rss_bytes": 30, "stored_bytes": 7
            })
        );
    }
}
