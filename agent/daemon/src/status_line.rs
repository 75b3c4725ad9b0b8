//! Systemd's one line about a member.

use std::sync::Arc;

use blixard_node::Summary;

use super::context::Agent;
use super::shell::HostStanding;
use super::supervise;

/// Keeps it true, until the host task ends. What a host without a cluster waits for is told as it changes.
pub(crate) async fn keep(agent: Arc<Agent>) {
    let mut standing = agent.host.standing();
    let mut said = String::new();
    loop {
        if let HostStanding::Member { summary, vms, .. } = &*standing.borrow_and_update() {
            let text = line(agent.config.cluster_name.as_str(), summary, *vms);
            if text != said {
                supervise::status(&text);
                said = text;
            }
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

fn line(cluster: &str, summary: &Summary, vms: usize) -> String {
    match (summary.is_member, &summary.leader) {
        (false, _) => format!("Known to cluster {cluster}, waiting for its state"),
        (true, None) => format!(
            "Member of {cluster}: NO QUORUM (no leader, term {}), {vms} VMs placed here",
            summary.term
        ),
        (true, Some((leader, _))) => {
            format!("Member of {cluster}: leader {leader}, term {}, {vms} VMs placed here", summary.term)
        }
    }
}
