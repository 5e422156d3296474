//! Peak memory of a process in a pod, as the kernel of this machine counts it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the processes are looked at. The kernel keeps the peak; only what grows after the last look is missed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Watches a process of the local node until it is asked for the peak.
#[derive(Debug)]
pub struct PeakMemory {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    watcher: Option<JoinHandle<()>>,
}

impl PeakMemory {
    /// Watches the processes whose arguments contain each of `words`.
    pub fn of(words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, seen) = (stop.clone(), peak.clone());
        let watcher = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(look(&words), Ordering::Relaxed);
                thread::sleep(INTERVAL);
            }
        });
        Self {
            stop,
            peak,
            watcher: Some(watcher),
        }
    }

    /// The peak of resident memory so far, in bytes; `None` when no such process was seen, as on a node that is not this machine.
    pub fn finish(mut self) -> Option<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        Some(self.peak.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(words: &[String]) -> u64 {
    let processes = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let ours = processes.filter(|path| {
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        words.iter().all(|word| arguments.contains(word.as_str()))
    });
    ours.filter_map(|path| high_water_mark(&fs::read_to_string(path.join("status")).ok()?))
        .max()
        .unwrap_or(0)
}

/// `VmHWM` of `/proc/PID/status`, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::{PeakMemory, high_water_mark};

    #[test]
    fn the_peak_is_in_bytes() {
        assert_eq!(
            high_water_mark("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 4 kB\n"),
            Some(2_097_152)
        );
        assert_eq!(high_water_mark("Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_a_peak_and_an_unknown_one_has_none() {
        let own = PeakMemory::of(&["holdfast_e2e"]);
        std::thread::sleep(super::INTERVAL * 2);
        assert!(own.finish().unwrap() > 1_000_000);
        assert_eq!(
            PeakMemory::of(&["no-process-has-this", "argument"]).finish(),
            None
        );
    }
}
