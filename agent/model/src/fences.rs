//! What ends the VMs of a node that may not run there any more: what a node sees of that on itself.

use serde::{Deserialize, Serialize};

/// Longest reason kept, in bytes.
pub const FENCE_WHY_LEN_MAX: usize = 160;

/// What a node can count on to end the VMs that need a lease once they have none. Each of them acts where
/// those before it cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fences {
    /// The supervisors of the VMs, which read the agent's lease.
    pub supervisor: FenceState,
    /// systemd's watchdog, where a supervisor hangs or stands still.
    pub systemd_watchdog: FenceState,
    /// The machine is restarted, where a process is not ended by SIGKILL.
    pub last_resort: FenceState,
    /// The machine's hardware restarts it, where its kernel or systemd hangs.
    pub hardware_watchdog: FenceState,
}

/// Whether one of them does its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FenceState {
    /// It does.
    Works,
    /// It does not.
    Off {
        /// Why it does not, in words.
        why: String,
    },
    /// Nobody could be asked.
    Unknown {
        /// Why nobody could, in words.
        why: String,
    },
}

impl FenceState {
    /// It does not, for this reason.
    pub fn off(why: impl Into<String>) -> Self {
        Self::Off { why: why.into() }
    }

    /// Whether it does its part.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }

    /// Why it does not, or why nobody knows.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Works => None,
            Self::Off { why } | Self::Unknown { why } => Some(why),
        }
    }

    fn cut(&mut self) {
        if let Self::Off { why } | Self::Unknown { why } = self
            && why.len() > FENCE_WHY_LEN_MAX
        {
            why.truncate(why.floor_char_boundary(FENCE_WHY_LEN_MAX));
            // The rest would be held as long as this.
            why.shrink_to_fit();
        }
    }
}

impl Fences {
    /// Each by its name, in the order in which they act.
    pub fn each(&self) -> [(&'static str, &FenceState); 4] {
        [
            ("supervisor", &self.supervisor),
            ("systemd's watchdog", &self.systemd_watchdog),
            ("last resort", &self.last_resort),
            ("hardware watchdog", &self.hardware_watchdog),
        ]
    }

    /// Cuts every reason in it to [`FENCE_WHY_LEN_MAX`].
    pub fn cut(&mut self) {
        let Self { supervisor, systemd_watchdog, last_resort, hardware_watchdog } = self;
        [supervisor, systemd_watchdog, last_resort, hardware_watchdog].into_iter().for_each(FenceState::cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_and_read_back_as_they_were() {
        let mut fences = Fences {
            supervisor: FenceState::Works,
            systemd_watchdog: FenceState::off("é".repeat(100)),
            last_resort: FenceState::off("none"),
            hardware_watchdog: FenceState::Unknown { why: "x".repeat(1_000) },
        };
        fences.cut();
        let lens = fences.each().map(|(_, state)| state.why_not().map(str::len));
        assert_eq!(lens, [None, Some(160), Some(4), Some(160)]);
        let text = serde_json::to_string(&fences).expect("json");
        assert!(
            text.starts_with(r#"{"supervisor":{"state":"works"},"systemd_watchdog":{"state":"off","why":"#)
        );
        assert_eq!(serde_json::from_str::<Fences>(&text).expect("fences"), fences);
    }
}
