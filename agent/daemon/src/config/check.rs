//! What contradicts itself or the world in a configuration, with the key and the way out.

use std::net::SocketAddr;

use blixard_core::state::member_check::{CheckedMember, MemberField, check_member, check_members};
use blixard_model::member::MEMBERS_MAX;
use blixard_model::node::SHARED_DIRS_MAX;
use blixard_model::vm::check_plain_path;
use blixard_model::{Accel, EndpointId, FieldProblem};
use blixard_net::{IpFamilies, RelayList, check_address};

use super::{Config, DiskDir};

/// Least `voter_lost_after_s`: several elections.
const VOTER_LOST_AFTER_S_MIN: u32 = 5;

/// Most `hold_s`: for longer, a cluster is disarmed.
const HOLD_S_MAX: u32 = 3_600;

/// What keeps this accelerator from running guests on a machine of this architecture.
fn accel_problem(accel: Accel, arch: &str) -> Option<String> {
    (!accel.runs_on(arch)).then(|| {
        format!("vms.accel: \"kvm\" cannot run x86-64 guests on {arch}: leave it out, or set \"tcg\"")
    })
}

impl Config {
    /// What makes it useless, if anything does.
    pub(super) fn problem(&self) -> Option<String> {
        if self.port == 0 {
            return Some("port: 0 is not a port".to_owned());
        }
        if let Err(error) = check_address(self.listen_address) {
            return Some(format!("listen_address: {error}"));
        }
        if self.joins() && !self.members.is_empty() {
            let key = if self.join { "join" } else { "join_ticket_file" };
            return Some(format!(
                "{key}: this node is in a list of `members`, and is admitted because it is listed: leave \
                 one of the two out"
            ));
        }
        if self.voter_lost_after_s < VOTER_LOST_AFTER_S_MIN {
            let given = self.voter_lost_after_s;
            return Some(format!("voter_lost_after_s: {given} is less than {VOTER_LOST_AFTER_S_MIN}"));
        }
        if self.hold_s > HOLD_S_MAX {
            let given = self.hold_s;
            return Some(format!("hold_s: {given} is more than {HOLD_S_MAX}"));
        }
        for (key, path) in [("data_dir", &self.data_dir), ("socket", &self.socket)] {
            if !path.is_absolute() {
                return Some(format!("{key}: {} is not an absolute path", path.display()));
            }
        }
        if let Some(problem) = self.relays_problem() {
            return Some(problem);
        }
        if let Some(problem) = self.disk_dirs_problem() {
            return Some(problem);
        }
        if self.vms.qemu.is_empty() || self.vms.qemu.starts_with('-') {
            return Some(format!("vms.qemu: {:?} is not a program", self.vms.qemu));
        }
        if let Some(problem) = accel_problem(self.vms.accel, std::env::consts::ARCH) {
            return Some(problem);
        }
        if self.resources.cpus == Some(0) {
            return Some(
                "resources.cpus: 0 offers nothing; leave it out for what the machine has".to_owned(),
            );
        }
        self.members_problem()
    }

    /// What a cluster is told of has to be written in one way: it is compared with other nodes' paths.
    fn disk_dirs_problem(&self) -> Option<String> {
        let mut dirs = self.vms.disk_dirs.iter().map(DiskDir::path);
        if let Some(dir) = dirs.find(|dir| !dir.is_absolute()) {
            return Some(format!("vms.disk_dirs: {} is not an absolute path", dir.display()));
        }
        let shared = self.shared_dirs();
        if shared.len() > SHARED_DIRS_MAX {
            let count = shared.len();
            return Some(format!("vms.disk_dirs: {count} are shared, more than {SHARED_DIRS_MAX}"));
        }
        shared.iter().enumerate().find_map(|(i, dir)| {
            let twice = shared[..i].contains(dir).then_some(FieldProblem::ListedTwice);
            let problem = check_plain_path(dir).err().or(twice)?;
            Some(format!("vms.disk_dirs: {dir} {problem}"))
        })
    }

    fn relays_problem(&self) -> Option<String> {
        if let Err(error) = RelayList::new(&self.net.relay_urls) {
            return Some(format!("net.relay_urls: {error}"));
        }
        let file = self.net.relay_ca_file.as_ref()?;
        if !file.is_absolute() {
            return Some(format!("net.relay_ca_file: {} is not an absolute path", file.display()));
        }
        let unused = self.net.relay_urls.is_empty();
        unused.then(|| "net.relay_ca_file: there is no relay to vouch for in net.relay_urls".to_owned())
    }

    fn members_problem(&self) -> Option<String> {
        for (name, member) in &self.members {
            if let Err(error) = blixard_net::key::check_endpoint_id(&member.endpoint_id) {
                return Some(format!("members.{name}.endpoint_id: {error}"));
            }
        }
        if self.members.len() > MEMBERS_MAX {
            return Some(format!("members: {} of them, more than {MEMBERS_MAX}", self.members.len()));
        }
        let list = self.declared();
        let facts: Vec<_> = list.iter().map(CheckedMember::from).collect();
        if let Err((name, error)) = check_members(&facts) {
            let key = match error.field() {
                MemberField::Addresses => "addresses",
                _ => "endpoint_id",
            };
            return Some(format!("members.{name}.{key}: {error}"));
        }
        self.advertised_problem(&facts).or_else(|| self.families_problem())
    }

    /// What other machines could not use, and what this node's socket would not hear or send to. Told for
    /// every member here, because such an address is refused by nobody: it is dialled in vain.
    fn families_problem(&self) -> Option<String> {
        let own = (format!("members.{}.addresses", self.node_name), self.own_addresses());
        let own = match self.advertise_addresses.is_empty() {
            true => own,
            false => ("advertise_addresses".to_owned(), own.1),
        };
        let others = self.members.iter().filter(|(name, _)| **name != self.node_name);
        let others = others.map(|(name, member)| (format!("members.{name}.addresses"), &member.addresses));
        let others: Vec<(String, &Vec<SocketAddr>)> = others.collect();
        let all = others.iter().map(|(key, addresses)| (key, *addresses)).chain([(&own.0, &own.1)]);
        for (key, addresses) in all {
            let wrong = addresses.iter().find_map(|address| check_address(address.ip()).err());
            if let Some(error) = wrong {
                return Some(format!("{key}: {error}"));
            }
        }
        let (listen, heard) = (self.listen_address, IpFamilies::heard_at(self.listen_address));
        let way_out = "or leave listen_address out to listen on IPv4 and IPv6";
        if let Some(address) = own.1.iter().find(|address| !heard.hear(address.ip())) {
            let key = own.0;
            return Some(format!(
                "{key}: {address} is not heard with listen_address {listen}, which hears {heard}: write one \
                 of that family, {way_out}"
            ));
        }
        // What has no direct way may be reached through a relay.
        let mut others = others.iter().filter(|_| self.net.relay_urls.is_empty());
        let (key, _) = others.find(|(_, addresses)| {
            !addresses.is_empty() && !addresses.iter().any(|address| heard.hear(address.ip()))
        })?;
        Some(format!(
            "{key}: none of them can be sent to with listen_address {listen}, which hears {heard}: add one \
             of that family, {way_out}"
        ))
    }

    /// What this node says of itself takes the place of what the list says.
    fn advertised_problem(&self, listed: &[CheckedMember<'_>]) -> Option<String> {
        let (me, others): (Vec<CheckedMember<'_>>, Vec<_>) =
            listed.iter().partition(|member| *member.name == self.node_name);
        // A list without this node is another mistake, which is told with the local id.
        if self.advertise_addresses.is_empty() || me.is_empty() && !others.is_empty() {
            return None;
        }
        let me = CheckedMember {
            name: &self.node_name,
            endpoint_id: me.first().map_or(EndpointId::from_bytes([0; 32]), |me| me.endpoint_id),
            store_id: None,
            addresses: &self.advertise_addresses,
            relay_url: None,
            capacity: None,
        };
        let error = check_member(me, &others).err()?;
        Some(format!("advertise_addresses: {error}"))
    }

    /// What is probably a mistake: nobody reaches a node at a port that it does not listen on, unless a
    /// router in between forwards it.
    pub(crate) fn port_warning(&self) -> Option<String> {
        let key = match self.advertise_addresses.is_empty() {
            true => format!("members.{}.addresses", self.node_name),
            false => "advertise_addresses".to_owned(),
        };
        let own = self.own_addresses();
        let other = own.iter().find(|address| address.port() != self.port)?;
        let port = self.port;
        Some(format!(
            "{key}: {other} is not at port {port}, which this node listens on: correct `port` or the \
             address, unless a router forwards that port to this one"
        ))
    }

    /// What is wrong when there is a list and this node is not in it.
    pub(crate) fn unlisted(&self) -> Option<String> {
        let listed = self.members.is_empty() || self.members.contains_key(&self.node_name);
        (!listed).then(|| {
            format!(
                "members: node_name {} is not in the list; the list names every node, this one included",
                self.node_name
            )
        })
    }

    /// Checks that this node is who the members list says it is.
    ///
    /// # Errors
    /// What to write into the list, with the local id.
    pub(crate) fn check_own_id(&self, endpoint_id: EndpointId) -> Result<(), String> {
        match self.members.get(&self.node_name) {
            None if !self.members.is_empty() => Err(format!(
                "{}; this node's key has the endpoint id {endpoint_id}",
                self.unlisted().unwrap_or_default()
            )),
            Some(member) if member.endpoint_id != endpoint_id => Err(format!(
                "members.{name}.endpoint_id is {theirs}, but the endpoint id of this node's key is \
                 {endpoint_id}: \
                 write that one into the list on every node, or restore the key of the listed one",
                name = self.node_name,
                theirs = member.endpoint_id,
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_the_default_where_it_runs_the_guests_and_refused_elsewhere() {
        assert_eq!(accel_problem(Accel::default_on("x86_64"), "x86_64"), None);
        assert_eq!(accel_problem(Accel::default_on("aarch64"), "aarch64"), None);
        assert_eq!((Accel::default_on("x86_64"), Accel::default_on("aarch64")), (Accel::Kvm, Accel::Tcg));
        let problem = accel_problem(Accel::Kvm, "aarch64").expect("refused");
        assert!(problem.starts_with("vms.accel: ") && problem.contains("aarch64"), "{problem}");
    }
}
