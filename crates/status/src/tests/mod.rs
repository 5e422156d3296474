//! Tests without an API server.

#[path = "../../tests/kinds/mod.rs"]
mod kinds;
mod properties;
mod server;
mod tables;

use kinds::Parcel;
