//! How a command ends when it does not end well: one type, its exit code, its text for people and its JSON.

use std::process::ExitCode;

use blixard_model::api::{ErrorBody, ErrorKind};
use blixard_model::command::Refusal;
use blixard_model::id::RequestId;

use crate::text::clean;

/// Why a command was not done and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: ErrorKind,
    /// What went wrong.
    pub cause: String,
    /// What to do; empty when the cause says it.
    pub way_out: String,
    /// The refusal, when it is one.
    pub(crate) refusal: Option<Box<Refusal>>,
    /// The id of the write, for a safe retry.
    pub(crate) request_id: Option<RequestId>,
}

impl Failure {
    /// A failure with no refusal and no request id.
    pub fn new(kind: ErrorKind, cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), way_out: way_out.into(), refusal: None, request_id: None }
    }

    /// The answer is no, or what was asked for came out otherwise.
    pub(crate) fn refused(cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, cause, way_out)
    }

    /// The command cannot be meant like this; nothing was sent.
    pub(crate) fn usage(cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, cause, way_out)
    }

    /// Nothing happened.
    pub(crate) fn unavailable(cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, cause, way_out)
    }

    /// It may have happened or not.
    pub(crate) fn unknown(cause: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unknown, cause, way_out)
    }

    /// The agent's own words.
    pub(crate) fn from_body(body: ErrorBody) -> Self {
        let refusal = body.refusal;
        Self { refusal, request_id: body.request_id, ..Self::new(body.error, body.message, "") }
    }

    /// The shape that `--json` prints.
    pub(crate) fn body(&self) -> ErrorBody {
        let message = match self.way_out.as_str() {
            "" => self.cause.clone(),
            way_out => format!("{}: {way_out}", self.cause),
        };
        let refusal = self.refusal.clone();
        ErrorBody { error: self.kind, message, refusal, request_id: self.request_id.clone() }
    }

    /// `error: cause`, then the way out on a line of its own.
    pub(crate) fn human(&self) -> String {
        let mut text = format!("error: {}\n", clean(&self.cause));
        if !self.way_out.is_empty() {
            text.push_str(&clean(&self.way_out));
            text.push('\n');
        }
        text
    }

    /// The text for stderr in the wanted form.
    pub(crate) fn render(&self, json: bool) -> String {
        if !json {
            return self.human();
        }
        match serde_json::to_string(&self.body()) {
            Ok(text) => text + "\n",
            Err(error) => format!("{}error: and it could not be written as JSON: {error}\n", self.human()),
        }
    }

    /// The process' exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_exit_code() {
        let cases = [
            (Failure::refused("c", "w"), 1),
            (Failure::usage("c", "w"), 2),
            (Failure::unavailable("c", "w"), 3),
            (Failure::unknown("c", "w"), 4),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.kind.exit_code(), code);
            assert_eq!(failure.exit_code(), ExitCode::from(code));
        }
    }

    #[test]
    fn people_get_the_cause_and_then_the_way_out() {
        assert_eq!(Failure::refused("no", "try so").human(), "error: no\ntry so\n");
        assert_eq!(Failure::refused("no", "").human(), "error: no\n");
    }

    #[test]
    fn a_text_from_a_guest_can_not_steer_the_terminal() {
        let human = Failure::refused("a\u{1b}[2Jb\nc", "").human();
        assert_eq!(human, "error: a^[[2Jb\nc\n");
    }

    #[test]
    fn json_is_the_shape_of_the_api() {
        let name: blixard_model::VmName = "web".parse().expect("name");
        let refusal = Refusal::VmNotFound { name };
        let body = ErrorBody {
            error: ErrorKind::Refused,
            message: refusal.to_string(),
            refusal: Some(Box::new(refusal)),
            request_id: Some("r-1".parse().expect("id")),
        };
        assert_eq!(Failure::from_body(body.clone()).body(), body);
        let text = Failure::from_body(body.clone()).render(true);
        assert_eq!(serde_json::from_str::<ErrorBody>(&text).expect("JSON"), body);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn json_holds_the_way_out_too() {
        assert_eq!(Failure::unavailable("no socket", "start it").body().message, "no socket: start it");
    }
}
