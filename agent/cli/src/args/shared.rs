//! Flags that several commands take.

use std::path::PathBuf;

use blixard_model::api::DEFAULT_SOCKET;
use blixard_model::id::RequestId;
use clap::Args;

/// Longest `--timeout`, in seconds (one day).
const TIMEOUT_S_MAX: i64 = 86_400;

/// How the agent is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct SocketArgs {
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = "BLIXARD_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

/// How the agent is reached, and how long it may take.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) at: SocketArgs,
    /// Gives up after this time
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout)]
    pub(crate) timeout: Option<u32>,
}

/// Seconds from 1 to a day.
pub(super) fn parse_timeout(text: &str) -> Result<u32, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=TIMEOUT_S_MAX).contains(seconds));
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
    seconds.ok_or_else(|| format!("not a whole number of seconds from 1 to {TIMEOUT_S_MAX}"))
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FreshArgs {
    /// Shows what this node knows without asking the others: works without a quorum, may be out of date
    #[arg(long)]
    pub(crate) stale: bool,
}

/// What every change of a VM takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct WriteArgs {
    /// Names this request: sent again with the same id, it is applied only once [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<RequestId>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Whether to wait until what was asked for is so.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Waits until it is done; this is the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Returns as soon as the request is accepted
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl WaitArgs {
    /// Whether to wait: yes unless `--no-wait` is the last word.
    pub(crate) fn wanted(self) -> bool {
        self.wait || !self.no_wait
    }
}

/// A list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}
