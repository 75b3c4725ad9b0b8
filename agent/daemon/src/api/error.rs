//! How a request ends when it is not done.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use blixard_model::api::{ErrorBody, ErrorKind};
use blixard_model::{Refusal, RequestId};
use blixard_node::SubmitError;
use blixard_node::host::StopRefusal;

/// An [`ErrorBody`] with its HTTP status.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, error: ErrorKind, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error, message: message.into(), refusal: None, request_id: None } }
    }

    /// The request cannot be understood.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::Usage, message)
    }

    /// The peer may not ask.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorKind::Refused, message)
    }

    /// The cluster refused it.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::VmNotFound { .. } | Refusal::NodeNotFound { .. } => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        let mut error = Self::new(status, ErrorKind::Refused, refusal.to_string());
        error.body.refusal = Some(Box::new(refusal));
        error
    }

    /// Names the write, for a safe retry.
    pub(crate) fn of_request(mut self, id: &RequestId) -> Self {
        self.body.request_id = Some(id.clone());
        self
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable, message)
            }
            SubmitError::Unknown(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Unknown, message),
        }
    }
}

impl From<StopRefusal> for ApiError {
    fn from(refusal: StopRefusal) -> Self {
        let (status, error) = match refusal {
            StopRefusal::NotHere(_) => (StatusCode::NOT_FOUND, ErrorKind::Refused),
            StopRefusal::NotKept { .. } => (StatusCode::CONFLICT, ErrorKind::Refused),
            StopRefusal::NoMember => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable),
        };
        Self::new(status, error, refusal.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
