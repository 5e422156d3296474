//! Errors of the API server, with what was being done to which object.

use std::fmt;

use holdfast_fault::{Class, Fault};
pub use holdfast_status::class_of;
use kube::Resource;

use crate::{client::DeadlineExceeded, gate::NotLeading};

/// A call to the API server failed.
///
/// kube's own error says neither what was tried nor on what; this one is made where both are known:
///
/// ```no_run
/// # use holdfast_runtime::{ApiError, ApiObject};
/// # async fn f(api: kube::Api<k8s_openapi::api::batch::v1::Job>) -> Result<(), ApiError> {
/// let job = api.get("base-1").await.map_err(|e| ApiError::new("get", ApiObject::named("Job", "ns", "base-1"), e))?;
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}")]
pub struct ApiError {
    /// What was tried, as RBAC calls it: get, list, create, patch, delete.
    pub verb: &'static str,
    /// On what.
    pub object: ApiObject,
    /// What kube says; boxed, for it is large.
    #[source]
    pub source: Box<kube::Error>,
}

impl ApiError {
    /// An error of this call.
    pub fn new(verb: &'static str, object: ApiObject, source: kube::Error) -> Self {
        Self {
            verb,
            object,
            source: Box::new(source),
        }
    }

    /// Whether the API server says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 404)
    }

    /// Whether the API server says that the object exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
    }
}

impl Fault for ApiError {
    fn class(&self) -> Class {
        class_of(&self.source)
    }

    fn reason(&self) -> &'static str {
        match self.class() {
            Class::Invalid => "ApiRejected",
            Class::Denied => "ApiForbidden",
            Class::Conflict => "ApiConflict",
            Class::Transient => "ApiUnavailable",
        }
    }
}

/// Whether a call was given up at its deadline.
pub fn is_deadline(error: &kube::Error) -> bool {
    caused_by::<DeadlineExceeded>(error)
}

/// Whether a write was refused because this process no longer leads.
pub fn is_not_leading(error: &kube::Error) -> bool {
    caused_by::<NotLeading>(error)
}

fn caused_by<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source()).any(<dyn std::error::Error>::is::<E>)
}

/// Kind, namespace and name, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiObject {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl ApiObject {
    /// A namespaced object by name.
    pub fn named(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    /// A cluster-scoped object by name.
    pub fn cluster(kind: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// This object.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.meta().namespace.clone(),
            name: object.meta().name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ApiObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// An error and its causes in one line, without repeating a cause that its parent's message already holds.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    for cause in std::iter::successors(error.source(), |e| e.source()) {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        last = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_fault::{Class, Fault};

    use super::{ApiError, ApiObject, chain, is_deadline, is_not_leading};
    use crate::{client::DeadlineExceeded, gate::NotLeading};

    fn api(code: u16, reason: &str) -> ApiError {
        let status = kube::core::Status::failure("why", reason).with_code(code);
        ApiError::new(
            "patch",
            ApiObject::named("Job", "ns", "j"),
            kube::Error::Api(status.boxed()),
        )
    }

    #[test]
    fn the_message_names_the_object_and_the_cause() {
        assert_eq!(api(403, "Forbidden").to_string(), "cannot patch Job ns/j");
        assert!(chain(&api(403, "Forbidden")).starts_with("cannot patch Job ns/j: ApiError: why"));
        assert_eq!(ApiObject::cluster("Node", "n").to_string(), "Node n");
    }

    #[test]
    fn the_class_follows_the_status() {
        assert_eq!(api(403, "Forbidden").class(), Class::Denied);
        assert_eq!(api(422, "Invalid").class(), Class::Invalid);
        assert_eq!(api(503, "").reason(), "ApiUnavailable");
        assert!(api(409, "AlreadyExists").is_already_exists() && !api(409, "Conflict").is_already_exists());
        assert!(api(404, "NotFound").is_not_found());
    }

    #[test]
    fn a_deadline_and_a_lost_lease_are_found_behind_kubes_error() {
        let exceeded = DeadlineExceeded {
            method: http::Method::GET,
            path: "/".into(),
            deadline: Duration::from_secs(1),
        };
        let deadline = kube::Error::Service(Box::new(exceeded));
        assert!(is_deadline(&deadline) && !is_not_leading(&deadline));
        assert!(is_not_leading(&kube::Error::Service(Box::new(NotLeading))));
        let error = ApiError::new("get", ApiObject::cluster("Node", "n"), deadline);
        assert_eq!(error.class(), Class::Transient);
    }
}
