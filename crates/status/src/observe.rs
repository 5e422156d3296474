//! What became of each attempt to write, for metrics.

use crate::manager::FieldManager;

/// What became of one attempt to write a status.
///
/// A write that meets a conflict and succeeds at its second attempt is seen as [`WriteResult::Conflict`] and then as
/// [`WriteResult::Written`]: the number of conflicts is what tells of two writers fighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum WriteResult {
    /// The API server took the patch.
    Written,
    /// Nothing had changed, or it was too early for progress; no request was made.
    Unchanged,
    /// Somebody else wrote first (409).
    Conflict,
    /// The edge was illegal, or the pass had seen an older object; no request was made.
    Refused,
    /// The object is not there anymore.
    Gone,
    /// A call did not end before its deadline.
    Timeout,
    /// Any other error.
    Failed,
}

impl WriteResult {
    /// The name in snake case, as used for metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Hears what became of each attempt. Called from async code, so it must not block.
pub trait Observer: Send + Sync {
    /// One attempt by this manager ended so.
    fn observe(&self, manager: FieldManager, result: WriteResult);
}

impl<F: Fn(FieldManager, WriteResult) + Send + Sync> Observer for F {
    fn observe(&self, manager: FieldManager, result: WriteResult) {
        self(manager, result);
    }
}
