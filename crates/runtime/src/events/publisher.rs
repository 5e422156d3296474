//! The task that writes Events, one after the other, and folds repetitions into series.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;

use super::{NOTE_LIMIT, Note, Severity, truncated};
use crate::{
    api_error::{ApiError, ApiObject, chain},
    clock,
    metrics::{Counter, EventResult},
};

/// How long a repetition joins the series of the Event before it; below the API server's hour.
const SERIES: Duration = Duration::from_mins(10);
/// How many series are remembered.
const REMEMBERED: usize = 1024;
/// What a name of an object may have, and what ours adds to the object's.
const NAME_LIMIT: usize = 253;
const SUFFIX: usize = 1 + 16;

/// What makes two Events the same. The text belongs to it: a new cause is a new Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    severity: Severity,
    reason: &'static str,
    action: &'static str,
    text: String,
}

struct Series {
    name: String,
    count: i32,
    last: Instant,
}

pub(super) struct Publisher {
    client: Client,
    controller: &'static str,
    instance: String,
    results: Counter<(EventResult,)>,
    series: HashMap<Key, Series>,
}

impl Publisher {
    pub(super) fn new(
        client: Client,
        controller: &'static str,
        instance: String,
        results: Counter<(EventResult,)>,
    ) -> Self {
        Self {
            client,
            controller,
            instance,
            results,
            series: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<(ObjectReference, Note)>) {
        while let Some((regarding, note)) = waiting.recv().await {
            let reason = note.reason;
            let result = self.publish(&regarding, note).await;
            self.results.inc((if result.is_ok() {
                EventResult::Published
            } else {
                EventResult::Failed
            },));
            if let Err(error) = result {
                tracing::info!(
                    error = chain(&error),
                    reason,
                    object = regarding.name,
                    "event not published"
                );
            }
        }
    }

    async fn publish(&mut self, regarding: &ObjectReference, note: Note) -> Result<(), ApiError> {
        let text = truncated(&note.text, NOTE_LIMIT);
        let key = Key {
            kind: regarding.kind.clone(),
            namespace: regarding.namespace.clone(),
            name: regarding.name.clone(),
            uid: regarding.uid.clone(),
            severity: note.severity,
            reason: note.reason,
            action: note.action,
            text,
        };
        self.series.retain(|_, series| series.last.elapsed() < SERIES);
        // Events about cluster-scoped objects live in the default namespace.
        let namespace = regarding.namespace.as_deref().unwrap_or("default");
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let now = MicroTime(clock::now());
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            series.last = Instant::now();
            let observed = EventSeries {
                count: series.count,
                last_observed_time: now.clone(),
            };
            let patch = Event {
                series: Some(observed),
                ..Event::default()
            };
            match api
                .patch(&series.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => return Ok(()),
                // The API server has forgotten the first one: begin anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    return Err(ApiError::new(
                        "patch",
                        event_object(namespace, &series.name),
                        error,
                    ));
                }
            }
        }
        let event = self.event(regarding, &key, note.related, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        let created = api.create(&PostParams::default(), &event).await;
        created.map_err(|e| ApiError::new("create", event_object(namespace, &name), e))?;
        if self.series.len() < REMEMBERED {
            self.series.insert(
                key,
                Series {
                    name,
                    count: 1,
                    last: Instant::now(),
                },
            );
        }
        Ok(())
    }

    fn event(
        &self,
        regarding: &ObjectReference,
        key: &Key,
        related: Option<ObjectReference>,
        now: MicroTime,
    ) -> Event {
        let name = event_name(
            regarding.name.as_deref().unwrap_or(self.controller),
            fastrand::u64(..),
        );
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(
                    regarding
                        .namespace
                        .clone()
                        .unwrap_or_else(|| "default".to_owned()),
                ),
                ..ObjectMeta::default()
            },
            action: Some(key.action.to_owned()),
            reason: Some(key.reason.to_owned()),
            note: Some(key.text.clone()),
            type_: Some(<&'static str>::from(key.severity).to_owned()),
            event_time: Some(now),
            regarding: Some(regarding.clone()),
            related,
            reporting_controller: Some(format!("holdfast/{}", self.controller)),
            reporting_instance: Some(truncated(&self.instance, 128)),
            ..Event::default()
        }
    }
}

fn event_object(namespace: &str, name: &str) -> ApiObject {
    ApiObject::named("Event", namespace, name)
}

/// The object's name, cut so that the whole stays a valid name, and a random suffix.
fn event_name(object: &str, random: u64) -> String {
    // Object names are ASCII; a cut may leave a dot or a dash at the end, which no name part may end in.
    let cut = &object[..object.floor_char_boundary(NAME_LIMIT - SUFFIX)];
    format!("{}.{random:016x}", cut.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use super::{NAME_LIMIT, event_name};

    #[test]
    fn the_longest_object_name_still_gives_a_valid_event_name() {
        assert_eq!(event_name("backup", 0xff), "backup.00000000000000ff");
        let name = event_name(&"a".repeat(253), u64::MAX);
        assert_eq!(name.len(), NAME_LIMIT);
        let dotted = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        assert!(event_name(&dotted, 0).starts_with(&format!("{}.0000", "a".repeat(235))));
    }
}
