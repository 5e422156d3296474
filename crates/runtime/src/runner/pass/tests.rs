use std::{sync::Arc, time::Duration};

use holdfast_fault::{Class, Fault};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::controller::Action;

use super::Passes;
use crate::{
    metrics::{ControllerName, Metrics, Outcome, Standard},
    runner::{Next, Policy},
};

#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failure(Class);

impl Fault for Failure {
    fn class(&self) -> Class {
        self.0
    }
    fn reason(&self) -> &'static str {
        "Failed"
    }
}

const NAME: ControllerName = ControllerName("test");
const DEADLINE: Duration = Duration::from_mins(1);

struct Fixture {
    metrics: Metrics,
    passes: Arc<Passes>,
    object: Arc<ConfigMap>,
}

impl Fixture {
    fn new() -> Self {
        let metrics = Metrics::new();
        let standard = Standard::register(&metrics, "1.0.0").unwrap();
        let mut object = ConfigMap::default();
        object.metadata.name = Some("secret-customer-name".into());
        object.metadata.namespace = Some("tenant-a".into());
        object.metadata.uid = Some("0b1c".into());
        let passes = Arc::new(Passes::new(NAME, standard, Policy::default(), DEADLINE));
        Self {
            metrics,
            passes,
            object: Arc::new(object),
        }
    }

    async fn run(&self, pass: impl Future<Output = Result<Next, Failure>> + Send + 'static) -> Action {
        self.passes.clone().run(self.object.clone(), pass).await.unwrap()
    }

    /// How long the action waits, by comparing with what the policy gives without and with the whole jitter.
    async fn fails(&self, class: Class) -> Action {
        self.run(async move { Err(Failure(class)) }).await
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.passes.standard.reconciliations.get((NAME, outcome))
    }

    fn attempts(&self) -> u32 {
        self.passes.attempts(|a| a.get("0b1c").copied().unwrap_or(0))
    }
}

#[tokio::test]
async fn waiting_is_no_error_and_success_forgets_failures() {
    let fixture = Fixture::new();
    fixture.fails(Class::Transient).await;
    fixture.fails(Class::Transient).await;
    assert_eq!(fixture.attempts(), 2);
    let action = fixture
        .run(async { Ok(Next::After(Duration::from_secs(7))) })
        .await;
    assert_eq!(action, Action::requeue(Duration::from_secs(7)));
    assert_eq!(fixture.attempts(), 0);
    fixture.run(async { Ok(Next::AwaitChange) }).await;
    assert_eq!(
        (fixture.count(Outcome::Waiting), fixture.count(Outcome::Completed)),
        (1, 1)
    );
    assert_eq!(fixture.count(Outcome::Transient), 2);
}

#[tokio::test]
async fn each_class_is_counted_as_such() {
    let fixture = Fixture::new();
    for class in [Class::Invalid, Class::Denied, Class::Conflict, Class::Transient] {
        fixture.fails(class).await;
    }
    for outcome in [
        Outcome::Invalid,
        Outcome::Denied,
        Outcome::Conflict,
        Outcome::Transient,
    ] {
        assert_eq!(fixture.count(outcome), 1, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_hangs_ends_at_its_deadline_and_is_aborted() {
    let fixture = Fixture::new();
    let alive = Arc::new(());
    let held = alive.clone();
    fixture
        .run(async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(Next::AwaitChange)
        })
        .await;
    assert_eq!((fixture.count(Outcome::TimedOut), fixture.attempts()), (1, 1));
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 1, "the pass was dropped");
}

#[tokio::test]
async fn a_panic_ends_one_pass_only() {
    let fixture = Fixture::new();
    fixture.run(async { panic!("a defect") }).await;
    fixture.run(async { Ok(Next::AwaitChange) }).await;
    assert_eq!(
        (
            fixture.count(Outcome::Panicked),
            fixture.count(Outcome::Completed)
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn metrics_do_not_know_the_object() {
    let fixture = Fixture::new();
    fixture.fails(Class::Denied).await;
    let text = fixture.metrics.render().unwrap();
    assert!(text.contains("holdfast_reconciliations_total{controller=\"test\",outcome=\"denied\"} 1"));
    for secret in ["secret-customer-name", "tenant-a", "0b1c"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
