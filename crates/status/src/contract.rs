//! What a kind promises about its status: where the phase is, which edges are legal, who owns which field.

use std::fmt::Debug;

use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use crate::condition::Token;

/// What one controller knows about the status of one kind.
///
/// Implemented by an empty type of the controller, not by the kind: the kind usually lives in another crate, and two
/// controllers may share a kind and own different parts of its status.
///
/// The serialized form of [`StatusOf::Status`] is what is compared and written. A field that the type does not have is
/// foreign: it is neither looked at nor changed.
pub trait StatusOf: Sized + Send + Sync + 'static {
    /// The kind, as read from the API server.
    type Object: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static;
    /// The kind's status: a plain serde struct.
    type Status: Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static;
    /// The phase, usually an enum that keeps a value it does not know.
    type Phase: Phase<Self>;
    /// The condition types that this controller may set; [`NoCondition`](crate::NoCondition) where there are none.
    type Condition: Token;
    /// The reasons that a condition may have.
    type Reason: Token;

    /// The JSON name of the phase inside the status: `phase` or `state`.
    const PHASE_FIELD: &'static str;

    /// Where the kind's definition says that its status is written. An installed definition that says otherwise wins.
    const TARGET: Target;

    /// The condition types that this controller owns, all of them. An owned condition that is not wanted is removed;
    /// conditions of other types are kept.
    const CONDITIONS: &'static [Self::Condition] = &[];

    /// Whether the status has an `observedGeneration` for the library to keep. It is written only where a status has a
    /// subresource: elsewhere each status write moves the generation itself, and recording it would never settle.
    const OBSERVED_GENERATION: bool = false;

    /// The JSON name of the status field that [`ProgressWriter`](crate::ProgressWriter) writes. A wanted status without
    /// it leaves the field as it is.
    const PROGRESS_FIELD: Option<&'static str> = None;

    /// The status of an object, if it has one yet.
    fn status(object: &Self::Object) -> Option<&Self::Status>;

    /// The phase in a status. A missing status and a missing phase are phases too, usually the initial one.
    fn phase(status: Option<&Self::Status>) -> Self::Phase;
}

/// A phase of the kind that `K` describes, and the edges out of it.
///
/// | edge | legal if |
/// |---|---|
/// | to itself | always; the rest of the status may change |
/// | out of a phase that is not terminal | [`Phase::may_become`] says so |
/// | out of a terminal phase | never, see the next line |
/// | out of any phase, while the object is being deleted | [`Phase::may_become_on_deletion`] says so |
///
/// Being deleted is a fact about the object (`metadata.deletionTimestamp`), which only the API server sets and nobody
/// can take back. So a terminal phase stays absorbing for every pass that does the kind's work, and a clean-up that fails
/// can still be reported: `succeeded` becomes `deleteFailed` on deletion, and on nothing else.
///
/// The parameter `K` lets a controller describe an enum from another crate.
pub trait Phase<K: ?Sized>: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Whether the kind's work is over in this phase.
    fn is_terminal(&self) -> bool;

    /// Whether work may lead from this phase to `next`. Not asked if the phase is terminal or equal to `next`.
    fn may_become(&self, next: &Self) -> bool;

    /// Whether the deletion of the object may lead from this phase, terminal or not, to `next`.
    fn may_become_on_deletion(&self, next: &Self) -> bool {
        let _ = next;
        false
    }
}

/// Whether the edge is legal for an object that is being deleted, or is not.
pub fn is_legal<K: StatusOf>(from: &K::Phase, to: &K::Phase, deleting: bool) -> bool {
    from == to
        || (!Phase::<K>::is_terminal(from) && Phase::<K>::may_become(from, to))
        || (deleting && Phase::<K>::may_become_on_deletion(from, to))
}

/// What the progress of a kind looks like. It cannot express a phase, because it is written to
/// [`StatusOf::PROGRESS_FIELD`] and nowhere else.
pub trait ProgressOf: StatusOf {
    /// The progress, serialized as an object.
    type Progress: Clone + Debug + Serialize + Send + Sync + 'static;
}

/// Where a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To the subresource `/status`.
    Subresource,
    /// To the object itself, because its definition has no subresource (Velero, PGO: `/status` is 404 there). The patch
    /// still names nothing but the status and the resourceVersion.
    Main,
}
