//! This machine's VMs as `blixard local list` shows them, made of what was seen of their units. Pure.

use std::collections::BTreeSet;

use blixard_core::ports::ObservedUnit;
use blixard_core::{ClusterState, VmRecord};
use blixard_model::local::{LocalListing, LocalSource, LocalVmView};
use blixard_model::report::{ObservedState, VmReport};
use blixard_model::{Desired, StopNote, UnitStatus, VmName};
use blixard_node::host::LocalVms;

/// By the agent's last look, with what the log wants.
pub(crate) fn by_agent(vms: &LocalVms<'_>) -> LocalListing {
    let LocalVms { placed, units, stopped, report, age_ms } = vms;
    let names = placed.iter().map(|vm| &vm.spec.name).chain(names_of(units, stopped));
    let names: BTreeSet<&VmName> = names.collect();
    let view = |name: &VmName| {
        let record = placed.iter().find(|vm| vm.spec.name == *name).copied();
        let told = report.vms.iter().find(|told| told.name == *name).filter(|_| record.is_some());
        view(name, units, stopped, (record, told))
    };
    LocalListing {
        items: names.into_iter().map(view).collect(),
        source: LocalSource::Agent,
        age_ms: *age_ms,
        problem: report.problem.clone(),
    }
}

/// Whether another node may start a VM that was just stopped by hand here, where this node is lost: by what
/// the log here says, which does not know of the stop.
pub(crate) fn may_start_elsewhere(state: &ClusterState, name: &VmName) -> bool {
    let vm = state.vms.get(name).filter(|vm| vm.desired == Desired::Running);
    state.leases.is_on && vm.is_some_and(|vm| vm.spec.fails_over())
}

/// As systemd lists them now, without an agent.
pub(crate) fn by_systemd(
    units: &[ObservedUnit],
    stopped: &[StopNote],
    problem: Option<String>,
) -> LocalListing {
    let names: BTreeSet<&VmName> = names_of(units, stopped).collect();
    let items = names.into_iter().map(|name| view(name, units, stopped, (None, None))).collect();
    LocalListing { items, source: LocalSource::Systemd, age_ms: 0, problem }
}

fn names_of<'a>(
    units: &'a [ObservedUnit],
    stopped: &'a [StopNote],
) -> impl Iterator<Item = &'a VmName> + use<'a> {
    units.iter().map(|unit| &unit.name).chain(stopped.iter().map(|note| &note.name))
}

fn view(
    name: &VmName,
    units: &[ObservedUnit],
    stopped: &[StopNote],
    (record, told): (Option<&VmRecord>, Option<&VmReport>),
) -> LocalVmView {
    let unit = units.iter().find(|unit| unit.name == *name);
    let stopped_by_hand = stopped.iter().any(|note| note.name == *name);
    let own = unit.and_then(why);
    let by_hand = || stopped_by_hand.then(|| "stopped by hand".to_owned());
    LocalVmView {
        name: name.clone(),
        state: unit.map_or(ObservedState::Stopped, state),
        wanted: record.map(|record| record.desired),
        generation: unit.and_then(|unit| unit.order).map(|order| order.generation),
        main_pid: unit.and_then(|unit| unit.main_pid),
        stopped_by_hand,
        reason: told.and_then(|told| told.reason.clone()).or_else(by_hand).or(own),
    }
}

fn state(unit: &ObservedUnit) -> ObservedState {
    match (unit.state, &unit.status) {
        (ObservedState::Running, Some(UnitStatus::Paused(_))) => ObservedState::Paused,
        (state, _) => state,
    }
}

/// Why a unit is as it is, in its supervisor's words or in systemd's.
fn why(unit: &ObservedUnit) -> Option<String> {
    match (&unit.status, &unit.ended) {
        (Some(status @ UnitStatus::NotAnswering(_)), None) => Some(status.to_string()),
        (Some(status), None) if unit.state != ObservedState::Stopped => status.reason().map(str::to_owned),
        (_, Some(end)) => Some(end.why.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use blixard_core::ports::UnitEnd;
    use blixard_model::report::NodeReport;
    use blixard_model::{OrderId, Placement};

    use super::*;

    fn unit(name: &str, state: ObservedState) -> ObservedUnit {
        ObservedUnit {
            name: name.parse().expect("a name"),
            state,
            order: Some(OrderId::new(7, 0)),
            main_pid: Some(7),
            status: None,
            ended: None,
        }
    }

    fn record(name: &str) -> VmRecord {
        let spec = format!(r#"{{"name":"{name}","cpus":1,"memory_mib":64,"kernel":"/k"}}"#);
        let placement = Placement { node: "n1".parse().expect("a name"), generation: 7 };
        let spec = serde_json::from_str(&spec).expect("a spec");
        VmRecord {
            spec,
            desired: Desired::Running,
            placement,
            revision: 0,
            lineage: 0,
            held: None,
            stopped: None,
        }
    }

    fn lines(listing: &LocalListing) -> Vec<String> {
        let line = |vm: &LocalVmView| {
            let wanted = vm.wanted.map_or_else(|| "-".to_owned(), |wanted| wanted.to_string());
            format!("{} {} {wanted} {}", vm.name, vm.state, vm.reason.as_deref().unwrap_or("-"))
        };
        listing.items.iter().map(line).collect()
    }

    #[test]
    fn what_is_placed_here_and_what_has_a_unit_here_is_listed_once() {
        let (web, db) = (record("web"), record("db"));
        let full = "disk0 /srv/a.raw: No space left on device";
        let paused = ObservedUnit {
            status: Some(UnitStatus::Paused(full.to_owned())),
            ..unit("web", ObservedState::Running)
        };
        let failed = ObservedUnit {
            ended: Some(UnitEnd::in_words("exited 1")),
            ..unit("stray", ObservedState::Failed)
        };
        let told = |name: &str, reason: &str| VmReport {
            name: name.parse().expect("a name"),
            state: ObservedState::Paused,
            main_pid: None,
            revision: 0,
            reason: Some(reason.to_owned()),
            last_end: None,
        };
        let report = NodeReport {
            node: "n1".parse().expect("a name"),
            vms: vec![told("web", full), told("db", "stopped by hand on n1; the cluster cannot be told")],
            problem: None,
            fences: None,
        };
        let stopped = [StopNote { name: "db".parse().expect("a name"), generation: 7, at_unix_ms: 1 }];
        let units = [paused, failed];
        let placed = vec![&web, &db];
        let vms = LocalVms { placed, units: &units, stopped: &stopped, report: &report, age_ms: 40 };
        let listing = by_agent(&vms);
        assert_eq!(
            lines(&listing),
            [
                "db stopped running stopped by hand on n1; the cluster cannot be told",
                "stray failed - exited 1",
                &format!("web paused running {full}"),
            ]
        );
        assert_eq!((listing.source, listing.age_ms), (LocalSource::Agent, 40));
        let alone = by_systemd(&units, &stopped, None);
        assert_eq!(
            lines(&alone),
            ["db stopped - stopped by hand", "stray failed - exited 1", &format!("web paused - {full}")]
        );
        let by_hand: Vec<bool> = alone.items.iter().map(|vm| vm.stopped_by_hand).collect();
        assert_eq!((by_hand, alone.source), (vec![true, false, false], LocalSource::Systemd));
    }
}
