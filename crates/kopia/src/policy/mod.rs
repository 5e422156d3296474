//! Policies: how a source is to be backed up.
