//! What the operating system knows about this process, under the names every Prometheus client library uses.

use std::{collections::HashMap, fs};

use prometheus::{
    Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Description, Kind};

/// Name, kind and help of each value, in the order of [`Sample::values`].
const FAMILIES: [(&str, Kind, &str); 6] = [
    (
        "process_cpu_seconds_total",
        Kind::Counter,
        "CPU time used, user and system, in seconds.",
    ),
    (
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory in bytes.",
    ),
    (
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory in bytes.",
    ),
    ("process_threads", Kind::Gauge, "Threads."),
    ("process_open_fds", Kind::Gauge, "Open file descriptors."),
    (
        "process_max_fds",
        Kind::Gauge,
        "File descriptors that may be open.",
    ),
];

/// The collector and what it exports.
pub(super) fn collector() -> (Vec<Description>, Box<dyn Collector>) {
    let descriptions = FAMILIES
        .map(|(name, kind, help)| Description {
            name,
            kind,
            help,
            labels: Vec::new(),
        })
        .to_vec();
    let descs = FAMILIES
        .iter()
        .filter_map(|(name, _, help)| {
            Desc::new((*name).to_owned(), (*help).to_owned(), vec![], HashMap::default()).ok()
        })
        .collect();
    (descriptions, Box::new(Process { descs }))
}

struct Process {
    descs: Vec<Desc>,
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = Sample::read().map(Sample::values).unwrap_or_default();
        let families = FAMILIES
            .iter()
            .zip(values)
            .filter_map(|((name, kind, help), value)| {
                let value = value?;
                match kind {
                    Kind::Counter => {
                        let counter = prometheus::Counter::with_opts(Opts::new(*name, *help)).ok()?;
                        counter.inc_by(value);
                        Some(counter.collect())
                    }
                    Kind::Gauge | Kind::Histogram => {
                        let gauge = Gauge::with_opts(Opts::new(*name, *help)).ok()?;
                        gauge.set(value);
                        Some(gauge.collect())
                    }
                }
            });
        families.flatten().collect()
    }
}

#[derive(Debug, Default, PartialEq)]
struct Sample {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    threads: f64,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

impl Sample {
    /// Reads /proc; `None` where there is none.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let mut sample = parse_stat(
            &stat,
            count(rustix::param::clock_ticks_per_second()),
            count(u64::try_from(rustix::param::page_size()).unwrap_or(4096)),
        )?;
        // The directory's own descriptor is counted by the listing.
        sample.open_fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|dir| count(dir.count().saturating_sub(1) as u64));
        sample.max_fds = fs::read_to_string("/proc/self/limits")
            .ok()
            .as_deref()
            .and_then(parse_max_fds);
        Some(sample)
    }

    fn values(self) -> [Option<f64>; 6] {
        [
            Some(self.cpu_seconds),
            Some(self.resident_bytes),
            Some(self.virtual_bytes),
            Some(self.threads),
            self.open_fds,
            self.max_fds,
        ]
    }
}

/// Reads proc(5)'s stat: the command may hold spaces and brackets, so fields are counted from the last `)`.
fn parse_stat(stat: &str, ticks_per_second: f64, page_size: f64) -> Option<Sample> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3 of the manual page is index 0 here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok().map(count);
    Some(Sample {
        cpu_seconds: (field(14)? + field(15)?) / ticks_per_second,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page_size,
        open_fds: None,
        max_fds: None,
    })
}

fn parse_max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(count)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a metric is a float; 2^53 bytes are beyond any process"
)]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::{Sample, parse_max_fds, parse_stat};

    const STAT: &str = "42 (a (odd) name) S 1 42 42 0 -1 4194560 999 0 1 0 150 50 0 0 20 0 7 0 123456 20971520 2560 \
                        18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 0";

    #[test]
    fn stat_is_read_after_the_last_bracket() {
        let sample = parse_stat(STAT, 100.0, 4096.0).unwrap();
        let expected = Sample {
            cpu_seconds: 2.0,
            resident_bytes: 10_485_760.0,
            virtual_bytes: 20_971_520.0,
            threads: 7.0,
            open_fds: None,
            max_fds: None,
        };
        assert_eq!(sample, expected);
        assert_eq!(parse_stat("no bracket", 100.0, 4096.0), None);
        assert_eq!(parse_stat("1 (short) S 1", 100.0, 4096.0), None);
    }

    #[test]
    fn the_soft_limit_counts() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(parse_max_fds(limits), Some(1024.0));
        assert_eq!(
            parse_max_fds("Max open files            unlimited            unlimited            files"),
            None
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_descriptors() {
        let sample = Sample::read().unwrap();
        assert!(sample.resident_bytes > 100_000.0 && sample.virtual_bytes >= sample.resident_bytes);
        assert!(sample.threads >= 1.0 && sample.open_fds.unwrap() >= 3.0);
    }
}
