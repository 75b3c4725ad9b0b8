//! Looks at what ends this machine's VMs that may not run any more, and tells the host.

use std::sync::Arc;
use std::time::Duration;

use blixard_core::fences::{FenceFacts, LastResortUnit, fences_of};
use blixard_model::LeaseTerms;
use blixard_model::words::with_causes;
use blixard_node::host::Input;
use blixard_systemd::SystemdVms;
use tokio::time::{MissedTickBehavior, interval};

use super::super::config::LastResortChoice;
use super::super::{leases, views};
use super::Shell;

/// How often. Each look is told, because a host that has just become a member has heard of none.
const PERIOD: Duration = Duration::from_secs(5);

impl Shell {
    pub(super) fn watch_fences(&self) {
        let (units, host) = (Arc::clone(&self.units), self.agent.host.clone());
        let wanted = self.agent.config.last_resort;
        self.tasks.spawn(async move {
            let mut period = interval(PERIOD);
            period.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                period.tick().await;
                let terms = host.look_at_member(|member| views::lease_terms(member.state())).await;
                // Without a cluster nobody hears of them.
                let terms = LeaseTerms::DEFAULT.with(terms.ok());
                let fences = fences_of(look(&units, wanted, terms).await);
                if !host.input(Input::Fences(Box::new(fences))).await {
                    return;
                }
            }
        });
    }
}

async fn look(units: &SystemdVms, wanted: LastResortChoice, terms: LeaseTerms) -> FenceFacts {
    let lease_problem = leases::problem();
    let (watchdogs, runs) = match units.fence_facts().await {
        Ok((watchdogs, runs)) => (Ok(watchdogs), Ok(runs)),
        Err(error) => {
            let why = with_causes(&error);
            (Err(why.clone()), Err(why))
        }
    };
    let last_resort = match wanted {
        LastResortChoice::None => Ok(LastResortUnit::Unwanted),
        LastResortChoice::Reboot => {
            runs.map(|runs| if runs { LastResortUnit::Runs } else { LastResortUnit::Down })
        }
    };
    FenceFacts { lease_problem, watchdogs, last_resort, terms }
}
