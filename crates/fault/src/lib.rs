//! The one classification of errors that all Holdfast crates share.
//!
//! Every error enum of the workspace answers two questions: *what should be done about it* ([`Class`]) and *what is it
//! called* (a `reason`, one CamelCase word for conditions, Events and metrics). The reconcile runner turns the class into
//! a retry policy without knowing the error's type.
//!
//! # Why a crate of its own
//!
//! `holdfast-status` and `holdfast-runtime` know Kubernetes; `holdfast-store`, `holdfast-kopia` and `holdfast-walg` must
//! not. An agent's S3 error and a controller's API error meet in the same pass, so both sides need the same type, and it
//! can live in neither: below all of them there was no crate without I/O or API types. Four variants and a trait,
//! without dependencies besides `strum`, are cheaper than two enums and a conversion that drifts.

/// What should be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// The input is wrong: the same attempt fails again until somebody changes the object, so wait for a change.
    Invalid,
    /// Rights or credentials are missing: somebody must act elsewhere, where no watch tells us, so retry slowly.
    Denied,
    /// Somebody else wrote first: read again and decide again at once.
    Conflict,
    /// The other side is slow, down or overloaded: retry with exponential back-off and jitter.
    Transient,
}

impl Class {
    /// The name in snake case, as used for metric labels and log fields.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the same attempt may succeed later without a change to its input.
    pub const fn is_retryable(self) -> bool {
        !matches!(self, Self::Invalid)
    }

    /// The class that an HTTP status has, whether the Kubernetes API server or an S3 endpoint sent it.
    ///
    /// A caller to whom a status means something particular (404 for an object that may be absent) looks at it first.
    /// Anything that is no client error counts as transient, because a proxy in between may answer whatever it likes.
    pub const fn of_http_status(status: u16) -> Self {
        match status {
            401 | 403 | 407 => Self::Denied,
            409 | 412 => Self::Conflict,
            408 | 425 | 429 => Self::Transient,
            400..=499 => Self::Invalid,
            _ => Self::Transient,
        }
    }
}

/// An error that says what should be done about it.
pub trait Fault: std::error::Error {
    /// What should be done about the error.
    fn class(&self) -> Class;

    /// One CamelCase word for conditions, Events and metrics; from a closed set, never built from input.
    fn reason(&self) -> &'static str;
}

impl<E: Fault> Fault for Box<E> {
    fn class(&self) -> Class {
        E::class(self)
    }

    fn reason(&self) -> &'static str {
        E::reason(self)
    }
}

impl<E: Fault> Fault for std::sync::Arc<E> {
    fn class(&self) -> Class {
        E::class(self)
    }

    fn reason(&self) -> &'static str {
        E::reason(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Class;

    #[test]
    fn names_are_snake_case() {
        let names = [Class::Invalid, Class::Denied, Class::Conflict, Class::Transient].map(Class::as_str);
        assert_eq!(names, ["invalid", "denied", "conflict", "transient"]);
    }

    #[test]
    fn only_invalid_input_waits_for_a_change() {
        assert!(!Class::Invalid.is_retryable());
        assert!(
            Class::Denied.is_retryable() && Class::Conflict.is_retryable() && Class::Transient.is_retryable()
        );
    }

    #[test]
    fn http_statuses_have_the_class_a_client_should_act_upon() {
        for (status, class) in [
            (400, Class::Invalid),
            (401, Class::Denied),
            (403, Class::Denied),
            (404, Class::Invalid),
            (408, Class::Transient),
            (409, Class::Conflict),
            (412, Class::Conflict),
            (422, Class::Invalid),
            (429, Class::Transient),
            (500, Class::Transient),
            (503, Class::Transient),
            (302, Class::Transient),
        ] {
            assert_eq!(Class::of_http_status(status), class, "{status}");
        }
    }
}
