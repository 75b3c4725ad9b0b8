//! A VM's console: from the local journal, or from the node it is placed on.

use std::time::Duration;

use blixard_model::wire::PeerRequest;
use blixard_model::words::with_causes;
use blixard_model::{EndpointId, VmName};
use blixard_net::Reply;
use blixard_node::SubmitError;
use blixard_systemd::JournalError;
use blixard_systemd::journal;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::codec;
use super::context::Agent;

/// Lines to begin with, unless asked otherwise.
pub(crate) const LINES_DEFAULT: u32 = 100;
/// Most lines to begin with.
pub(crate) const LINES_MAX: u32 = 10_000;
/// How long the beginning of a remote console may take.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A console as a stream of text; an error is the last item.
pub(crate) type Console = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// Opens a VM's console wherever it is placed.
///
/// # Errors
/// The VM is not known here, or its node cannot be reached.
pub(crate) async fn open(
    agent: &Agent,
    name: &VmName,
    lines: u32,
    follow: bool,
) -> Result<Option<Console>, SubmitError> {
    let wanted = name.clone();
    let placed = agent.host.look_at_member(move |member| {
        let state = member.state();
        let node = state.vms.get(&wanted)?.placement.node.clone();
        let endpoint = state.member_by_name(&node).map(|member| member.node.endpoint_id);
        Some((node, endpoint))
    });
    let placed = placed.await.map_err(SubmitError::from)?;
    let Some((node, endpoint)) = placed else { return Ok(None) };
    if node == *agent.name() {
        return local(name, lines, follow).await.map(Some);
    }
    let Some(endpoint) = endpoint else {
        return Err(SubmitError::Unavailable(format!("node {node} is no member at the moment")));
    };
    remote(agent, endpoint, name, lines, follow).await.map(Some)
}

async fn local(name: &VmName, lines: u32, follow: bool) -> Result<Console, SubmitError> {
    let unreadable = |error: JournalError| {
        SubmitError::Unavailable(format!("the journal cannot be read: {}", with_causes(&error)))
    };
    let lines = lines.min(LINES_MAX);
    if !follow {
        let lines = journal::last_lines(name, None, lines).await.map_err(unreadable)?;
        return Ok(stream::iter(lines.into_iter().map(|line| Ok(text_line(line)))).boxed());
    }
    let follow = journal::follow(name, lines).map_err(unreadable)?;
    let lines = stream::try_unfold(follow, |mut follow| async move {
        let line = follow.next_line().await.map_err(|error| std::io::Error::other(with_causes(&error)))?;
        Ok(line.map(|line| (text_line(line), follow)))
    });
    Ok(lines.boxed())
}

fn text_line(mut line: String) -> Bytes {
    line.push('\n');
    line.into()
}

async fn remote(
    agent: &Agent,
    to: EndpointId,
    name: &VmName,
    lines: u32,
    follow: bool,
) -> Result<Console, SubmitError> {
    let request = codec::encode(&PeerRequest::Logs { name: name.clone(), lines, follow });
    let stream = agent.net.request_stream(to, request, BEGIN_TIMEOUT).await;
    let stream =
        stream.map_err(|error| SubmitError::Unavailable(format!("its node cannot be asked: {error}")))?;
    Ok(stream.map(|item| item.map_err(std::io::Error::other)).boxed())
}

/// Sends the console of a VM of this node to another one, until it ends or nobody reads any more.
pub(crate) async fn serve_peer(name: &VmName, lines: u32, follow: bool, reply: Reply) {
    let mut console = match local(name, lines, follow).await {
        Ok(console) => console,
        Err(error) => return reply.not_taken(error.to_string()),
    };
    let mut out = reply.stream();
    loop {
        let item = tokio::select! {
            item = console.next() => item,
            () = out.closed() => return,
        };
        match item {
            Some(Ok(bytes)) => {
                if out.send(bytes).await.is_err() {
                    return;
                }
            }
            // Dropped without an end, the asker sees that it broke off.
            Some(Err(error)) => return tracing::warn!(VM = %name, "console of {name} broke off: {error}"),
            None => return out.end(),
        }
    }
}
