//! Why a status could not be written.

use std::time::Duration;

use holdfast_fault::{Class, Fault};

/// Why a status could not be written.
///
/// An object that is gone and an edge that is refused are no errors but [outcomes](crate::Outcome).
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Other writers were faster, each time.
    #[error("{object}: still in conflict with other writers after {attempts} attempts")]
    Conflict {
        /// Kind, namespace and name.
        object: String,
        /// How many writes were tried.
        attempts: u32,
    },
    /// The API server did not answer in time. The write may have happened; the next pass will see.
    #[error("{object}: {call} did not end within {} ms", .deadline.as_millis())]
    Deadline {
        /// Kind, namespace and name.
        object: String,
        /// What was being done.
        call: &'static str,
        /// The deadline of one call.
        deadline: Duration,
    },
    /// The API server refused or failed.
    #[error("{object}: {call} failed")]
    Api {
        /// Kind, namespace and name.
        object: String,
        /// What was being done.
        call: &'static str,
        /// What the API server or the transport said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object handed in was not read from an API server: it lacks a name or a resourceVersion.
    #[error("{object}: metadata.{field} is missing, so the object was not read from the API server")]
    Unread {
        /// Kind, namespace and name.
        object: String,
        /// What is missing.
        field: &'static str,
    },
    /// The API server sent something that is not the kind.
    #[error("{object}: the API server's answer is not of the kind")]
    Malformed {
        /// Kind, namespace and name.
        object: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The installed definition does not keep the phase, so nothing worth writing is left.
    #[error("{object}: the installed definition does not keep status.{field}")]
    PhaseNotKept {
        /// The kind.
        object: String,
        /// The JSON name of the phase.
        field: &'static str,
    },
}

impl Fault for WriteError {
    fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } => Class::Conflict,
            Self::Deadline { .. } => Class::Transient,
            Self::Api { source, .. } => class_of(source),
            Self::Unread { .. } | Self::Malformed { .. } | Self::PhaseNotKept { .. } => Class::Invalid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "StatusConflict",
            Self::Deadline { .. } => "StatusTimeout",
            Self::Api { source, .. } => match class_of(source) {
                Class::Invalid => "StatusRejected",
                Class::Denied => "StatusForbidden",
                Class::Conflict => "StatusConflict",
                Class::Transient => "StatusWriteFailed",
            },
            Self::Unread { .. } => "StatusUnread",
            Self::Malformed { .. } => "StatusMalformed",
            Self::PhaseNotKept { .. } => "StatusPhaseNotKept",
        }
    }
}

/// The class of an error of kube: by HTTP status where the server answered.
pub fn class_of(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => Class::of_http_status(status.code),
        // A request that cannot be built, or an answer that is not of the kind, stays so.
        kube::Error::BuildRequest(_) | kube::Error::SerdeError(_) => Class::Invalid,
        kube::Error::Auth(_) => Class::Denied,
        _ => Class::Transient,
    }
}
