//! Questions to other nodes: JSON in, JSON out.

use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::formation::Identity;
use blixard_model::wire::{FRAME_LEN_MAX, PeerRequest, PeerResponse};
use blixard_net::{Net, RequestError};
use bytes::Bytes;
use tokio::task::JoinSet;

/// Why a peer gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nothing happened there.
    #[error("{0}")]
    NotSent(String),
    /// It may have been acted on.
    #[error("{0}")]
    Unknown(String),
}

/// Asks and waits for the answer.
///
/// # Errors
/// See [`AskError`].
pub(crate) async fn ask(
    net: &Net,
    to: EndpointId,
    request: &PeerRequest,
    deadline: Duration,
) -> Result<PeerResponse, AskError> {
    let bytes = encode(request);
    match net.request(to, bytes, deadline).await {
        Ok(answer) => serde_json::from_slice(&answer)
            .map_err(|error| AskError::Unknown(format!("an answer that is none: {error}"))),
        Err(error @ RequestError::NotSent(_)) => Err(AskError::NotSent(error.to_string())),
        Err(error @ RequestError::Unknown(_)) => Err(AskError::Unknown(error.to_string())),
    }
}

/// Asks everybody who they are, all at once: one that does not answer delays the others by no more than the
/// deadline. Why there is no answer is in words.
pub(crate) async fn ask_identities(
    net: &Net,
    whom: Vec<EndpointId>,
    me: &Identity,
    deadline: Duration,
) -> Vec<(EndpointId, Result<Identity, String>)> {
    let mut asked = JoinSet::new();
    for to in whom {
        let (net, request) = (net.clone(), PeerRequest::Identify { me: me.clone() });
        asked.spawn(async move { (to, ask(&net, to, &request, deadline).await) });
    }
    let mut answers = Vec::new();
    while let Some(answered) = asked.join_next().await {
        let Ok((to, answer)) = answered else { continue };
        let identity = match answer {
            Ok(PeerResponse::Identity { me }) if me.endpoint_id == to => Ok(*me),
            Ok(PeerResponse::Declined { why }) => Err(why),
            Ok(_) => Err("the answer is of something else".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        answers.push((to, identity));
    }
    answers
}

/// Writes a message; ours always fit and always encode.
pub(crate) fn encode(message: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(message).unwrap_or_default().into()
}

/// Reads a peer's question.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<PeerRequest, String> {
    if bytes.len() > FRAME_LEN_MAX {
        return Err(format!("larger than {FRAME_LEN_MAX} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
