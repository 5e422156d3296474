//! Scenarios on a real cluster with real PostgreSQL and S3: outcomes only. `cargo xtask test 3` prepares the cluster and runs them.

mod deletion;
mod failures;
mod interruptions;
mod observability;
mod successes;
