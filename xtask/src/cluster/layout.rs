//! Where a cluster has its files and addresses. Pure: everything follows from the checkout's path and a slot number.

use std::path::{Path, PathBuf};

use holdfast_testkit::local;
use serde::{Deserialize, Serialize};

/// How many clusters one machine holds.
pub(crate) const SLOTS: u8 = 32;

/// A checkout's place on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// The checkout's top folder.
    pub(crate) root: PathBuf,
    /// Which of the machine's address ranges this cluster uses.
    pub(crate) slot: u8,
}

impl Layout {
    pub(crate) fn new(root: PathBuf, slot: u8) -> Self {
        Self { root, slot }
    }

    pub(crate) fn id(&self) -> String {
        local::checkout_id(&self.root)
    }

    /// `target/cluster` of the checkout.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join("target/cluster")
    }

    /// Everything that `down` removes except for what users read.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// Pid files; on the host, outside the checkout.
    pub(crate) fn run(&self) -> PathBuf {
        Path::new(local::RUN_FOLDER).join(self.id())
    }

    pub(crate) fn pid_file(&self, part: &str) -> PathBuf {
        self.run().join(format!("{part}.json"))
    }

    /// The host's end of the cable to the node; names of interfaces have at most 15 characters.
    pub(crate) fn interface(&self) -> String {
        format!("hf-{}", self.id())
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("holdfast-{}", self.id())
    }

    /// The second number of all addresses of this cluster, 10.N.0.0/16.
    fn net(&self) -> u8 {
        160 + self.slot
    }

    /// The whole range, routed from the host to the node.
    pub(crate) fn network(&self) -> String {
        format!("10.{}.0.0/16", self.net())
    }

    pub(crate) fn host_address(&self) -> String {
        format!("10.{}.0.1", self.net())
    }

    pub(crate) fn node_address(&self) -> String {
        format!("10.{}.0.2", self.net())
    }

    pub(crate) fn pods(&self) -> String {
        format!("10.{}.64.0/18", self.net())
    }

    pub(crate) fn services(&self) -> String {
        format!("10.{}.128.0/18", self.net())
    }

    /// The Service `kubernetes`, by rule the first address of the range.
    pub(crate) fn kubernetes_service(&self) -> String {
        format!("10.{}.128.1", self.net())
    }

    pub(crate) fn dns_service(&self) -> String {
        format!("10.{}.128.10", self.net())
    }

    pub(crate) fn server(&self) -> String {
        format!("https://{}:6443", self.node_address())
    }

    pub(crate) fn s3_endpoint(&self) -> String {
        format!("http://{}:7070", self.node_address())
    }
}

/// The slot for a checkout: its own by hash, else the next one that no other cluster and no route of the host uses.
///
/// `routes` are the host's routes as `ip -4 route` prints them, first word only.
pub(crate) fn choose_slot(id: &str, taken: &[u8], routes: &[&str]) -> Option<u8> {
    let first = u8::from_str_radix(id.get(..2)?, 16).ok()? % SLOTS;
    (0..SLOTS).map(|step| (first + step) % SLOTS).find(|slot| {
        let ours = u32::from_be_bytes([10, 160 + slot, 0, 0]);
        !taken.contains(slot) && !routes.iter().any(|route| overlaps(route, ours, 16))
    })
}

fn overlaps(route: &str, network: u32, length: u32) -> bool {
    let (address, prefix) = route.split_once('/').unwrap_or((route, "32"));
    let (Ok(address), Ok(prefix)) = (address.parse::<std::net::Ipv4Addr>(), prefix.parse::<u32>()) else {
        return false;
    };
    let common = prefix.min(length);
    common > 0 && (u32::from(address) ^ network).leading_zeros() >= common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_keeps_its_slot_unless_somebody_has_it() {
        assert_eq!(choose_slot("05abcdef", &[], &[]), Some(5));
        assert_eq!(choose_slot("05abcdef", &[5, 6], &[]), Some(7));
        assert_eq!(choose_slot("1fabcdef", &[31], &[]), Some(0));
        assert_eq!(
            choose_slot("05abcdef", &(0..SLOTS).collect::<Vec<_>>(), &[]),
            None
        );
    }

    #[test]
    fn networks_of_the_host_are_left_alone() {
        assert_eq!(
            choose_slot("05", &[], &["default", "10.165.3.0/24", "10.166.1.9"]),
            Some(7)
        );
        assert_eq!(choose_slot("05", &[], &["10.160.0.0/12"]), Some(16));
        assert_eq!(choose_slot("05", &[], &["10.0.0.0/8"]), None);
        assert_eq!(choose_slot("05", &[], &["192.168.0.0/16", "0.0.0.0/0"]), Some(5));
    }

    #[test]
    fn addresses_lie_inside_the_routed_network_and_the_interface_name_fits() {
        let layout = Layout::new(PathBuf::from("/a"), 31);
        assert_eq!(layout.network(), "10.191.0.0/16");
        assert_eq!(layout.server(), "https://10.191.0.2:6443");
        assert!(layout.interface().len() <= 15);
        let other = Layout::new(PathBuf::from("/b"), 30);
        assert_ne!(layout.interface(), other.interface());
        assert_ne!(layout.cgroup(), other.cgroup());
        assert_ne!(layout.run(), other.run());
    }
}
