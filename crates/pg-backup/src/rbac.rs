//! The rights of the controller, each with the call that needs it. `cargo xtask rbac` makes deploy/pg-backup/rbac.yaml of
//! it, and a test holds it against the requests that the controller really makes.

use holdfast_runtime::rbac::Rule;

/// Rights in every namespace that is served.
pub const RULES: &[Rule] = &[
    Rule::new(
        "middleware.alauda.io",
        &["postgresbackups"],
        &["get", "list", "patch", "watch"],
        "Watches backups, reads them again after a conflict, sets and removes its finalizer.",
    ),
    Rule::new(
        "middleware.alauda.io",
        &["postgresbackups/status"],
        &["patch"],
        "Writes the status and the progress.",
    ),
    Rule::new(
        "batch",
        &["jobs"],
        &["create", "delete", "get", "list", "watch"],
        "Runs the jobs that take and remove backups.",
    ),
    Rule::new(
        "",
        &["pods"],
        &["get", "list"],
        "Finds the members of a cluster and the pods of its jobs, and the image that it runs itself.",
    ),
    Rule::new(
        "",
        &["namespaces"],
        &["get"],
        "Sees whether a namespace goes away, where no job can be created.",
    ),
    Rule::new(
        "acid.zalan.do",
        &["postgresqls"],
        &["get"],
        "Reads the UID that is part of the path in the bucket.",
    ),
    Rule::new(
        "events.k8s.io",
        &["events"],
        &["create", "patch"],
        "Tells what happened to a backup.",
    ),
    Rule::new(
        "apiextensions.k8s.io",
        &["customresourcedefinitions"],
        &["get"],
        "Learns which fields of the status the installed definition keeps.",
    )
    .named(&["postgresbackups.middleware.alauda.io"]),
];
