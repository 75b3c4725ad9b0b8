//! How a VM ended.

use std::fmt;

use blixard_model::EndCause;
use nix::sys::signal::Signal;

/// How the hypervisor's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Its exit status, if it exited.
    pub status: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The kernel ended a process of the unit for want of memory.
    pub out_of_memory: Option<MemoryShortage>,
}

/// What memory was short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryShortage {
    /// The unit reached its limit.
    Limit,
    /// The machine had no more.
    Machine,
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.signal) {
            (_, Some(signal)) => match Signal::try_from(signal) {
                Ok(known) => write!(f, "was killed by signal {signal} ({known})"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            (Some(status), None) => write!(f, "exited {status}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// Why a VM runs no more. Displayed as the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEnd {
    /// systemd asked for it.
    Stopped,
    /// The guest shut itself down.
    GuestShutDown,
    /// The guest restarted itself; a panic of a Linux guest ends in a restart as well.
    GuestRestarted,
    /// The guest told the hypervisor that it panicked.
    GuestPanicked,
    /// The kernel ended it for want of memory.
    OutOfMemory(MemoryShortage),
    /// The hypervisor ended otherwise.
    Hypervisor(String),
    /// The VM never ran.
    NotStarted(String),
    /// The VM never ran because no lease allowed it, for this reason.
    NoLease(String),
    /// It was killed because its lease allowed it no more, for this reason.
    LeaseEnded(String),
}

impl VmEnd {
    /// The end of a VM that ran and that nobody ended, by how the process ended and what QEMU said before:
    /// the reason of a shutdown, and whether the guest panicked.
    pub(super) fn by_itself(how: ProcessEnd, shutdown: Option<&str>, panicked: bool) -> Self {
        match shutdown {
            Some("guest-panic") => Self::GuestPanicked,
            _ if panicked => Self::GuestPanicked,
            Some("guest-shutdown") => Self::GuestShutDown,
            Some("guest-reset") => Self::GuestRestarted,
            Some(other) => Self::Hypervisor(format!("{how} ({other})")),
            None => Self::Hypervisor(how.to_string()),
        }
    }

    /// The exit status of the supervisor. Only an end that was asked for is a success: systemd keeps the
    /// status and the words of a failed unit until they are read.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::GuestShutDown => 10,
            Self::GuestRestarted => 11,
            Self::GuestPanicked => 12,
            Self::OutOfMemory(_) => 13,
            Self::Hypervisor(_) => 14,
            Self::NotStarted(_) => 15,
            Self::NoLease(_) => 16,
            Self::LeaseEnded(_) => 17,
        }
    }

    /// How the run of the guest ended, by the exit status; none where the guest never ran, or where the
    /// cluster itself ended it.
    pub fn cause_of(exit_status: i32) -> Option<EndCause> {
        Some(match exit_status {
            10 => EndCause::GuestShutDown,
            11 => EndCause::GuestRestarted,
            12 => EndCause::GuestPanicked,
            13 => EndCause::OutOfMemory,
            14 => EndCause::HypervisorEnded,
            _ => return None,
        })
    }

    /// What an exit status says by itself, where the words of the supervisor are lost.
    pub fn words_of(exit_status: i32) -> Option<&'static str> {
        Some(match exit_status {
            10 => "the guest shut itself down",
            11 => "the guest restarted itself",
            12 => "the guest panicked",
            13 => "the kernel ended it for want of memory",
            14 => "the hypervisor ended",
            15 => "the guest never ran",
            16 => "no lease allowed the guest to run",
            17 => "its lease ended",
            _ => return None,
        })
    }
}

impl fmt::Display for VmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped as asked"),
            Self::GuestShutDown => f.write_str("the guest shut itself down"),
            Self::GuestRestarted => f.write_str("the guest restarted itself"),
            Self::GuestPanicked => f.write_str("the guest panicked"),
            Self::OutOfMemory(MemoryShortage::Limit) => f.write_str("it reached its memory limit"),
            Self::OutOfMemory(MemoryShortage::Machine) => {
                f.write_str("the kernel ended it because the machine had no more memory")
            }
            Self::Hypervisor(how) => write!(f, "the hypervisor {how}"),
            Self::NotStarted(why) => f.write_str(why),
            Self::NoLease(why) => write!(f, "no lease allowed the guest to run: {why}"),
            Self::LeaseEnded(why) => write!(f, "its lease ended: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_names_the_end_of_a_guest_that_ran_and_no_other() {
        let ends = [
            (VmEnd::GuestShutDown, Some(EndCause::GuestShutDown)),
            (VmEnd::GuestRestarted, Some(EndCause::GuestRestarted)),
            (VmEnd::GuestPanicked, Some(EndCause::GuestPanicked)),
            (VmEnd::OutOfMemory(MemoryShortage::Limit), Some(EndCause::OutOfMemory)),
            (VmEnd::Hypervisor("exited 1".to_owned()), Some(EndCause::HypervisorEnded)),
            (VmEnd::Stopped, None),
            (VmEnd::NotStarted(String::new()), None),
            (VmEnd::NoLease(String::new()), None),
            (VmEnd::LeaseEnded(String::new()), None),
        ];
        for (end, cause) in ends {
            assert_eq!(VmEnd::cause_of(end.exit_status().into()), cause, "{end:?}");
        }
        assert_eq!(VmEnd::cause_of(1), None);
    }
}
