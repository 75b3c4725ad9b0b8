//! Looks at what this machine offers and where it is reached, and tells the host when it changes.

use std::sync::Arc;
use std::time::Duration;

use blixard_node::host::Input;
use tokio::time::{MissedTickBehavior, interval};

use super::context::Agent;

/// How often this machine's addresses are looked at: it may move without a word to its agent.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon after the peers or the network changed.
const SOON: Duration = Duration::from_millis(200);

/// Runs until the host task ends.
pub(crate) async fn watch(agent: Arc<Agent>) {
    let mut known = None;
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut transport = agent.net.transport();
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = agent.peers.changed.notified() => {}
            changed = transport.changed() => {
                if changed.is_err() {
                    return;
                }
                // The home relay is found a moment after the network is up.
                period.reset_after(SOON);
            }
        }
        let offer = agent.offer();
        if known.as_ref() != Some(&offer) {
            known = Some(offer.clone());
            if !agent.host.input(Input::Offer(Box::new(offer))).await {
                return;
            }
        }
    }
}
