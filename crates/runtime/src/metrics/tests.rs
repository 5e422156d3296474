use super::{ControllerName, Kind, Label, Metrics, MetricsError, Outcome, Standard};

fn registry() -> (Metrics, Standard) {
    let metrics = Metrics::new();
    let standard = Standard::register(&metrics, "1.2.3").unwrap();
    (metrics, standard)
}

#[test]
fn the_documentation_lists_families_without_samples() {
    let (metrics, _) = registry();
    let described = metrics.describe();
    let passes = described
        .iter()
        .find(|d| d.name == "holdfast_reconciliations_total")
        .unwrap();
    assert_eq!(passes.kind, Kind::Counter);
    assert_eq!(passes.labels[0], ("controller", vec![]));
    assert!(passes.labels[1].1.contains(&"timed_out"));
    assert!(
        !metrics
            .render()
            .unwrap()
            .contains("holdfast_reconciliations_total{")
    );
    assert!(
        described
            .iter()
            .any(|d| d.name == "process_resident_memory_bytes")
    );
    assert!(described.is_sorted_by_key(|d| d.name));
}

#[test]
fn every_family_is_described_exactly_once() {
    let (metrics, standard) = registry();
    standard.announce(ControllerName("pg-backup"));
    let described: Vec<_> = metrics
        .describe()
        .into_iter()
        .map(|d| d.name.to_owned())
        .collect();
    let text = metrics.render().unwrap();
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert_eq!(described.iter().filter(|d| *d == name).count(), 1, "{name}");
    }
}

#[test]
fn an_announced_controller_starts_at_zero() {
    let (metrics, standard) = registry();
    standard.announce(ControllerName("pg-backup"));
    let text = metrics.render().unwrap();
    for outcome in Outcome::all() {
        let series = format!(
            "holdfast_reconciliations_total{{controller=\"pg-backup\",outcome=\"{}\"}} 0",
            outcome.as_str()
        );
        assert!(text.contains(&series), "{series} not in {text}");
    }
    assert!(text.contains("holdfast_build_info{version=\"1.2.3\"} 1"));
    assert!(text.contains("holdfast_events_total{result=\"dropped\"} 0"));
}

#[test]
fn status_writes_are_counted_under_their_controller() {
    use holdfast_status::{FieldManager, Observer, WriteResult};
    let (_, standard) = registry();
    let observer = standard.status_observer();
    observer.observe(FieldManager::new("pg-backup", "status"), WriteResult::Written);
    observer.observe(FieldManager::new("pg-backup", "progress"), WriteResult::Written);
    assert_eq!(
        standard
            .status_writes
            .get((ControllerName("pg-backup"), WriteResult::Written)),
        2
    );
    // The label lists every result there is.
    assert_eq!(
        WriteResult::all().len(),
        <WriteResult as strum::IntoEnumIterator>::iter().count()
    );
}

#[test]
fn asking_twice_gives_the_same_family() {
    let (metrics, standard) = registry();
    standard
        .watch_errors
        .inc((ControllerName("a"), super::WatchError::Denied));
    let again = Standard::register(&metrics, "1.2.3").unwrap();
    assert_eq!(
        again
            .watch_errors
            .get((ControllerName("a"), super::WatchError::Denied)),
        1
    );
}

#[test]
fn names_follow_the_rules() {
    let metrics = Metrics::new();
    assert!(matches!(
        metrics.counter::<()>("holdfast_backups", "x"),
        Err(MetricsError::Name { .. })
    ));
    assert!(matches!(
        metrics.gauge::<()>("velero_backups", "x"),
        Err(MetricsError::Name { .. })
    ));
    metrics
        .of_peer()
        .gauge::<()>("velero_backups", "Kept for dashboards.")
        .unwrap();
    metrics.gauge::<()>("holdfast_x", "x").unwrap();
    assert!(matches!(
        metrics.gauge::<(Outcome,)>("holdfast_x", "x"),
        Err(MetricsError::Taken { .. })
    ));
    assert!(matches!(
        metrics.scraped::<()>("holdfast_x", "x"),
        Err(MetricsError::Taken { .. })
    ));
}

#[test]
fn a_scraped_gauge_lives_as_long_as_its_feed() {
    let metrics = Metrics::new();
    let running = metrics
        .scraped::<(Outcome,)>("holdfast_running", "Running now.")
        .unwrap();
    assert!(!metrics.render().unwrap().contains("holdfast_running"));
    let first = running.feed(|| vec![((Outcome::Waiting,), 1.0)]);
    assert!(
        metrics
            .render()
            .unwrap()
            .contains("holdfast_running{outcome=\"waiting\"} 1")
    );
    // A second term replaces the feed before the first one's guard is gone.
    let second = running.feed(|| vec![((Outcome::Waiting,), 2.0)]);
    drop(first);
    assert!(
        metrics
            .render()
            .unwrap()
            .contains("holdfast_running{outcome=\"waiting\"} 2")
    );
    drop(second);
    assert!(!metrics.render().unwrap().contains("holdfast_running{"));
}

#[test]
fn all_values_are_snake_case() {
    let (metrics, _) = registry();
    for (label, values) in metrics.describe().into_iter().flat_map(|d| d.labels) {
        for text in values.into_iter().chain([label]) {
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{text}"
            );
        }
    }
}
