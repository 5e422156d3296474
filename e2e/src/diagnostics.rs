//! What a person wants to see when a scenario failed.

use crate::controller::Controller;
use crate::scenario::Scenario;

/// Prints objects, Events and logs. What cannot be had is said, too: it may be part of the cause.
pub(crate) async fn print(scenario: &Scenario) {
    for arguments in [
        &["get", "pods,jobs,statefulsets,postgresbackups", "--output=wide"][..],
        &["get", "postgresbackups", "--output=yaml"],
        &["get", "events", "--sort-by=.lastTimestamp"],
    ] {
        show(
            &format!("kubectl {}", arguments.join(" ")),
            scenario.kubectl(arguments).await,
        );
    }
    let pods = scenario.kubectl(&["get", "pods", "--output=name"]).await;
    for pod in pods.iter().flat_map(|names| names.lines()) {
        let log = scenario
            .kubectl(&["logs", pod, "--all-containers", "--prefix", "--tail=40"])
            .await;
        show(&format!("log of {pod}"), log);
    }
    show(
        "log of the controller",
        Controller::of(&scenario.cluster).log(80).await,
    );
}

fn show(title: &str, text: anyhow::Result<String>) {
    match text {
        Ok(text) => println!("=== {title}\n{}", text.trim_end()),
        Err(error) => println!("=== {title}: {error:#}"),
    }
}
