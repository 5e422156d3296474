//! What every Holdfast controller shares at start-up.
//!
//! A deployable flattens [`RuntimeArgs`] into its arguments, starts a [`Runtime`] and hands it its work, which gets a [`Term`] and
//! builds a [`Runner`](runner::Runner) from it:
//!
//! ```no_run
//! use clap::Parser;
//! use holdfast_runtime::{About, Runtime, RuntimeArgs, Term};
//!
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     runtime: RuntimeArgs,
//! }
//!
//! async fn work(term: Term) -> Result<(), std::io::Error> {
//!     // Runner::new("example", &term).owns::<Job>(..).run(reconcile, ctx).await;
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let cli = Cli::parse();
//!     holdfast_runtime::block_on(async {
//!         let about = About { name: "example", version: env!("CARGO_PKG_VERSION") };
//!         Runtime::start(about, &cli.runtime).await?.run(work).await?;
//!         Ok(())
//!     })?
//! }
//! ```
//!
//! # What holds
//!
//! - Every call to the API server ends at its deadline ([`client`]).
//! - Nothing is written by a process that may no longer lead ([`gate`], [`lease`]).
//! - The process is ready only when each watch has listed once ([`readiness`]); a standby is ready.
//! - One malformed object stops nothing but itself ([`runner`]).
//! - No label of a metric can be an object's name ([`metrics`]).
//! - SIGTERM lets work in flight end within the grace period, then gives the lease up ([`shutdown`]).

pub mod admin;
pub mod api_error;
pub mod args;
pub mod client;
pub mod clock;
pub mod environment;
pub mod events;
pub mod gate;
pub mod lease;
pub mod metrics;
pub mod rbac;
pub mod readiness;
pub mod runner;
mod runtime;
pub mod shutdown;
pub mod telemetry;
mod term;

pub use api_error::{ApiError, ApiObject};
pub use args::RuntimeArgs;
pub use holdfast_fault::{Class, Fault};
pub use runtime::{About, RunError, Runtime, StartError, block_on, install_crypto_provider};
pub use term::Term;
