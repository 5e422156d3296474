//! Events (`events.k8s.io/v1`): what a person sees in `kubectl describe`.
//!
//! Publishing never fails a pass and never makes one wait: an Event goes into a short queue that one task empties. What the API server
//! refuses, or what does not fit into the queue, is counted (`holdfast_events_total`) and logged.
//!
//! kube's `Recorder` is not used for three reasons: it keeps the first note of a series, so a cause that changes would be shown
//! wrong for six minutes; it names Events `<object>.<16 digits>`, which the API server refuses for object names beyond 236
//! characters; and once the API server has dropped an Event (one hour by default) its patches answer 404.

mod publisher;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::metrics::{Counter, EventResult};

/// The longest note that the API server takes, in bytes.
pub const NOTE_LIMIT: usize = 1024;
/// How many Events may wait; a storm beyond it says nothing new.
const QUEUE: usize = 256;

/// How an Event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum Severity {
    /// Something happened as it should.
    Normal,
    /// Somebody should have a look.
    Warning,
}

/// What to say about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// How it is shown.
    pub severity: Severity,
    /// Why it happened: one CamelCase word from a closed set, such as [`Fault::reason`](holdfast_fault::Fault::reason).
    pub reason: &'static str,
    /// What was being done: one CamelCase word from a closed set.
    pub action: &'static str,
    /// A sentence for a person; what exceeds [`NOTE_LIMIT`] is cut.
    pub text: String,
    /// Another object that matters, such as the Job that failed.
    pub related: Option<ObjectReference>,
}

impl Note {
    /// A normal Event.
    pub fn normal(reason: &'static str, action: &'static str, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason,
            action,
            text: text.into(),
            related: None,
        }
    }

    /// A warning.
    pub fn warning(reason: &'static str, action: &'static str, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::normal(reason, action, text)
        }
    }
}

/// Publishes Events in the name of one controller; clones share the queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Note)>,
    results: Counter<(EventResult,)>,
}

impl Events {
    /// Starts the task that publishes; it ends when the last clone is dropped and the queue is empty.
    ///
    /// `controller` and `instance` are shown as the Event's reporter; the instance is the pod's name.
    pub fn start(
        client: Client,
        controller: &'static str,
        instance: impl Into<String>,
        results: Counter<(EventResult,)>,
    ) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let publisher = publisher::Publisher::new(client, controller, instance.into(), results.clone());
        (Self { queue, results }, tokio::spawn(publisher.run(waiting)))
    }

    /// Says something about an object, whose reference comes from `object_ref(&())`. Returns at once.
    pub fn publish(&self, regarding: &ObjectReference, note: Note) {
        if let Err(refused) = self.queue.try_send((regarding.clone(), note)) {
            self.results.inc((EventResult::Dropped,));
            let (object, note) = match refused {
                mpsc::error::TrySendError::Full(item) | mpsc::error::TrySendError::Closed(item) => item,
            };
            tracing::debug!(
                object = object.name,
                reason = note.reason,
                "event dropped: too many are waiting"
            );
        }
    }
}

/// The longest beginning of `text` that has at most `limit` bytes, cut between characters and marked by `...` if cut.
pub fn truncated(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mark = "...";
    let room = limit.saturating_sub(mark.len());
    format!(
        "{}{}",
        &text[..text.floor_char_boundary(room)],
        &mark[..mark.len().min(limit)]
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::truncated;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(truncated("short", 10), "short");
        assert_eq!(truncated("exactly ten", 11), "exactly ten");
        assert_eq!(truncated("exactly ten", 10), "exactly...");
        assert_eq!(truncated("ääääää", 10), "äää...");
        assert_eq!(truncated("abc", 2), "..");
    }

    proptest! {
        #[test]
        fn a_cut_note_fits_and_begins_like_the_whole(text in ".{0,80}", limit in 3usize..40) {
            let cut = truncated(&text, limit);
            prop_assert!(cut.len() <= limit);
            prop_assert!(text.starts_with(cut.strip_suffix("...").unwrap_or(&cut)) || cut == text);
        }
    }
}
