//! The words of the system: ids, specs, members, commands, outcomes, reports and the forms they take on a
//! wire.
//!
//! Owns every type that crosses a boundary (log, peers, local API, files). Holds no decision and no I/O: what
//! may happen to these words is decided in `blixard-core` and `blixard-node`, and everything here can be
//! built and compared in a test without a clock, a runtime or a disk. The schedule of pauses is here as well,
//! for every crate that tries something again.

pub mod api;
pub mod ask;
pub mod backoff;
pub mod backup;
pub mod boot;
pub mod change;
pub mod command;
pub mod contact;
pub mod fences;
pub mod formation;
pub mod id;
pub mod join;
pub mod lease;
pub mod local;
pub mod member;
pub mod mutant;
pub mod node;
pub mod order;
pub mod reason;
pub mod relay;
pub mod removal;
pub mod report;
pub mod stop;
pub mod ticket;
pub mod unit_status;
pub mod version;
pub mod vm;
pub mod wire;
pub mod words;

pub use ask::{Ask, AskOutcome, MembersAsk, WriteAsk, WriteRequest};
pub use boot::BootId;
pub use change::MembershipChange;
pub use command::{Command, Outcome, Refusal, Request};
pub use contact::Contact;
pub use id::{
    ClusterId, ClusterName, EndpointId, InvalidId, NodeName, RaftId, RequestId, StoreId, TicketHash,
    TicketId, VmName,
};
pub use lease::{
    GrantId, HoldAsk, LeaseDenial, LeaseFile, LeaseGrant, LeaseRenewal, LeaseStanding, LeaseTerms,
    LeaseTermsChoice, LeaseTermsRefused, RenewalAnswer,
};
pub use member::{Member, Role};
pub use node::{Capacity, NodeFacts, Offer, SharedDirs};
pub use reason::{FieldProblem, FieldRefused, Lack, Lacks, Reason, RevokeProblem};
pub use relay::RelayUrl;
pub use removal::{Removal, VmsFate};
pub use stop::{EndCause, NotedStop, RestartPolicy, StopCause, StopNote, VmStop};
pub use ticket::{JoinTicket, TicketRecord, TicketSecret, TicketState, TicketUse};
pub use unit_status::UnitStatus;
pub use version::ClusterVersion;
pub use vm::{Accel, Desired, Disk, Hypervisor, OnNodeLoss, OrderId, Placement, VmSpec};
