//! Where the workspace is, and the law of dependencies between its crates.

use std::path::{Path, PathBuf};

/// The folder of the workspace's Cargo.toml.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cargo_metadata::{DependencyKind, MetadataCommand};

    const DEPLOYABLES: [&str; 5] = [
        "pg-backup",
        "dataprotection",
        "volume-backup",
        "data-mover",
        "pg-operator",
    ];

    /// What each library may depend on among the crates of this workspace.
    const LIBRARIES: [(&str, &[&str]); 8] = [
        ("holdfast-fault", &[]),
        ("holdfast-schedule", &[]),
        ("holdfast-api", &[]),
        ("holdfast-status", &["holdfast-fault", "holdfast-api"]),
        (
            "holdfast-runtime",
            &["holdfast-fault", "holdfast-api", "holdfast-status"],
        ),
        ("holdfast-store", &["holdfast-fault"]),
        ("holdfast-walg", &["holdfast-fault", "holdfast-store"]),
        ("holdfast-kopia", &["holdfast-fault", "holdfast-store"]),
    ];

    /// Crates that must not reach a Kubernetes client, not even through another crate.
    const NO_KUBERNETES: [&str; 5] = [
        "holdfast-fault",
        "holdfast-schedule",
        "holdfast-store",
        "holdfast-walg",
        "holdfast-kopia",
    ];

    /// Direct dependencies of each crate of the workspace, without those for tests only.
    fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
        let metadata = MetadataCommand::new()
            .no_deps()
            .exec()
            .expect("cargo metadata runs");
        metadata
            .packages
            .iter()
            .map(|package| {
                let normal = package
                    .dependencies
                    .iter()
                    .filter(|d| d.kind != DependencyKind::Development);
                (package.name.to_string(), normal.map(|d| d.name.clone()).collect())
            })
            .collect()
    }

    #[test]
    fn libraries_depend_only_on_the_layers_below_them() {
        let all = dependencies();
        for (library, allowed) in LIBRARIES {
            for dependency in all.get(library).into_iter().flatten() {
                let ours = all.contains_key(dependency);
                assert!(
                    !ours || allowed.contains(&dependency.as_str()),
                    "{library} must not use {dependency}"
                );
            }
        }
    }

    #[test]
    fn a_deployable_never_depends_on_another_nor_on_the_test_kit() {
        let all = dependencies();
        for deployable in DEPLOYABLES {
            for dependency in all.get(deployable).into_iter().flatten() {
                let forbidden =
                    DEPLOYABLES.contains(&dependency.as_str()) || dependency == "holdfast-testkit";
                assert!(!forbidden, "{deployable} must not use {dependency}");
            }
        }
    }

    #[test]
    fn the_data_planes_know_no_kubernetes_client() {
        let all = dependencies();
        for library in NO_KUBERNETES {
            for dependency in all.get(library).into_iter().flatten() {
                let kubernetes = dependency.starts_with("kube") || dependency == "k8s-openapi";
                assert!(!kubernetes, "{library} must not use {dependency}");
            }
        }
    }

    #[test]
    fn every_crate_is_named_after_its_folder_and_obeys_the_lints() {
        let metadata = MetadataCommand::new()
            .no_deps()
            .exec()
            .expect("cargo metadata runs");
        for package in metadata.packages {
            let folder = package
                .manifest_path
                .parent()
                .and_then(|p| p.file_name())
                .expect("a folder");
            let expected = [folder.to_owned(), format!("holdfast-{folder}")];
            assert!(
                expected.contains(&package.name.to_string()),
                "{} in folder {folder}",
                package.name
            );
            let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
            assert!(
                manifest.contains("[lints]\nworkspace = true"),
                "{} takes the workspace's lints",
                package.name
            );
        }
    }
}
