//! Policies: how the files of a source are backed up.

mod class;
mod document;
mod effective;
mod matching;
mod merge;
mod pattern;
mod rules;
#[cfg(test)]
mod tests;

pub use document::{
    CompressionPolicy, ErrorHandlingPolicy, FilesPolicy, MetadataCompressionPolicy, Policy, SchedulingPolicy,
    SplitterPolicy, UploadPolicy,
};
pub use effective::{NodePolicy, PolicyTree, defined_policy, effective_policy, policy_labels, set_policy};
pub use rules::{Candidate, IgnoreRules, is_cache_tag};
