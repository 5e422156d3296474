//! One pass: span, deadline, panic guard, metrics, and when to come back.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast_fault::{Class, Fault};
use kube::{Resource, ResourceExt, runtime::controller::Action};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, field::Empty};

use super::{Attempts, Next, policy::Policy, uid};
use crate::{
    api_error::chain,
    metrics::{ControllerName, Label, Outcome, Standard},
};

/// Runs passes and remembers how often each object failed.
pub(super) struct Passes {
    controller: ControllerName,
    standard: Standard,
    policy: Policy,
    deadline: Duration,
    attempts: Mutex<Attempts>,
}

impl Passes {
    pub(super) fn new(
        controller: ControllerName,
        standard: Standard,
        policy: Policy,
        deadline: Duration,
    ) -> Self {
        Self {
            controller,
            standard,
            policy,
            deadline,
            attempts: Mutex::default(),
        }
    }

    /// Forgets the failures of an object that is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.attempts(|attempts| attempts.remove(uid));
    }

    /// Runs `pass` for `object` as a task of its own, so that passes use all processors and a panic ends only itself.
    pub(super) async fn run<K, Fut, E>(
        self: Arc<Self>,
        object: Arc<K>,
        pass: Fut,
    ) -> Result<Action, Infallible>
    where
        K: Resource<DynamicType = ()>,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: Fault + Send + Sync + 'static,
    {
        let span = tracing::info_span!(
            "reconcile",
            controller = self.controller.as_str(),
            namespace = object.namespace(),
            name = object.name_any(),
            uid = object.uid(),
            generation = object.meta().generation,
            outcome = Empty,
        );
        let begun = Instant::now();
        let task = AbortOnDropHandle::new(tokio::spawn(pass.instrument(span.clone())));
        let result = tokio::time::timeout(self.deadline, task).await;
        let (outcome, action) = span.in_scope(|| self.conclude(&uid(&*object), result));
        span.record("outcome", outcome.as_str());
        let took = begun.elapsed();
        span.in_scope(|| tracing::debug!(outcome = outcome.as_str(), ms = took.as_millis(), "pass ended"));
        self.standard.reconciliations.inc((self.controller, outcome));
        self.standard.duration.observe_duration((self.controller,), took);
        Ok(action)
    }

    fn conclude<E: Fault + 'static>(
        &self,
        uid: &str,
        result: Result<Result<Result<Next, E>, tokio::task::JoinError>, tokio::time::error::Elapsed>,
    ) -> (Outcome, Action) {
        let error = match result {
            Ok(Ok(Ok(next))) => {
                self.forget(uid);
                return match next {
                    Next::AwaitChange => (
                        Outcome::Completed,
                        Action::requeue(self.policy.resync(fastrand::f64())),
                    ),
                    Next::After(delay) => (Outcome::Waiting, Action::requeue(delay)),
                };
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(join)) => {
                let delay = self.failed(uid, Class::Transient);
                tracing::error!(error = %join, retry_ms = delay.as_millis(), "pass panicked; this is a defect");
                return (Outcome::Panicked, Action::requeue(delay));
            }
            Err(_) => {
                let delay = self.failed(uid, Class::Transient);
                let (deadline_ms, retry_ms) = (self.deadline.as_millis(), delay.as_millis());
                tracing::warn!(deadline_ms, retry_ms, "pass did not end before its deadline");
                return (Outcome::TimedOut, Action::requeue(delay));
            }
        };
        let (class, reason, text) = (error.class(), error.reason(), chain(&error));
        let delay = self.failed(uid, class);
        let retry_ms = delay.as_millis();
        match class {
            Class::Conflict => tracing::info!(error = text, reason, retry_ms, "somebody else wrote first"),
            Class::Invalid | Class::Denied | Class::Transient => {
                tracing::warn!(
                    error = text,
                    class = class.as_str(),
                    reason,
                    retry_ms,
                    "pass failed"
                );
            }
        }
        let outcome = match class {
            Class::Invalid => Outcome::Invalid,
            Class::Denied => Outcome::Denied,
            Class::Conflict => Outcome::Conflict,
            Class::Transient => Outcome::Transient,
        };
        (outcome, Action::requeue(delay))
    }

    fn failed(&self, uid: &str, class: Class) -> Duration {
        let attempt = self.attempts(|attempts| {
            let failures = attempts.entry(uid.to_owned()).or_default();
            let attempt = *failures;
            *failures = failures.saturating_add(1);
            attempt
        });
        self.policy.after_error(class, attempt, fastrand::f64())
    }

    fn attempts<T>(&self, f: impl FnOnce(&mut Attempts) -> T) -> T {
        f(&mut self.attempts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
