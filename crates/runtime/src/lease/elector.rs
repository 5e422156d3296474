//! The election against the API server.

use std::{pin::pin, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio_util::sync::CancellationToken;

use super::{
    Timing,
    state::{Seen, State, Step},
};
use crate::{
    api_error::{ApiError, ApiObject, chain},
    clock::{self, Tick},
    gate::Gate,
};

/// How long an attempt that is in flight may take when the process shall end.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Leadership is lost, and why.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The Lease is held by somebody else, or was deleted.
    #[error("the lease is held by {holder:?}")]
    Taken {
        /// The holder; empty when nobody is.
        holder: String,
    },
    /// No renewal succeeded in time.
    #[error("the lease could not be renewed within {} ms", .0.as_millis())]
    RenewDeadline(Duration),
}

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    object: ApiObject,
    name: String,
    timing: Timing,
    state: State,
    /// The Lease as last read or written: its version is what the next PUT is compared with.
    last: Option<Lease>,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector")
            .field("object", &self.object)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// One term of leadership, from winning the Lease until losing or releasing it.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// Open while the term lasts; never again afterwards.
    pub gate: Gate,
    /// How often the Lease has changed hands, which names the term.
    pub number: i32,
}

impl Elector {
    /// A candidate named `identity` for this Lease.
    ///
    /// `client` must not be gated: the renewal is what keeps the gate open.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: impl Into<String>,
        timing: Timing,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            object: ApiObject::named("Lease", namespace, name),
            name: name.to_owned(),
            timing,
            state: State::new(identity, timing),
            last: None,
        }
    }

    /// This candidate's identity.
    pub fn identity(&self) -> &str {
        self.state.me()
    }

    /// Tries until the Lease is won, or `None` when `stop` is cancelled first.
    ///
    /// `standing_by` is called once the Lease was read and belongs to somebody else: then this replica is a healthy standby.
    pub async fn acquire(&mut self, stop: &CancellationToken, standing_by: impl Fn()) -> Option<Tenure> {
        let given_up = async {
            stop.cancelled().await;
            // An attempt in flight may be about to win; dropping it would leave the Lease to expire.
            tokio::time::sleep(STOP_GRACE).await;
        };
        let mut given_up = pin!(given_up);
        loop {
            let attempt = tokio::select! {
                attempt = self.attempt() => attempt,
                () = given_up.as_mut() => return None,
            };
            match attempt {
                Ok(Step::Wait) => standing_by(),
                // Our own name on a Lease we do not hold can only be an answer that got lost: `attempt` has renewed it.
                Ok(Step::Create | Step::Take | Step::Renew) => {
                    if let Some(until) = self.state.until().filter(|_| self.state.leads(Tick::now())) {
                        let number = self
                            .last
                            .as_ref()
                            .and_then(|l| l.spec.as_ref()?.lease_transitions)
                            .unwrap_or(0);
                        tracing::info!(lease = %self.object, identity = self.identity(), term = number, "leading");
                        return Some(Tenure {
                            gate: Gate::until(until),
                            number,
                        });
                    }
                }
                Err(error) => tracing::warn!(error = chain(&error), "cannot take part in the election"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(jittered(self.timing.retry_period)) => {}
            }
        }
    }

    /// Renews until leadership is lost, and says why. Ends by itself only then; drop it to stop renewing.
    ///
    /// When it returns, the gate of the term is closed.
    pub async fn keep(&mut self, term: &Tenure) -> LeaseError {
        loop {
            let left = match term.gate.remaining(Tick::now()) {
                Ok(left) => left.unwrap_or(self.timing.renew_deadline),
                Err(_) => return self.lost(term, LeaseError::RenewDeadline(self.timing.renew_deadline)),
            };
            let pause = jittered(self.timing.retry_period).min(left);
            tokio::time::sleep(pause).await;
            // The process may have been stopped in that sleep: nothing is asked before the clock.
            if term.gate.check().is_err() {
                return self.lost(term, LeaseError::RenewDeadline(self.timing.renew_deadline));
            }
            let attempt = tokio::select! {
                biased;
                () = term.gate.lost() => continue,
                attempt = tokio::time::timeout(self.timing.renew_deadline / 2, self.attempt()) => attempt,
            };
            let Ok(attempt) = attempt else {
                tracing::warn!(lease = %self.object, "the API server does not answer; the lease is not renewed");
                continue;
            };
            match attempt {
                Ok(Step::Renew) => {
                    if let Some(until) = self.state.until() {
                        term.gate.extend(until);
                    }
                }
                Ok(Step::Wait | Step::Create | Step::Take) => {
                    let holder = self
                        .last
                        .as_ref()
                        .and_then(|l| l.spec.as_ref()?.holder_identity.clone());
                    return self.lost(
                        term,
                        LeaseError::Taken {
                            holder: holder.unwrap_or_default(),
                        },
                    );
                }
                Err(error) => tracing::warn!(error = chain(&error), "cannot renew the lease"),
            }
        }
    }

    /// Gives the Lease up, so that a standby need not wait for its expiry. Call it only when all work has stopped.
    pub async fn release(&mut self, term: &Tenure) {
        term.gate.close();
        self.state.released();
        let Some(mut lease) = self.last.take() else { return };
        let ours = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(self.state.me());
        if !ours {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(clock::now()));
        }
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => tracing::info!(lease = %self.object, "lease released"),
            Err(error) => {
                let error = ApiError::new("update", self.object.clone(), error);
                tracing::warn!(error = chain(&error), "cannot release the lease; it will expire");
            }
        }
    }

    fn lost(&mut self, term: &Tenure, error: LeaseError) -> LeaseError {
        term.gate.close();
        self.state.released();
        error
    }

    /// Reads the Lease and does what the state says. The step tells what was done; a write that lost the race is [`Step::Wait`].
    async fn attempt(&mut self) -> Result<Step, ApiError> {
        let read = self
            .api
            .get_opt(&self.name)
            .await
            .map_err(|e| self.error("get", e))?;
        let step = self.state.see(read.as_ref().map(seen), Tick::now());
        self.last.clone_from(&read);
        if step == Step::Wait {
            return Ok(step);
        }
        let begun = Tick::now();
        let body = self.body(read.as_ref(), step);
        let params = PostParams::default();
        let (verb, written) = match step {
            Step::Create => ("create", self.api.create(&params, &body).await),
            Step::Take | Step::Renew | Step::Wait => {
                ("update", self.api.replace(&self.name, &params, &body).await)
            }
        };
        match written {
            Ok(lease) => {
                self.state.won(seen(&lease), begun);
                self.last = Some(lease);
                Ok(step)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                // Somebody was faster. Whose it is now, the next read tells.
                tracing::debug!(lease = %self.object, "somebody else wrote the lease first");
                Ok(if step == Step::Renew {
                    self.reread().await?
                } else {
                    Step::Wait
                })
            }
            Err(error) => Err(self.error(verb, error)),
        }
    }

    /// After a renewal that met a conflict: still ours (somebody touched its metadata), or not.
    async fn reread(&mut self) -> Result<Step, ApiError> {
        let read = self
            .api
            .get_opt(&self.name)
            .await
            .map_err(|e| self.error("get", e))?;
        let step = self.state.see(read.as_ref().map(seen), Tick::now());
        self.last = read;
        // Ours: not renewed by this attempt, so the end does not move, and the next attempt comes in time.
        Ok(step)
    }

    fn error(&self, verb: &'static str, error: kube::Error) -> ApiError {
        ApiError::new(verb, self.object.clone(), error)
    }

    fn body(&self, read: Option<&Lease>, step: Step) -> Lease {
        let now = MicroTime(clock::now());
        let old = read.and_then(|l| l.spec.clone()).unwrap_or_default();
        let renewed = step == Step::Renew;
        let transitions = old.lease_transitions.unwrap_or(0);
        Lease {
            metadata: read.map_or_else(
                || ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                acquire_time: if renewed {
                    old.acquire_time.clone()
                } else {
                    Some(now.clone())
                },
                holder_identity: Some(self.state.me().to_owned()),
                lease_duration_seconds: Some(
                    i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX),
                ),
                lease_transitions: Some(if renewed || read.is_none() {
                    transitions
                } else {
                    transitions + 1
                }),
                renew_time: Some(now),
                ..old
            }),
        }
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|s| s.lease_duration_seconds).unwrap_or(0);
    Seen {
        holder: spec.and_then(|s| s.holder_identity.clone()).unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        renewed: spec
            .and_then(|s| s.renew_time.as_ref())
            .map(|t| t.0.to_string())
            .unwrap_or_default(),
        transitions: spec.and_then(|s| s.lease_transitions).unwrap_or(0),
    }
}

/// Up to a fifth shorter, so that candidates that started together do not stay in step.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(1.0 - fastrand::f64() / 5.0)
}

/// A name for this process that no other has, not even its successor in the same pod.
pub(crate) fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".to_owned());
    format!("{}_{:016x}", host.trim(), fastrand::u64(..))
}
