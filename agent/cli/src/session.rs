//! One command's way to the agent: where it listens, how long the command may take, and in which form its
//! answer is printed.

use std::time::Duration;

use blixard_model::InvalidId;
use blixard_model::api::{ErrorKind, Listing};
use blixard_model::id::RequestId;
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{AskArgs, FreshArgs};
use crate::client::{Client, Deadline, WriteCall};
use crate::failure::Failure;
use crate::output;
use crate::progress::WaitProgress;
use crate::show::status::disarmed_words;

/// How long one answer may take, unless the user says otherwise.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The agent as one command talks to it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    deadline: Deadline,
    json: bool,
}

impl Session {
    /// Begins now, with `patience` unless the user gives a time. Nothing is sent yet.
    pub(crate) fn open(ask: &AskArgs, json: bool, patience: Duration) -> Self {
        let patience = ask.timeout.map_or(patience, |seconds| Duration::from_secs(seconds.into()));
        Self { client: Client::new(&ask.at.socket), deadline: Deadline::after(patience), json }
    }

    /// The client, for what is sent otherwise than here.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// When the command gives up.
    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// What a wait of this command is shown with.
    pub(crate) fn progress(&self) -> WaitProgress {
        WaitProgress::new(self.json)
    }

    /// Reads what this node says of itself, for which no quorum is needed.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.client.get(path, self.deadline).await
    }

    /// Reads from the cluster's state: confirmed by a quorum, or what this node knows if `fresh` allows it.
    ///
    /// # Errors
    /// As [`Client::get`]; names `--stale` where that would help.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str, fresh: FreshArgs) -> Result<T, Failure> {
        let read = self.client.get(&with_freshness(path, fresh), self.deadline).await;
        read.map_err(|failure| offer_stale(failure, fresh))
    }

    /// Reads all of `path`, at most `len_max` bytes; as [`Session::read`].
    ///
    /// # Errors
    /// As [`Client::download`]; names `--stale` where that would help.
    pub(crate) async fn download(
        &self,
        path: &str,
        fresh: FreshArgs,
        len_max: usize,
    ) -> Result<Vec<u8>, Failure> {
        let read = self.client.download(&with_freshness(path, fresh), len_max, self.deadline).await;
        read.map_err(|failure| offer_stale(failure, fresh))
    }

    /// Sends a write under an id of its own.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let id = random_id()?;
        let patience = self.deadline.within(ANSWER_TIMEOUT);
        self.client.write(WriteCall { method, path, body, id: &id }, patience).await
    }

    /// Prints the answer: the document as JSON, or the text.
    ///
    /// # Errors
    /// As [`output::print`].
    pub(crate) fn print(&self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json { output::print_json(document) } else { output::print(text) }
    }

    /// Prints a list, and on stderr that it may be out of date if no quorum confirmed it, and that the
    /// cluster is disarmed. In JSON the list says so itself as well.
    ///
    /// # Errors
    /// As [`output::print`].
    pub(crate) fn print_list<T: Serialize>(
        &self,
        list: &Listing<T>,
        text: fn(&Listing<T>) -> String,
    ) -> Result<(), Failure> {
        if let Some(note) = stale_note(list) {
            output::note(&note);
        }
        if let Some(disarmed) = &list.disarmed {
            output::note(&format!("note: {}\n", disarmed_words(disarmed)));
        }
        self.print(list, &text(list))
    }
}

fn with_freshness(path: &str, fresh: FreshArgs) -> String {
    if fresh.stale { format!("{path}?stale=true") } else { path.to_owned() }
}

/// An agent that answers without a quorum can still tell what it knows itself.
fn offer_stale(mut failure: Failure, fresh: FreshArgs) -> Failure {
    const OFFER: &str = "--stale shows what this node knows, which may be out of date";
    // Where the agent is not reached, the failure says what to do already, and this would not help.
    let agent_spoke = failure.kind == ErrorKind::Unavailable && failure.way_out.is_empty();
    if agent_spoke && !fresh.stale && !failure.cause.contains("--stale") {
        OFFER.clone_into(&mut failure.way_out);
    }
    failure
}

/// The line for stderr if a list is not what a quorum confirmed.
fn stale_note<T>(list: &Listing<T>) -> Option<String> {
    let Listing { linearizable, applied, .. } = list;
    (!linearizable)
        .then(|| format!("stale: what this node knows up to log index {applied}; no quorum confirmed it\n"))
}

/// 128 random bits, so that no two requests share an id.
pub(crate) fn random_id() -> Result<RequestId, Failure> {
    let failure = |why: String| {
        Failure::unavailable(format!("no request id could be made: {why}"), "give one with --request-id")
    };
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| failure(error.to_string()))?;
    format!("{:032x}", u128::from_be_bytes(bytes))
        .parse()
        .map_err(|error: InvalidId| failure(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn random_ids_are_valid_and_differ() {
        assert_ne!(random_id().expect("id"), random_id().expect("id"));
    }

    #[test]
    fn a_read_that_no_quorum_confirms_offers_a_stale_one() {
        let fresh = |stale| FreshArgs { stale };
        let no_quorum = || Failure::unavailable("no quorum", "");
        let offered = offer_stale(no_quorum(), fresh(false)).way_out;
        assert!(offered.starts_with("--stale "), "{offered}");
        for (failure, stale) in [
            (no_quorum(), true),
            (Failure::unavailable("no quorum: --stale shows the rest", ""), false),
            (Failure::unavailable("there is no socket", "is the agent running?"), false),
            (Failure::refused("no such VM", ""), false),
            (Failure::usage("?", ""), false),
        ] {
            assert_eq!(offer_stale(failure.clone(), fresh(stale)), failure);
        }
    }

    #[test]
    fn only_a_list_without_a_quorum_is_called_stale() {
        let mut list = sample::listing(vec![sample::vm("web")]);
        assert_eq!(stale_note(&list), None);
        list.linearizable = false;
        assert!(stale_note(&list).is_some_and(|note| note.starts_with("stale: ") && note.contains("17")));
    }
}
