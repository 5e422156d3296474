//! For tests and tasks only: the real Kubernetes control plane, the parts it is built from, and ways to break things.
//!
//! - [`control_plane()`]: etcd and kube-apiserver for tier-2 tests, one per test binary;
//! - [`crds`]: install CRDs and wait until the API server serves them;
//! - [`FaultProxy`]: a TCP proxy whose connections can be refused, hung or cut at run time;
//! - [`parts`]: Go programs pinned by the modules in `e2e/cluster/`, built once into the user's cache;
//! - [`S3Server`]: an S3 server over a folder, for one test, and [`MemoryS3`]: a small one in memory, without Go;
//! - [`S3Proxy`]: a proxy in front of either that makes chosen requests go wrong;
//! - [`LatencyProxy`]: a TCP proxy that makes the way to a server longer;
//! - [`kopia`]: the real kopia, the judge of our repositories;
//! - [`tree`]: what two directory trees differ in;
//! - [`process`]: processes with an identity that survives the reuse of a pid;
//! - [`local`]: the local cluster of `cargo xtask cluster`, seen by tests.
//!
//! Nothing here is meant for production: errors are [`anyhow::Error`] and mistakes of the caller panic.

pub mod certs;
pub mod control_plane;
pub mod crds;
pub mod environment;
pub mod fault;
pub mod kopia;
pub mod kubeconfig;
pub mod latency;
pub mod local;
pub mod parts;
pub mod process;
pub mod s3_memory;
pub mod s3_proxy;
pub mod s3_server;
pub mod tree;

pub use control_plane::{ControlPlane, control_plane};
pub use fault::{FaultProxy, Mode};
pub use kopia::Kopia;
pub use latency::LatencyProxy;
pub use parts::Part;
pub use s3_memory::MemoryS3;
pub use s3_proxy::S3Proxy;
pub use s3_server::S3Server;
