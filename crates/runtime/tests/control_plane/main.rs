//! Tier 2: the runtime against a real API server. Run with `cargo test -p holdfast-runtime --test control_plane`.

mod election;
mod events;
mod hung;
mod labels;
mod malformed;
mod probe;
mod readiness;
mod related;
mod support;
mod termination;
