//! The library against the real API server: for a kind with a status subresource, for one without, and for definitions
//! that keep less than the program knows.

#![allow(
    clippy::many_single_char_names,
    clippy::similar_names,
    reason = "eight writers are told apart by a letter, and what is written by who writes"
)]

#[macro_use]
#[path = "../kinds/mod.rs"]
mod kinds;

mod conflicts;
mod deletion;
mod progress;
mod pruning;
mod world;
mod writing;
