//! The rights of the controller, each with the call that needs it. `cargo xtask rbac` makes deploy/pg-backup/rbac.yaml of
//! it, and a test holds it against the requests that the controller really makes.
