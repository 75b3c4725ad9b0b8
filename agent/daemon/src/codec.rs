//! What nodes say to each other as bytes: JSON.

use blixard_model::wire::FRAME_LEN_MAX;
use bytes::Bytes;
use serde::de::DeserializeOwned;

/// Writes a message; ours always fit and always encode.
pub(crate) fn encode(message: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(message).unwrap_or_default().into()
}

/// Reads a message of a peer.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() > FRAME_LEN_MAX {
        return Err(format!("larger than {FRAME_LEN_MAX} bytes"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
