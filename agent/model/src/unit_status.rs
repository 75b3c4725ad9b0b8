//! What the supervisor of a VM says of it: the text that systemd shows as the status of the unit.

use std::fmt;
use std::str::FromStr;

use crate::report::cut_reason;

/// The state of a VM as its supervisor tells it, with the reason where there is one. As a text: the state,
/// and behind a colon the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitStatus {
    /// The hypervisor is being started, and the guest does not run yet.
    Starting,
    /// The hypervisor is there, and the guest may not run yet.
    Waiting(String),
    /// The guest runs.
    Running,
    /// The guest stands still.
    Paused(String),
    /// The hypervisor does not answer. The guest may run.
    NotAnswering(String),
    /// It is being stopped.
    Stopping(String),
    /// The hypervisor has ended.
    Ended(String),
}

/// The text is not the status of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the status of a VM")]
pub struct NoUnitStatus;

const STARTING: &str = "starting";
const WAITING: &str = "waiting";
const RUNNING: &str = "running";
const PAUSED: &str = "paused";
const NOT_ANSWERING: &str = "not answering";
const STOPPING: &str = "stopping";
const ENDED: &str = "ended";

impl UnitStatus {
    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Running => None,
            Self::Waiting(why)
            | Self::Paused(why)
            | Self::NotAnswering(why)
            | Self::Stopping(why)
            | Self::Ended(why) => Some(why),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Starting => STARTING,
            Self::Waiting(_) => WAITING,
            Self::Running => RUNNING,
            Self::Paused(_) => PAUSED,
            Self::NotAnswering(_) => NOT_ANSWERING,
            Self::Stopping(_) => STOPPING,
            Self::Ended(_) => ENDED,
        }
    }
}

impl fmt::Display for UnitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            None => f.write_str(self.word()),
            Some(why) => write!(f, "{}: {why}", self.word()),
        }
    }
}

impl FromStr for UnitStatus {
    type Err = NoUnitStatus;

    fn from_str(text: &str) -> Result<Self, NoUnitStatus> {
        let (word, why) = match text.split_once(": ") {
            Some((word, why)) => (word, Some(why)),
            None => (text, None),
        };
        let why = why.map(|why| {
            let mut why = why.to_owned();
            cut_reason(&mut why);
            why
        });
        Ok(match (word, why) {
            (STARTING, None) => Self::Starting,
            (WAITING, Some(why)) => Self::Waiting(why),
            (RUNNING, None) => Self::Running,
            (PAUSED, Some(why)) => Self::Paused(why),
            (NOT_ANSWERING, Some(why)) => Self::NotAnswering(why),
            (STOPPING, Some(why)) => Self::Stopping(why),
            (ENDED, Some(why)) => Self::Ended(why),
            _ => return Err(NoUnitStatus),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::REASON_LEN_MAX;

    #[test]
    fn each_status_is_read_back() {
        let why = || "disk0 /var/lib/a: b.raw: No space left on device".to_owned();
        for status in [
            UnitStatus::Starting,
            UnitStatus::Waiting(why()),
            UnitStatus::Running,
            UnitStatus::Paused(why()),
            UnitStatus::NotAnswering(why()),
            UnitStatus::Stopping(why()),
            UnitStatus::Ended(why()),
        ] {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
    }

    #[test]
    fn another_text_is_none_and_a_reason_is_cut() {
        for text in
            ["", "running: fast", "waiting", "paused", "ended:", "Running", "sleeping: yes", "running\n"]
        {
            assert_eq!(text.parse::<UnitStatus>(), Err(NoUnitStatus), "{text:?}");
        }
        let long = format!("paused: {}", "é".repeat(REASON_LEN_MAX));
        let Ok(UnitStatus::Paused(why)) = long.parse() else { panic!("{long}") };
        assert_eq!(why.len(), REASON_LEN_MAX);
    }
}
