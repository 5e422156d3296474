//! Kinds for tests: one with a status subresource, one without, one whose installed definition keeps little.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "shared by two test binaries, of which each uses a part"
)]

use std::collections::BTreeMap;
use std::marker::PhantomData;

use holdfast_status::{Phase, ProgressOf, StatusOf, Target};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::object::HasStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A kind with the status that all have, and where the program believes it to be written.
macro_rules! kind {
    ($name:tt $kind:ident $spec:ident $target:ident $($scope:ident)?) => {
        #[derive(kube::CustomResource, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[derive(Clone, Debug, Default, PartialEq)]
        #[kube(group = "status.holdfast.test", version = "v1", kind = $name, status = "ParcelStatus", $($scope)?)]
        #[kube(derive = "PartialEq")]
        pub struct $spec {
            #[serde(default)]
            pub contents: String,
        }

        impl Placed for $kind {
            const TARGET: holdfast_status::Target = holdfast_status::Target::$target;
        }
    };
}

kind!("Parcel" Parcel ParcelSpec Subresource namespaced);

/// The status of all the kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParcelStatus {
    #[serde(default, skip_serializing_if = "State::is_empty")]
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Serialized as null, as many a type does.
    pub progress: Option<Progress>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub done: i64,
    pub total: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<i64>,
}

/// PostgresBackup's states, with a value that nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum State {
    #[default]
    Empty,
    Running,
    Succeeded,
    Failed,
    DeleteFailed,
    Unknown(String),
}

impl State {
    pub fn is_empty(&self) -> bool {
        *self == Self::Empty
    }
}

impl From<String> for State {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" => Self::Empty,
            "running" => Self::Running,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            "deleteFailed" => Self::DeleteFailed,
            _ => Self::Unknown(text),
        }
    }
}

impl From<State> for String {
    fn from(state: State) -> Self {
        match state {
            State::Empty => String::new(),
            State::Running => "running".into(),
            State::Succeeded => "succeeded".into(),
            State::Failed => "failed".into(),
            State::DeleteFailed => "deleteFailed".into(),
            State::Unknown(text) => text,
        }
    }
}

impl<K> Phase<K> for State {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::DeleteFailed)
    }

    fn may_become(&self, next: &Self) -> bool {
        match self {
            Self::Empty | Self::Unknown(_) => !matches!(next, Self::DeleteFailed),
            Self::Running => matches!(next, Self::Succeeded | Self::Failed),
            // Wrong on purpose: a terminal phase is absorbing whatever is said here.
            Self::Succeeded | Self::Failed | Self::DeleteFailed => true,
        }
    }

    fn may_become_on_deletion(&self, next: &Self) -> bool {
        *next == Self::DeleteFailed
    }
}

/// Three conditions of a controller, and eight of as many small writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Kind {
    Ready,
    Stalled,
    Reconciling,
    Writer1,
    Writer2,
    Writer3,
    Writer4,
    Writer5,
    Writer6,
    Writer7,
    Writer8,
}

/// All of them, in order.
pub const KINDS: [Kind; 11] = [
    Kind::Ready,
    Kind::Stalled,
    Kind::Reconciling,
    Kind::Writer1,
    Kind::Writer2,
    Kind::Writer3,
    Kind::Writer4,
    Kind::Writer5,
    Kind::Writer6,
    Kind::Writer7,
    Kind::Writer8,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Reason {
    Working,
    Done,
    Broken,
}

/// The controller of a kind; number 0 owns the first three conditions, number n the condition of writer n.
pub struct Of<O, const N: usize = 0>(PhantomData<fn() -> O>);

/// Where the program believes the status to be written.
pub trait Placed {
    const TARGET: Target;
}

impl<O, const N: usize> StatusOf for Of<O, N>
where
    O: Resource<DynamicType = ()> + HasStatus<Status = ParcelStatus> + Placed,
    O: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
{
    type Object = O;
    type Status = ParcelStatus;
    type Phase = State;
    type Condition = Kind;
    type Reason = Reason;
    const PHASE_FIELD: &'static str = "state";
    const TARGET: Target = O::TARGET;
    const CONDITIONS: &'static [Kind] = match N {
        0 => KINDS.as_slice().split_at(3).0,
        n => KINDS.as_slice().split_at(n + 2).1.split_at(1).0,
    };
    const OBSERVED_GENERATION: bool = true;
    const PROGRESS_FIELD: Option<&'static str> = Some("progress");

    fn status(object: &O) -> Option<&ParcelStatus> {
        HasStatus::status(object)
    }

    fn phase(status: Option<&ParcelStatus>) -> State {
        status.map(|status| status.state.clone()).unwrap_or_default()
    }
}

impl<O, const N: usize> ProgressOf for Of<O, N>
where
    Self: StatusOf,
{
    type Progress = Progress;
}
