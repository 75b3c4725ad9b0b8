//! How a command ends.

use std::process::ExitCode;

/// 0, or the exit code of the error after it was printed with its causes.
pub(crate) fn ended<E: Into<anyhow::Error>>(outcome: Result<(), E>) -> ExitCode {
    match outcome.map_err(Into::into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            blixard_cli::complain(error.as_ref());
            ExitCode::from(blixard_daemon::exit_code(&error))
        }
    }
}
