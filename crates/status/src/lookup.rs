//! Reading the installed definition, once at start-up.

use std::time::Duration;

use holdfast_fault::{Class, Fault};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource};

use crate::contract::StatusOf;
use crate::error::class_of;
use crate::schema::SchemaFacts;

/// Why the installed definition could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The definition is not installed.
    #[error("the definition {name} is not installed")]
    NotInstalled {
        /// The name of the definition: plural, dot, group.
        name: String,
    },
    /// The definition does not have the version that the program was built for.
    #[error("the definition {name} has no version {version}")]
    NoVersion {
        /// The name of the definition.
        name: String,
        /// The version.
        version: String,
    },
    /// The API server did not answer in time.
    #[error("reading the definition {name} did not end within {} ms", .deadline.as_millis())]
    Deadline {
        /// The name of the definition.
        name: String,
        /// The deadline.
        deadline: Duration,
    },
    /// The API server refused or failed.
    #[error("reading the definition {name} failed")]
    Api {
        /// The name of the definition.
        name: String,
        /// What the API server or the transport said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Fault for LookupError {
    fn class(&self) -> Class {
        match self {
            Self::NotInstalled { .. } | Self::NoVersion { .. } => Class::Invalid,
            Self::Deadline { .. } => Class::Transient,
            Self::Api { source, .. } => class_of(source),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotInstalled { .. } => "DefinitionNotInstalled",
            Self::NoVersion { .. } => "DefinitionVersionMissing",
            Self::Deadline { .. } => "DefinitionTimeout",
            Self::Api { .. } => "DefinitionUnreadable",
        }
    }
}

impl SchemaFacts {
    /// Reads what the installed definition keeps. `name` is plural, dot, group.
    ///
    /// If reading definitions is forbidden, the facts are [unknown](SchemaFacts::unknown), and a
    /// [`Writer`](crate::Writer) learns from the API server's answers instead.
    pub async fn read(
        client: &Client,
        name: &str,
        version: &str,
        deadline: Duration,
    ) -> Result<Self, LookupError> {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let definition = match tokio::time::timeout(deadline, api.get(name)).await {
            Err(_) => {
                return Err(LookupError::Deadline {
                    name: name.to_owned(),
                    deadline,
                });
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                tracing::info!(
                    definition = name,
                    "reading definitions is forbidden; learning from answers instead"
                );
                return Ok(Self::unknown());
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return Err(LookupError::NotInstalled {
                    name: name.to_owned(),
                });
            }
            Ok(Err(error)) => {
                return Err(LookupError::Api {
                    name: name.to_owned(),
                    source: Box::new(error),
                });
            }
            Ok(Ok(definition)) => definition,
        };
        Self::from_definition(&definition.data, version).ok_or_else(|| LookupError::NoVersion {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Reads what the installed definition of a kind keeps, as [`SchemaFacts::read`] does.
    pub async fn read_for<K: StatusOf>(client: &Client, deadline: Duration) -> Result<Self, LookupError> {
        let name = format!("{}.{}", K::Object::plural(&()), K::Object::group(&()));
        Self::read(client, &name, &K::Object::version(&()), deadline).await
    }
}
