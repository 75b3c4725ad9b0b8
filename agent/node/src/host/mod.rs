//! The whole life of a host: without a cluster, a member of one, removed from it.
//!
//! [`Host::handle`] takes an [`Input`], [`Host::turn`] gives the [`Effect`]s. Both are closed: whatever a
//! peer, an operator, systemd, the disk or the clock can say is an input, and whatever a host wants done is
//! an effect. Two shells drive it, the daemon's over tokio, iroh and real clocks, and the simulator's over
//! virtual ones. Neither decides anything.
//!
//! ```text
//!              bound to a cluster                an operator removed it
//!   Unborn ─────────────────────────▶ Member ─────────────────────────▶ Removed
//! ```
//!
//! A shell calls [`Host::handle`] for each input of a batch, then [`Host::turn`], and carries out the effects
//! in their order. An [`Effect::Write`] has to be durable before anything behind it happens; when it is, the
//! shell says so with [`Input::Written`] and calls [`Host::turn`] again. While [`Host::wants_turn`], there is
//! more to do at once. A host never waits: what takes time is an effect now and an input later.

mod calls;
pub mod disk;
mod effect;
mod input;
mod member;
mod moment;
mod removed;
mod trouble;
mod unborn;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use blixard_consensus::Limits;
use blixard_core::declared::DeclaredMember;
use blixard_core::lease::LeaseFound;
use blixard_model::formation::{Genesis, Identity};
use blixard_model::{
    BootId, ClusterName, ClusterVersion, EndpointId, JoinTicket, LeaseTerms, NodeFacts, mutant,
};

pub use effect::{Answer, Effect, HoldEnd, JoinRefusal, StopRefusal};
pub use input::{
    CallError, CallId, HolderRefusal, Input, NodeRemoval, PeerCallId, RaftFrame, WaiterId, Want,
};
pub use member::{LocalVms, MemberHost, Proposer, Reader, Replica, SubmissionId};
pub use moment::Moment;
pub use removed::Removed;
pub use trouble::Trouble;
pub use unborn::Unborn;

use crate::replica::NodeError;
use crate::resume::{Resume, ResumeError, resume};
use disk::{Kept, Write, Written};
use member::Own;
use unborn::Wanted;

/// Most inputs that wait for a write of the log. A shell that writes before it hands over the next input, as
/// both do, needs none.
const HELD_MAX: usize = 4_096;

/// What a host is told when it starts, beside what its store holds.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Who it is, what this machine offers and where it is reached.
    pub node: NodeFacts,
    /// The cluster's configured name.
    pub cluster_name: ClusterName,
    /// The configured list of members; empty for none.
    pub declared: Vec<DeclaredMember>,
    /// It joins a cluster with a ticket, and forms none of its own.
    pub joins: bool,
    /// What an operator has to do while there is no ticket, if it is something special.
    pub needs: Option<String>,
    /// The ticket that is kept or configured, or why it cannot be read.
    pub ticket: Option<Result<JoinTicket, String>>,
    /// Those of its addresses that an operator wrote down. All others are guesses.
    pub written: Vec<SocketAddr>,
    /// As leader, it has a voter replaced that was not heard of for so many ticks.
    pub voter_lost_ticks: u64,
    /// The newest version of a cluster that its release supports.
    pub supports: ClusterVersion,
    /// How long leases hold; the same on all nodes.
    pub lease_terms: LeaseTerms,
    /// What an earlier agent let the supervisors of this machine's VMs know.
    pub lease: LeaseFound,
    /// When the log is cut.
    pub limits: Limits,
    /// Random, other in every run.
    pub incarnation: u64,
}

/// What a store holds when its host starts.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The promise of a host without a cluster.
    pub promise: Option<Genesis>,
    /// The cluster and the log of a host that has one.
    pub kept: Option<Kept>,
    /// An operator removed this host from that cluster.
    pub removed: bool,
}

/// How far a host has come.
#[derive(Debug)]
enum Life {
    Unborn(Box<Unborn>),
    Member(Box<MemberHost>),
    Removed(Box<Removed>),
}

/// Why a host must end. What is on disk is what counts.
#[derive(Debug, thiserror::Error)]
pub enum HostEnd {
    /// Its part in the cluster ended.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// What its store holds cannot be gone on with.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The process was carried over into another boot of a machine, where no time it knows means anything.
    #[error("this process was begun in another boot of the machine: start the agent again")]
    AnotherBoot,
    /// The shell handed over more inputs than it may while a write is under way.
    #[error("more than {HELD_MAX} inputs wait for a write of the log")]
    Overrun,
}

/// A host; see the module's documentation.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    life: Life,
    boot_id: BootId,
    /// The log is being written, and until the turn goes on after that nothing else may reach the replica.
    writes_log: bool,
    held: VecDeque<(Moment, Input)>,
    out: Vec<Effect>,
}

impl Host {
    /// A host that starts with this store.
    ///
    /// # Errors
    /// [`HostEnd::Resume`].
    pub fn new(config: HostConfig, found: Found, now: Moment) -> Result<Self, HostEnd> {
        let life = match found.kept {
            Some(kept) if found.removed => Life::Removed(Box::new(Removed::new(kept.marker.cluster_id))),
            Some(kept) => {
                let begin = (own(&config), BTreeSet::new());
                Life::Member(Box::new(member(&config, begin, kept, now)?))
            }
            None => {
                let wanted = Wanted {
                    cluster_name: config.cluster_name.clone(),
                    declared: config.declared.clone(),
                    joins: config.joins,
                    needs: config.needs.clone(),
                };
                let ticket = config.ticket.clone().filter(|_| config.joins);
                Life::Unborn(Box::new(Unborn::new(own(&config), wanted, (found.promise, ticket), now)))
            }
        };
        // A crash may have come between the bound store and this.
        let out = match &life {
            Life::Member(_) => vec![Effect::ForgetTicket(None)],
            Life::Unborn(_) | Life::Removed(_) => Vec::new(),
        };
        Ok(Self { config, life, boot_id: now.boot_id, writes_log: false, held: VecDeque::new(), out })
    }

    /// Takes an input.
    ///
    /// # Errors
    /// Final: the process has to end.
    pub fn handle(&mut self, now: Moment, input: Input) -> Result<(), HostEnd> {
        if now.boot_id != self.boot_id {
            return Err(HostEnd::AnotherBoot);
        }
        match input {
            Input::Written(written) => self.handle_written(now, *written),
            input if self.writes_log && !mutant::lives("inputs-not-held") => {
                if self.held.len() >= HELD_MAX {
                    return Err(HostEnd::Overrun);
                }
                self.held.push_back((now, input));
                Ok(())
            }
            input => self.handle_now(now, input),
        }
    }

    fn handle_now(&mut self, now: Moment, input: Input) -> Result<(), HostEnd> {
        let handled = match &mut self.life {
            Life::Unborn(unborn) => {
                unborn.handle(now, input);
                Ok(())
            }
            Life::Member(member) => member.handle(now, input),
            Life::Removed(removed) => {
                removed.handle(now, input);
                Ok(())
            }
        };
        self.note_end(handled)
    }

    fn handle_written(&mut self, now: Moment, written: Written) -> Result<(), HostEnd> {
        match (written, &mut self.life) {
            (Written::Bound(kept), Life::Unborn(unborn)) => {
                unborn.abandon();
                self.out.append(&mut unborn.take_effects());
                self.out.push(Effect::ForgetTicket(None));
                let linked = unborn.linked().clone();
                let own = unborn.own().clone();
                let born = member(&self.config, (own, linked), *kept, now)?;
                self.life = Life::Member(Box::new(born));
                Ok(())
            }
            (written, Life::Unborn(unborn)) => {
                unborn.handle(now, Input::Written(Box::new(written)));
                Ok(())
            }
            (Written::Log, Life::Member(member)) => {
                member.log_written();
                Ok(())
            }
            (_, Life::Member(_) | Life::Removed(_)) => Ok(()),
        }
    }

    /// Does what there is to do after a batch of inputs, and says what has to be done.
    ///
    /// # Errors
    /// Final: the process has to end.
    pub fn turn(&mut self, now: Moment) -> Result<Vec<Effect>, HostEnd> {
        if now.boot_id != self.boot_id {
            return Err(HostEnd::AnotherBoot);
        }
        match &mut self.life {
            Life::Unborn(unborn) => {
                unborn.turn(now);
                self.out.append(&mut unborn.take_effects());
            }
            Life::Member(member) => {
                if self.writes_log && !member.is_written() {
                    return Ok(std::mem::take(&mut self.out));
                }
                let turned = member.turn(now);
                self.writes_log = matches!(turned, Ok(true));
                self.note_end(turned.map(|_| ()))?;
                if !self.writes_log {
                    let mut held = std::mem::take(&mut self.held);
                    if mutant::lives("held-inputs-dropped") {
                        held.clear();
                    }
                    held.into_iter().try_for_each(|(at, input)| self.handle_now(at, input))?;
                }
                if let Life::Member(member) = &mut self.life {
                    self.out.append(&mut member.take_effects());
                }
            }
            Life::Removed(_) => {}
        }
        if let Life::Removed(removed) = &mut self.life {
            self.out.append(&mut removed.take_effects());
        }
        Ok(std::mem::take(&mut self.out))
    }

    /// A member that was removed goes on as that; everything else that ends a member ends its process.
    fn note_end(&mut self, ended: Result<(), NodeError>) -> Result<(), HostEnd> {
        let Err(error) = ended else { return Ok(()) };
        let (NodeError::Removed { .. }, Life::Member(member)) = (&error, &mut self.life) else {
            return Err(error.into());
        };
        member.abandon("this node was removed from its cluster", true);
        self.out.append(&mut member.take_effects());
        let cluster_id = member.state().cluster_id();
        self.out.push(Effect::Write(Write::Removed));
        self.life = Life::Removed(Box::new(Removed::new(cluster_id)));
        self.writes_log = false;
        self.held.clear();
        Ok(())
    }

    /// Whether there is more to do at once.
    pub fn wants_turn(&self) -> bool {
        match &self.life {
            Life::Member(member) => {
                let waits = || member.wants_turn() || member.has_effects() || !self.out.is_empty();
                member.is_written() || !self.writes_log && waits()
            }
            Life::Unborn(unborn) => unborn.has_effects() || !self.out.is_empty(),
            Life::Removed(_) => !self.out.is_empty(),
        }
    }

    /// By when the shell has to say [`Input::Wake`] at the latest, in milliseconds of
    /// [`Moment::boot_ms`](Moment); none for when it likes.
    pub fn wake_at_ms(&self) -> Option<u64> {
        match &self.life {
            Life::Unborn(unborn) => unborn.wake_at_ms(),
            Life::Member(member) => Some(member.wake_at_ms()),
            Life::Removed(_) => None,
        }
    }

    /// This host while it is a member.
    pub fn member(&self) -> Option<&MemberHost> {
        match &self.life {
            Life::Member(member) => Some(member),
            Life::Unborn(_) | Life::Removed(_) => None,
        }
    }

    /// This host while it has no cluster.
    pub fn unborn(&self) -> Option<&Unborn> {
        match &self.life {
            Life::Unborn(unborn) => Some(unborn),
            Life::Member(_) | Life::Removed(_) => None,
        }
    }

    /// This host once it was removed.
    pub fn removed(&self) -> Option<&Removed> {
        match &self.life {
            Life::Removed(removed) => Some(removed),
            Life::Unborn(_) | Life::Member(_) => None,
        }
    }

    /// What this host says of itself to whoever asks; nothing once it was removed.
    pub fn identity(&self) -> Option<Identity> {
        match &self.life {
            Life::Unborn(unborn) => Some(unborn.identity()),
            Life::Member(member) => Some(member.identity(None)),
            Life::Removed(_) => None,
        }
    }

    /// What failed and is tried again, at this time.
    pub fn troubles(&self, now: Moment) -> Vec<Trouble> {
        match &self.life {
            Life::Unborn(unborn) => unborn.troubles(now.boot_ms),
            Life::Member(member) => member.troubles(now.boot_ms),
            Life::Removed(_) => Vec::new(),
        }
    }
}

fn own(config: &HostConfig) -> Own {
    Own {
        node: config.node.clone(),
        supports: config.supports,
        written: config.written.clone(),
        incarnation: config.incarnation,
    }
}

fn member(
    config: &HostConfig,
    (own, linked): (Own, BTreeSet<EndpointId>),
    kept: Kept,
    now: Moment,
) -> Result<MemberHost, ResumeError> {
    let who = Resume {
        name: config.node.name.clone(),
        declared: config.declared.clone(),
        voter_lost_ticks: config.voter_lost_ticks,
        supports: config.supports,
        incarnation: config.incarnation,
        limits: config.limits,
    };
    let lease = (config.lease_terms, config.lease.clone());
    Ok(MemberHost::new(own, resume(kept, who)?, (linked, lease), now))
}
