//! The writer of a status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::{Client, Resource};
use serde_json::{Map, Value};

use crate::contract::{ProgressOf, StatusOf, Target};
use crate::decide::{Decision, Refusal, Wanted, decide_within, document};
use crate::error::WriteError;
use crate::link::{End, Link, Step};
use crate::manager::FieldManager;
use crate::observe::{Observer, WriteResult};
use crate::progress::ProgressWriter;
use crate::schema::{Dropped, SchemaFacts};

/// How to write.
#[derive(Clone)]
pub struct Settings {
    /// How long one call to the API server may take, retries of the client included. 10 s unless told otherwise.
    pub deadline: Duration,
    /// How often to write in the face of conflicts before giving up. 5 unless told otherwise.
    pub attempts: u32,
    /// What the installed definition keeps; [unknown](SchemaFacts::unknown) unless told otherwise.
    pub facts: SchemaFacts,
    /// Who hears what became of each attempt. Nobody unless told otherwise.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempts: 5,
            facts: SchemaFacts::unknown(),
            observer: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            deadline,
            attempts,
            facts,
            observer: _,
        } = self;
        f.debug_struct("Settings")
            .field("deadline", deadline)
            .field("attempts", attempts)
            .field("facts", facts)
            .finish_non_exhaustive()
    }
}

/// What became of a write, if it was no error.
#[must_use]
pub enum Outcome<K: StatusOf> {
    /// The status was written.
    Written {
        /// The object as the API server has it now.
        object: Box<K::Object>,
        /// Wanted fields that the installed definition does not keep: say it by an Event.
        dropped: Dropped,
    },
    /// The object said so already; no request was made, or the last one showed that another writer had said it.
    Unchanged {
        /// Wanted fields that the installed definition does not keep.
        dropped: Dropped,
    },
    /// The object must not be changed so; usually another pass has finished it meanwhile.
    Refused(Refusal<K::Phase>),
    /// The object is not there anymore, or another one has its name: there is nothing left to say.
    Gone,
}

// Written out, for a derive would ask the controller's empty type for the same.
impl<K: StatusOf> Clone for Outcome<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Written { object, dropped } => Self::Written {
                object: object.clone(),
                dropped: dropped.clone(),
            },
            Self::Unchanged { dropped } => Self::Unchanged {
                dropped: dropped.clone(),
            },
            Self::Refused(refusal) => Self::Refused(refusal.clone()),
            Self::Gone => Self::Gone,
        }
    }
}

impl<K: StatusOf> fmt::Debug for Outcome<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written { object, dropped } => f
                .debug_struct("Written")
                .field("object", object)
                .field("dropped", dropped)
                .finish(),
            Self::Unchanged { dropped } => f.debug_struct("Unchanged").field("dropped", dropped).finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
            Self::Gone => f.write_str("Gone"),
        }
    }
}

impl<K: StatusOf> Outcome<K> {
    /// Whether the API server has taken a patch.
    pub fn is_written(&self) -> bool {
        matches!(self, Self::Written { .. })
    }

    /// Wanted fields that the installed definition does not keep.
    pub fn dropped(&self) -> Option<&Dropped> {
        match self {
            Self::Written { dropped, .. } | Self::Unchanged { dropped } => Some(dropped),
            Self::Refused(_) | Self::Gone => None,
        }
    }
}

/// Writes the status of one kind under one field manager.
pub struct Writer<K> {
    link: Arc<Link<K>>,
    manager: FieldManager,
}

impl<K> Clone for Writer<K> {
    fn clone(&self) -> Self {
        Self {
            link: self.link.clone(),
            manager: self.manager,
        }
    }
}

impl<K> fmt::Debug for Writer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

impl<K: StatusOf> Writer<K> {
    /// A writer with default settings.
    #[must_use]
    pub fn new(client: Client, manager: FieldManager) -> Self {
        Self::with(client, manager, Settings::default())
    }

    /// A writer with these settings.
    #[must_use]
    pub fn with(client: Client, manager: FieldManager, settings: Settings) -> Self {
        Self {
            link: Arc::new(Link::new(client, settings)),
            manager,
        }
    }

    /// What is known of the installed definition by now.
    #[must_use]
    pub fn facts(&self) -> Arc<SchemaFacts> {
        self.link.facts()
    }

    /// Makes the object say what is wanted, with one request or none.
    ///
    /// `live` is the object that the pass started with; its generation is what gets recorded as observed. On a conflict
    /// the object is read again and the same wish is [decided](crate::decide) again: an object that reached a terminal
    /// phase meanwhile keeps it, and fields of others are kept.
    pub async fn write(
        &self,
        live: &K::Object,
        wanted: &Wanted<K>,
        now: Timestamp,
    ) -> Result<Outcome<K>, WriteError> {
        let generation = live.meta().generation;
        let mut sent = Value::Null;
        let mut dropped = Dropped::default();
        let end = self.link.write(self.manager, live, |facts, target, object| {
            let generation = generation.filter(|_| target == Target::Subresource);
            let verdict = decide_within(facts, object, wanted, generation, now);
            dropped = verdict.dropped;
            match verdict.decision {
                Decision::Unchanged => Step::Stop(None, WriteResult::Unchanged),
                Decision::Refused(refusal) => Step::Stop(Some(refusal), WriteResult::Refused),
                Decision::Patch(patch) => {
                    sent = verdict.target;
                    Step::Patch(patch)
                }
            }
        });
        let outcome = match end.await? {
            End::Gone => return Ok(Outcome::Gone),
            End::Stopped(Some(refusal)) => return Ok(Outcome::Refused(refusal)),
            End::Stopped(None) => Outcome::Unchanged { dropped },
            End::Written(object, stored) => {
                let typed = K::status(&object)
                    .and_then(|status| document(status).ok())
                    .unwrap_or_default();
                let stored = stored.unwrap_or_else(|| Value::Object(Map::new()));
                self.link.learn("", &sent, Some(&stored), &Value::Object(typed));
                dropped.extend(self.link.facts().fit(&mut sent, None).into_paths());
                Outcome::Written { object, dropped }
            }
        };
        match outcome.dropped() {
            Some(dropped) if dropped.contains(K::PHASE_FIELD) => Err(WriteError::PhaseNotKept {
                object: K::Object::kind(&()).into_owned(),
                field: K::PHASE_FIELD,
            }),
            _ => Ok(outcome),
        }
    }

    /// A writer for the progress of the same kind, under its own field manager, that shares what is known of the
    /// installed definition.
    #[must_use]
    pub fn progress(&self, manager: FieldManager) -> ProgressWriter<K>
    where
        K: ProgressOf,
    {
        ProgressWriter::new(self.link.clone(), manager)
    }
}
