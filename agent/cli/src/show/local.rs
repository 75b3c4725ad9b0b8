//! `blixard local list`.

use blixard_model::local::{LocalListing, LocalVmView};

use super::kit::{NOTHING, or_nothing, wrapped};

const HEADER: [&str; 6] = ["NAME", "STATE", "WANTED", "GENERATION", "PID", "REASON"];

/// The VMs of this machine.
pub(crate) fn list(listing: &LocalListing) -> String {
    if listing.items.is_empty() {
        return "no VMs on this machine\n".to_owned();
    }
    wrapped(&HEADER, listing.items.iter().map(row))
}

fn row(vm: &LocalVmView) -> Vec<String> {
    vec![
        vm.name.to_string(),
        vm.state.to_string(),
        or_nothing(vm.wanted),
        or_nothing(vm.generation),
        or_nothing(vm.main_pid),
        vm.reason.as_deref().and_then(|text| text.lines().next()).unwrap_or(NOTHING).to_owned(),
    ]
}
