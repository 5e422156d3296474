//! What the agent prints: lines of JSON for programs, or text for people.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_store::Store;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::failure::Failure;

/// Prints on standard output. Clones would interleave lines, so there is one.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    begin: Instant,
    /// So that a line of progress never cuts another one in two.
    lock: Mutex<()>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            begin: Instant::now(),
            lock: Mutex::new(()),
        }
    }

    /// Whether programs read it.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One line of JSON: `type`, then the fields.
    pub(super) fn line(&self, kind: &str, fields: &impl Serialize) {
        let mut line = Map::new();
        line.insert("type".to_owned(), kind.into());
        match serde_json::to_value(fields) {
            Ok(Value::Object(fields)) => line.extend(fields),
            Ok(other) => {
                line.insert("value".to_owned(), other);
            }
            Err(error) => tracing::error!(%error, "cannot write a line of JSON"),
        }
        self.print(&Value::Object(line).to_string());
    }

    /// A line of JSON of this type for programs, or text for people.
    pub(super) fn tell(&self, kind: &str, fields: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.line(kind, fields);
        } else {
            self.print(&text());
        }
    }

    /// Text, as it is. A reader that has gone away is no reason to stop the work.
    pub(super) fn print(&self, text: &str) {
        let _guard = self.lock.lock();
        if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
            tracing::debug!(%error, "nobody reads the output");
        }
    }

    /// Something that could not be read or written, while the work goes on.
    pub(super) fn problem(&self, path: &str, message: &str) {
        if self.json {
            self.line("error", &serde_json::json!({"path": path, "message": message}));
        } else {
            self.print(&format!("{path}: {message}"));
        }
    }

    /// Something that people should know though all goes well.
    pub(super) fn warning(message: &str) {
        // Not in the way of who reads the output.
        eprintln!("volume-backup: {message}");
    }

    /// Why the work ended.
    pub(super) fn failure(&self, failure: &Failure) {
        if self.json {
            let retry = failure.code == super::failure::TRANSIENT;
            self.line(
                "error",
                &serde_json::json!({"reason": failure.reason, "message": failure.message, "retry": retry}),
            );
        }
        // Standard error in any case, for that is where people and `kubectl logs` look.
        eprintln!("volume-backup: {}", failure.message);
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

/// Prints numbers at intervals until it is dropped.
pub(super) struct Ticker(JoinHandle<()>);

impl Ticker {
    /// Tells the numbers of now every `interval`, not at once.
    pub(super) fn tell<N: Serialize + 'static>(
        context: &super::Context,
        store: &Store,
        numbers: impl Fn(&Store, &Output) -> N + Send + 'static,
        text: fn(&N) -> String,
    ) -> Self {
        let (output, store) = (Arc::clone(&context.output), store.clone());
        Self::start(context.interval, move || {
            let now = numbers(&store, &output);
            output.tell("progress", &now, || text(&now));
        })
    }

    /// Calls `tick` every `interval`, not at once.
    fn start(interval: Duration, tick: impl Fn() + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            // The first one is at once.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                tick();
            }
        }))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The most memory that this process ever had resident, in bytes; none where /proc does not tell.
pub(super) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What a run took, as people read it.
pub(super) fn cost(seconds: f64, peak_rss_bytes: Option<u64>) -> String {
    let memory = bytes(peak_rss_bytes.unwrap_or_default());
    format!("after {seconds:.1} s, {memory} of memory at most")
}

/// A number of bytes as people read it.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut rest = number;
    let mut tenths = 0;
    let mut unit = "B";
    for next in UNITS {
        if rest < 1000 {
            break;
        }
        tenths = rest % 1000 / 100;
        rest /= 1000;
        unit = next;
    }
    if unit == "B" {
        format!("{rest} B")
    } else {
        format!("{rest}.{tenths} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_with_one_digit_after_the_point() {
        let written: Vec<String> = [0, 999, 1000, 1_550_000, 2_000_000_000_000, 5_000_000_000_000_000]
            .into_iter()
            .map(bytes)
            .collect();
        assert_eq!(
            written,
            ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 TB", "5000.0 TB"]
        );
    }

    #[test]
    fn the_kernel_tells_the_peak_memory() {
        assert!(peak_rss_bytes().unwrap() > 1 << 20);
    }
}
