//! What the real API server and the real kubectl make of the definitions.
//!
//! Run with `cargo test -p holdfast-api --test control_plane`; `INSTA_UPDATE=always` rewrites the golden files.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    reason = "a program of tests has no outside"
)]

mod bad_values;
#[path = "../common/mod.rs"]
mod common;
mod definitions;
mod kubectl;
mod objects;
mod server;
