//! The table of rights beside each controller, and the objects generated from it.
//!
//! A controller declares what it asks of the API server as a constant table of [`Rule`]s. `cargo xtask rbac` renders the table; a test
//! shows that each verb is used. The reason stays next to the right, for whoever reviews it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule, Role},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources, plural and lower case, with subresources as `jobs/status`.
    pub resources: &'static [&'static str],
    /// Names, if only these objects may be touched; empty for all. `create` and `list` cannot be restricted by name.
    pub names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What the right is for, in a sentence.
    pub why: &'static str,
}

impl Rule {
    /// A rule for all objects of these resources.
    pub const fn new(
        group: &'static str,
        resources: &'static [&'static str],
        verbs: &'static [&'static str],
        why: &'static str,
    ) -> Self {
        Self {
            group,
            resources,
            names: &[],
            verbs,
            why,
        }
    }

    /// The same rule for these objects only.
    #[must_use]
    pub const fn named(mut self, names: &'static [&'static str]) -> Self {
        self.names = names;
        self
    }
}

/// What the runtime itself needs in the namespace of its Lease.
pub const LEASE_RULES: &[Rule] = &[Rule::new(
    "coordination.k8s.io",
    &["leases"],
    &["get", "create", "update"],
    "leader election: read the Lease, create it once, take and renew it by compare-and-swap",
)];

/// What the runtime itself needs wherever it publishes Events.
pub const EVENT_RULES: &[Rule] = &[Rule::new(
    "events.k8s.io",
    &["events"],
    &["create", "patch"],
    "say on the object what happened; patch counts repetitions in a series",
)];

/// The rules as Kubernetes has them, in the order of the table.
pub fn policy_rules(rules: &[Rule]) -> Vec<PolicyRule> {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    rules
        .iter()
        .map(|rule| PolicyRule {
            api_groups: Some(vec![rule.group.to_owned()]),
            resources: Some(owned(rule.resources)),
            resource_names: (!rule.names.is_empty()).then(|| owned(rule.names)),
            verbs: owned(rule.verbs),
            non_resource_urls: None,
        })
        .collect()
}

/// A ClusterRole with these rules.
pub fn cluster_role(name: &str, labels: BTreeMap<String, String>, rules: &[Rule]) -> ClusterRole {
    ClusterRole {
        metadata: metadata(name, labels),
        rules: Some(policy_rules(rules)),
        aggregation_rule: None,
    }
}

/// A Role with these rules, in the namespace where it is applied.
pub fn role(name: &str, labels: BTreeMap<String, String>, rules: &[Rule]) -> Role {
    Role {
        metadata: metadata(name, labels),
        rules: Some(policy_rules(rules)),
    }
}

fn metadata(name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        ..ObjectMeta::default()
    }
}

/// Every single right of a table as `verb group/resource`, sorted, for the test that compares it with what was used.
pub fn rights(rules: &[Rule]) -> Vec<String> {
    let mut rights: Vec<String> = rules
        .iter()
        .flat_map(|rule| {
            rule.resources.iter().flat_map(move |resource| {
                rule.verbs
                    .iter()
                    .map(move |verb| format!("{verb} {}/{resource}", rule.group))
            })
        })
        .collect();
    rights.sort();
    rights.dedup();
    rights
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{EVENT_RULES, LEASE_RULES, Rule, cluster_role, policy_rules, rights, role};

    const RULES: &[Rule] = &[
        Rule::new("", &["secrets"], &["get"], "read the storage's keys").named(&["s3"]),
        Rule::new(
            "batch",
            &["jobs", "jobs/status"],
            &["get", "list"],
            "see how the agent does",
        ),
    ];

    #[test]
    fn a_table_becomes_policy_rules_in_its_order() {
        let rendered = serde_json::to_value(policy_rules(RULES)).unwrap();
        let expected = serde_json::json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s3"], "verbs": ["get"]},
            {"apiGroups": ["batch"], "resources": ["jobs", "jobs/status"], "verbs": ["get", "list"]},
        ]);
        assert_eq!(rendered, expected);
    }

    #[test]
    fn roles_carry_kind_name_and_labels() {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "pg-backup".to_owned())]);
        let cluster = serde_json::to_value(cluster_role("pg-backup", labels, RULES)).unwrap();
        assert_eq!(cluster["kind"], "ClusterRole");
        assert_eq!(cluster["apiVersion"], "rbac.authorization.k8s.io/v1");
        assert_eq!(
            cluster["metadata"]["labels"]["app.kubernetes.io/name"],
            "pg-backup"
        );
        let role = serde_json::to_value(role("pg-backup", BTreeMap::new(), LEASE_RULES)).unwrap();
        assert_eq!(
            (&role["kind"], &role["metadata"]),
            (&"Role".into(), &serde_json::json!({"name": "pg-backup"}))
        );
    }

    #[test]
    fn rights_are_single_sorted_and_unique() {
        assert_eq!(
            rights(RULES),
            [
                "get /secrets",
                "get batch/jobs",
                "get batch/jobs/status",
                "list batch/jobs",
                "list batch/jobs/status"
            ]
        );
        assert_eq!(
            rights(EVENT_RULES),
            ["create events.k8s.io/events", "patch events.k8s.io/events"]
        );
    }
}
