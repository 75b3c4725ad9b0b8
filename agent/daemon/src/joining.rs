//! Joining with a ticket: where it comes from and is kept, and the task that asks to be let in.
//!
//! A ticket comes from the configured file or over the local socket. It is kept in the data directory until
//! the store is bound, so that a crash anywhere resumes, and is gone after that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blixard_model::RaftId;
use blixard_model::api::RetryKind;
use blixard_model::wire::{Contact, JoinRequest, JoinResponse};
use blixard_net::ticket::JoinTicket;
use blixard_node::forming::Birth;
use blixard_node::joining::{JoinStep, Joining};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::announce::ms_since;
use super::config::Config;
use super::context::Agent;
use super::peer_call::encode;
use super::random;
use super::retries::Failed;

/// The kept ticket in the data directory.
const FILE_NAME: &str = "join.ticket";
/// What a node without a ticket waits for.
const NEEDED: &str = "a ticket: `blixard cluster token create` on a member makes one, `blixard cluster join` \
                      here takes it";
/// How long one member may take: it brings the request to the leader meanwhile.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(28);

/// The ticket that this node has, and what became of it.
#[derive(Debug)]
pub(crate) struct Tickets {
    held: watch::Sender<Option<JoinTicket>>,
    words: Mutex<Words>,
    /// What is needed while there was none.
    needed: String,
}

#[derive(Debug)]
struct Words {
    /// Why there is no ticket to use, for people.
    problem: Option<String>,
    /// This node is in a cluster: it takes no ticket any more.
    closed: bool,
}

impl Tickets {
    /// The kept one, else the configured one. One that can not be read is a reason to wait and not to end: an
    /// operator may bring another.
    pub(crate) fn load(config: &Config, joins: bool, needed: Option<String>) -> Self {
        let kept = config.data_dir.join(FILE_NAME);
        let path = if kept.exists() { Some(kept.as_path()) } else { config.join_ticket_file.as_deref() };
        // Left over from a time without a list: what the list says counts now.
        let path = path.filter(|_| joins);
        let read = path.map(|path| read(path).map_err(|why| format!("{}: {why}", path.display())));
        let (ticket, problem) = match read {
            None => (None, None),
            Some(Ok(ticket)) => (Some(ticket), None),
            Some(Err(why)) => (None, Some(why)),
        };
        let needed = needed.unwrap_or_else(|| NEEDED.to_owned());
        Self { held: watch::Sender::new(ticket), words: Mutex::new(Words { problem, closed: false }), needed }
    }

    /// Another ticket takes the place of the one there is, on disk first.
    ///
    /// # Errors
    /// The disk's, or this node is in a cluster by now: nothing has changed.
    pub(crate) fn take(&self, data_dir: &Path, text: &str, ticket: JoinTicket) -> io::Result<()> {
        let mut words = self.lock();
        if words.closed {
            return Err(io::Error::other("this node has come into a cluster meanwhile"));
        }
        keep(data_dir, text)?;
        words.problem = None;
        self.held.send_replace(Some(ticket));
        Ok(())
    }

    /// This node is in a cluster: what there is of tickets is of no use any more, and none is taken.
    pub(crate) fn close(&self, data_dir: &Path) {
        self.lock().closed = true;
        forget(data_dir);
    }

    /// A ticket admits nobody: it is gone, unless another one has taken its place meanwhile.
    fn give_up(&self, data_dir: &Path, refused: &JoinTicket, why: String) {
        let mut words = self.lock();
        let gone = self.held.send_if_modified(|held| held.take_if(|held| held.id == refused.id).is_some());
        if gone {
            words.problem = Some(why);
            forget(data_dir);
        }
    }

    /// The members that the ticket names.
    pub(crate) fn contacts(&self) -> Vec<Contact> {
        self.held.borrow().as_ref().map_or_else(Vec::new, |ticket| ticket.contacts.clone())
    }

    /// Why this node is in no cluster yet, when it is to join one.
    pub(crate) fn words(&self) -> String {
        if let Some(problem) = self.trouble() {
            return problem;
        }
        match &*self.held.borrow() {
            None => self.needed.clone(),
            Some(ticket) => format!("a member of cluster {} to let this node in", ticket.cluster_id.short()),
        }
    }

    /// Why there is no ticket to use, if one was tried.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Held while the ticket changes, in memory and on disk: the last one taken is the one that is kept.
    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<JoinTicket, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    JoinTicket::decode(&text).map_err(|error| error.to_string())
}

/// Keeps a ticket: only this node's user may read it.
///
/// # Errors
/// The disk's.
fn keep(data_dir: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = data_dir.join(format!("{FILE_NAME}.new"));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.trim().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, data_dir.join(FILE_NAME))?;
    std::fs::File::open(data_dir)?.sync_all()
}

/// Forgets the kept ticket: it has been used, or is of no use.
fn forget(data_dir: &Path) {
    let path: PathBuf = data_dir.join(FILE_NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{} can not be removed: {error}", path.display());
        }
        _ => {}
    }
}

/// Asks the members that the ticket names until one lets this node in.
pub(crate) async fn join(agent: &Agent) -> Birth {
    let mut held = agent.tickets.held.subscribe();
    loop {
        let ticket = held.borrow_and_update().clone();
        tokio::select! {
            birth = use_ticket(agent, ticket) => return birth,
            // The sender lives in the agent. Another ticket is another beginning.
            _changed = held.changed() => agent.retries.done(RetryKind::Join, None),
        }
    }
}

async fn use_ticket(agent: &Agent, ticket: Option<JoinTicket>) -> Birth {
    let Some(ticket) = ticket else { return std::future::pending().await };
    agent.let_in(&[]);
    let begun = Instant::now();
    let mut joining = Joining::new(ticket.cluster_id, ticket.contacts.clone(), random::u64());
    loop {
        match joining.next(ms_since(begun)) {
            JoinStep::Ask(contact) => {
                let ended = ask(agent, &ticket, &contact, joining.known_as()).await;
                if let Some(birth) = joining.note(ms_since(begun), ended) {
                    agent.retries.done(RetryKind::Join, None);
                    return birth;
                }
                show(agent, &joining, begun);
            }
            JoinStep::Wait { until_ms } => sleep_until(begun + Duration::from_millis(until_ms)).await,
            JoinStep::Refused(refusal) => {
                agent.retries.done(RetryKind::Join, None);
                tracing::error!("this node is not let in: {refusal}");
                let why = format!("another ticket: {refusal}");
                agent.tickets.give_up(&agent.config.data_dir, &ticket, why);
                return std::future::pending().await;
            }
        }
    }
}

async fn ask(
    agent: &Agent,
    ticket: &JoinTicket,
    contact: &Contact,
    known_as: Option<RaftId>,
) -> Result<JoinResponse, String> {
    let node = agent.identity(None).await;
    let written = agent.config.own_addresses();
    let guessed = node.addresses.iter().filter(|address| !written.contains(address)).copied().collect();
    let secret = ticket.secret.clone();
    let request = JoinRequest { node, ticket: ticket.id, secret, guessed, known_as };
    let answer = agent.net.join(contact, ticket.cluster_id, encode(&request), ATTEMPT_TIMEOUT).await;
    let bytes = answer.map_err(|error| format!("{}: {error}", contact.endpoint_id.short()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("an answer that is none: {error}"))
}

fn show(agent: &Agent, joining: &Joining, begun: Instant) {
    let Some((failures, at_ms, why)) = joining.trouble() else { return };
    let next_try = Some(begun + Duration::from_millis(at_ms));
    agent.retries.failed(RetryKind::Join, None, Failed { failures, next_try, why: why.to_owned() });
}
