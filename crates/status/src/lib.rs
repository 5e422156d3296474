#![doc = include_str!("../README.md")]

mod calls;
mod condition;
mod contract;
mod decide;
mod document;
mod error;
mod link;
mod lookup;
mod manager;
mod observe;
mod progress;
mod schema;
mod throttle;
mod writer;

#[cfg(test)]
mod tests;
// The kinds of the tests name this crate as their other user, the tests on a control plane, does.
#[cfg(test)]
extern crate self as holdfast_status;

pub use condition::{ConditionStatus, MESSAGE_LIMIT, NoCondition, Token, Wish};
pub use contract::{Phase, ProgressOf, StatusOf, Target, is_legal};
pub use decide::{Decision, Refusal, StatusPatch, Verdict, Wanted, decide, decide_within};
pub use error::{WriteError, class_of};
pub use holdfast_fault::{Class, Fault};
pub use lookup::LookupError;
pub use manager::FieldManager;
pub use observe::{Observer, WriteResult};
pub use progress::{ProgressWriter, Reported};
pub use schema::{Dropped, SchemaFacts};
pub use throttle::INTERVAL;
pub use writer::{Outcome, Settings, Writer};
