//! Which member of a PostgreSQL cluster a backup is taken from; pure.

use crate::observe::Member;

/// The member to read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice<'a> {
    /// The member.
    pub member: &'a Member,
    /// Its address.
    pub address: &'a str,
    /// Address of the leader, when the member is another one.
    pub leader_address: Option<&'a str>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum NoChoice {
    /// The cluster has no pods.
    NoMembers,
    /// The wanted name is that of no member and no member's node.
    NoMatch(String),
    /// Members exist and none of them serves.
    NotReady(String),
}

/// Chooses the wanted member, by pod name and then by node name; a replica, else the leader, where none is wanted.
pub fn choose<'a>(members: &'a [Member], wanted: Option<&str>) -> Result<Choice<'a>, NoChoice> {
    if members.is_empty() {
        return Err(NoChoice::NoMembers);
    }
    let candidates: Vec<&Member> = match wanted.filter(|name| !name.is_empty()) {
        None => members.iter().collect(),
        Some(name) => {
            let pods: Vec<&Member> = members.iter().filter(|m| m.pod == name).collect();
            let on_node = || {
                members
                    .iter()
                    .filter(|m| m.node.as_deref() == Some(name))
                    .collect()
            };
            if pods.is_empty() { on_node() } else { pods }
        }
    };
    if candidates.is_empty() {
        return Err(NoChoice::NoMatch(format!(
            "spec.executeNode {:?} is neither a member ({}) nor the node of one",
            wanted.unwrap_or_default(),
            names(members.iter())
        )));
    }
    let serving = |m: &&'a Member| {
        m.ready
            .then_some(m.address.as_deref())
            .flatten()
            .map(|address| (*m, address))
    };
    let (member, address) = candidates
        .iter()
        .filter_map(serving)
        .min_by_key(|(m, _)| (m.leader, &m.pod))
        .ok_or_else(|| {
            NoChoice::NotReady(format!(
                "no ready member among {}",
                names(candidates.iter().copied())
            ))
        })?;
    let leader = members
        .iter()
        .filter(|m| m.leader && m.pod != member.pod)
        .find(|m| m.ready);
    Ok(Choice {
        member,
        address,
        leader_address: leader.and_then(|m| m.address.as_deref()),
    })
}

fn names<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    members.map(|m| m.pod.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{NoChoice, choose};
    use crate::observe::Member;

    fn member(pod: &str, node: &str, leader: bool, ready: bool) -> Member {
        let address = Some(format!("ip-of-{pod}"));
        Member {
            pod: pod.into(),
            node: Some(node.into()),
            address,
            leader,
            ready,
            ..Member::default()
        }
    }

    fn chosen(members: &[Member], wanted: Option<&str>) -> (String, Option<String>) {
        let choice = choose(members, wanted).expect("a choice");
        (
            choice.member.pod.clone(),
            choice.leader_address.map(str::to_owned),
        )
    }

    #[test]
    fn a_ready_replica_comes_before_the_leader() {
        let members = [member("a-0", "n1", true, true), member("a-1", "n2", false, true)];
        assert_eq!(chosen(&members, None), ("a-1".into(), Some("ip-of-a-0".into())));
    }

    #[test]
    fn the_leader_serves_where_no_replica_does() {
        let members = [member("a-0", "n1", true, true), member("a-1", "n2", false, false)];
        assert_eq!(chosen(&members, None), ("a-0".into(), None));
    }

    #[test]
    fn the_wanted_pod_and_the_wanted_node_are_both_understood() {
        let members = [member("a-0", "n1", true, true), member("a-1", "n2", false, true)];
        assert_eq!(chosen(&members, Some("a-0")).0, "a-0");
        assert_eq!(chosen(&members, Some("n1")).0, "a-0");
        assert_eq!(chosen(&members, Some("n2")).0, "a-1");
        assert_eq!(chosen(&members, Some("")).0, "a-1");
    }

    #[test]
    fn a_wanted_member_that_is_not_ready_is_waited_for() {
        let members = [member("a-0", "n1", true, true), member("a-1", "n2", false, false)];
        assert!(matches!(choose(&members, Some("a-1")), Err(NoChoice::NotReady(m)) if m.contains("a-1")));
    }

    #[test]
    fn what_is_unknown_is_named_with_what_is_known() {
        let members = [member("a-0", "n1", true, true)];
        assert!(
            matches!(choose(&members, Some("b")), Err(NoChoice::NoMatch(m)) if m.contains("\"b\"") && m.contains("a-0"))
        );
        assert_eq!(choose(&[], None), Err(NoChoice::NoMembers));
    }
}
