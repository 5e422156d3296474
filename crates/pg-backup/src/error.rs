//! What can go wrong between this controller and the API server.

use holdfast_fault::{Class, Fault};

/// An error of a pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("failed to {verb} {object}")]
    Api {
        /// What was being done.
        verb: &'static str,
        /// Name of the object.
        object: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// Neither told nor found out.
    #[error("which image the jobs run is unknown: set --agent-image, or POD_NAME and POD_NAMESPACE")]
    ImageUnknown,
    /// What the installed definition keeps could not be found out.
    #[error("failed to read the definition of PostgresBackup")]
    Definition(#[source] holdfast_status::LookupError),
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] holdfast_status::WriteError),
}

impl Error {
    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(s) if s.code == 404))
    }

    /// The API server's words, where it refused the request for a cause that repeating it does not remove.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if matches!(self.class(), Class::Invalid | Class::Denied) => {
                    Some(&status.message)
                }
                _ => None,
            },
            Self::Status(_) | Self::Definition(_) | Self::ImageUnknown => None,
        }
    }
}

impl Fault for Error {
    fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Class::of_http_status(status.code),
                _ => Class::Transient,
            },
            Self::Status(error) => error.class(),
            Self::Definition(error) => error.class(),
            Self::ImageUnknown => Class::Invalid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "ApiCallFailed",
            Self::Status(error) => error.reason(),
            Self::Definition(error) => error.reason(),
            Self::ImageUnknown => "ImageUnknown",
        }
    }
}

/// Awaits a call to the API server and says, should it fail, what was being done.
pub(crate) async fn call<T>(
    verb: &'static str,
    object: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    call.await.map_err(|source| Error::Api {
        verb,
        object: object.to_owned(),
        source: Box::new(source),
    })
}
