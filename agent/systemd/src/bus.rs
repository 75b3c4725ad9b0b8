//! One call to systemd: its deadline, and the translation of its error.

use std::time::Duration;

use zbus::fdo::Error as Fdo;

use crate::link::{CALL_DEADLINE, Link};
use crate::unit::UNIT_PATTERN;

/// Longest wait for systemd's answer to a list of units, which is asked for after another call had no answer.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// Why a call to systemd failed: it had no answer, or systemd refused it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no system bus, or no systemd on it.
    #[error("systemd does not answer on the system bus (is dbus running? systemctl status dbus)")]
    Connect(#[source] Box<zbus::Error>),
    /// The bus was lost and is not back yet, or was lost during the call. Whether the call took effect is
    /// unknown.
    #[error("{call}: the system bus was lost")]
    Lost {
        /// The D-Bus method.
        call: &'static str,
    },
    /// There was no answer in time. Whether the call took effect is unknown.
    #[error("{call}: systemd did not answer within {} s", CALL_DEADLINE.as_secs())]
    Timeout {
        /// The D-Bus method.
        call: &'static str,
    },
    /// systemd asks polkit before it makes this call, and polkit did not answer in time, though systemd
    /// answers other calls. Whether the call takes effect is unknown.
    #[error(
        "{call}: polkit did not decide within {} s, though systemd answers (see `systemctl status polkit` \
         and `journalctl --unit=polkit`)",
        CALL_DEADLINE.as_secs()
    )]
    NoVerdict {
        /// The D-Bus method.
        call: &'static str,
    },
    /// polkit denied the call, or polkit is not running.
    #[error("{call}: not permitted (is polkit's rule 50-blixard.rules installed, and polkitd?): {detail}")]
    Denied {
        /// The D-Bus method.
        call: &'static str,
        /// The message of systemd or of polkit.
        detail: String,
    },
    /// systemd refused.
    #[error("systemd refused {call}")]
    Call {
        /// The D-Bus method.
        call: &'static str,
        /// systemd's name for the error, and its message.
        #[source]
        source: Box<zbus::Error>,
    },
}

/// Makes one call, with its deadline, and translates its error.
pub(crate) async fn call<T>(
    name: &'static str,
    making: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BusError> {
    call_within(CALL_DEADLINE, name, making).await
}

/// Makes one call for which systemd asks polkit. When no answer comes, this distinguishes a silent polkit
/// from a silent systemd, by a list of units: systemd answers that without polkit.
pub(crate) async fn call_authorized<T>(
    link: &Link,
    name: &'static str,
    making: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BusError> {
    let answer = call_within(CALL_DEADLINE, name, making).await;
    name_polkit(link, answer).await
}

async fn name_polkit<T>(link: &Link, answer: Result<T, BusError>) -> Result<T, BusError> {
    let Err(BusError::Timeout { call }) = answer else { return answer };
    let look = link.manager.list_units_by_patterns(&[], &[UNIT_PATTERN]);
    match call_within(LOOK_DEADLINE, "ListUnitsByPatterns", look).await {
        Ok(_) => Err(BusError::NoVerdict { call }),
        Err(_) => Err(BusError::Timeout { call }),
    }
}

async fn call_within<T>(
    deadline: Duration,
    name: &'static str,
    making: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BusError> {
    // The connection has the same deadline for an answer. This deadline also holds while the call is being
    // sent.
    match tokio::time::timeout(deadline, making).await {
        Ok(answer) => answer.map_err(|error| in_words(name, error)),
        Err(_) => Err(BusError::Timeout { call: name }),
    }
}

pub(crate) fn in_words(call: &'static str, error: zbus::Error) -> BusError {
    match error {
        zbus::Error::InputOutput(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            BusError::Timeout { call }
        }
        zbus::Error::InputOutput(_) => BusError::Lost { call },
        zbus::Error::FDO(fdo) => match *fdo {
            Fdo::AccessDenied(detail) | Fdo::InteractiveAuthorizationRequired(detail) => {
                BusError::Denied { call, detail }
            }
            // The bus itself answers so while systemd is away from it.
            Fdo::NoReply(_) | Fdo::Disconnected(_) | Fdo::NameHasNoOwner(_) => BusError::Lost { call },
            other => BusError::Call { call, source: Box::new(zbus::Error::FDO(Box::new(other))) },
        },
        other => BusError::Call { call, source: Box::new(other) },
    }
}

/// Whether systemd answered with this error.
fn is_error(error: &BusError, name: &str) -> bool {
    let BusError::Call { source, .. } = error else { return false };
    matches!(&**source, zbus::Error::MethodError(got, _, _) if got.as_str() == name)
}

pub(crate) fn is_no_such_unit(error: &BusError) -> bool {
    is_error(error, "org.freedesktop.systemd1.NoSuchUnit")
}

/// Whether a call with mode "fail" met a stop that is queued or under way.
pub(crate) fn is_conflict(error: &BusError) -> bool {
    is_error(error, "org.freedesktop.systemd1.TransactionIsDestructive")
        || is_error(error, "org.freedesktop.systemd1.TransactionJobsConflicting")
}

/// Whether the bus was lost meanwhile, which says nothing about the unit.
pub(crate) fn is_lost(error: &BusError) -> bool {
    matches!(error, BusError::Lost { .. })
}

/// Whether the unit was unloaded after it was listed and before it was read.
pub(crate) fn is_gone(error: &BusError) -> bool {
    let BusError::Call { source, .. } = error else { return false };
    is_no_such_unit(error)
        || matches!(&**source, zbus::Error::FDO(fdo) if matches!(**fdo, Fdo::UnknownObject(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, FakeUnit};

    #[test]
    fn a_refusal_by_polkit_names_the_rule() {
        let fdo = Fdo::InteractiveAuthorizationRequired("Interactive authentication required.".into());
        let error = in_words("StartUnit", zbus::Error::FDO(Box::new(fdo)));
        assert!(matches!(error, BusError::Denied { .. }));
        assert!(error.to_string().contains("50-blixard.rules"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_polkit_and_a_silent_systemd_are_different_errors() {
        let silence = || Err::<(), _>(BusError::Timeout { call: "StartUnit" });
        let (link, _calls) = fake::systemd(FakeUnit::default()).await;
        let error = name_polkit(&link, silence()).await.expect_err("no answer");
        assert!(error.to_string().contains("systemctl status polkit"), "{error}");
        assert!(!error.to_string().contains("systemd did not answer"), "{error}");
        link.connection.clone().close().await.expect("close");
        let error = name_polkit(&link, silence()).await.expect_err("no answer");
        assert!(error.to_string().contains("systemd did not answer"), "{error}");
    }

    #[test]
    fn a_cause_that_the_library_repeats_is_shown_once() {
        let io = std::io::Error::other("no such socket");
        let error = BusError::Connect(Box::new(zbus::Error::InputOutput(std::sync::Arc::new(io))));
        let words = blixard_model::words::with_causes(&error);
        assert_eq!(words.matches("no such socket").count(), 1, "{words}");
    }
}
