//! What can go wrong between this controller and the API server.

use holdfast_fault::{Class, Fault};
use holdfast_runtime::{ApiError, ApiObject};

/// An error of a pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Neither told nor found out.
    #[error("which image the jobs run is unknown: set --agent-image, or POD_NAME and POD_NAMESPACE")]
    ImageUnknown,
    /// What the installed definition keeps could not be found out.
    #[error("cannot read the definition of PostgresBackup")]
    Definition(#[source] holdfast_status::LookupError),
    /// The status could not be written.
    #[error("cannot write the status")]
    Status(#[source] holdfast_status::WriteError),
}

impl Error {
    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_not_found())
    }

    /// The API server's words, where it refused the request for a cause that repeating it does not remove.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api(error) if matches!(error.class(), Class::Invalid | Class::Denied) => {
                match &*error.source {
                    kube::Error::Api(status) => Some(&status.message),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Fault for Error {
    fn class(&self) -> Class {
        match self {
            Self::Api(error) => error.class(),
            Self::ImageUnknown => Class::Invalid,
            Self::Definition(error) => error.class(),
            Self::Status(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Api(error) => error.reason(),
            Self::ImageUnknown => "ImageUnknown",
            Self::Definition(error) => error.reason(),
            Self::Status(error) => error.reason(),
        }
    }
}

/// Awaits a call to the API server and says, should it fail, what was tried on what. An empty namespace stands for none.
pub(crate) async fn call<T>(
    verb: &'static str,
    kind: &str,
    namespace: &str,
    name: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let object = || match namespace {
        "" => ApiObject::cluster(kind, name),
        namespace => ApiObject::named(kind, namespace, name),
    };
    Ok(call
        .await
        .map_err(|source| ApiError::new(verb, object(), source))?)
}
