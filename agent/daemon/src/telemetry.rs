//! Where the log goes: to the journal with structured fields under systemd, to stderr otherwise.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The level of our own lines; the libraries' only when something is wrong. `BLIXARD_LOG` overrides it.
const DEFAULT_FILTER: &str = "warn,blixard=info,blixard_net=info,blixard_systemd=info,iroh=error,noq=error";

/// Sets up logging for the process, once.
pub(crate) fn init() {
    let filter = std::env::var("BLIXARD_LOG").unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    // JOURNAL_STREAM is systemd's word that stderr is the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(layer) => {
            registry.with(layer.with_field_prefix(None).with_syslog_identifier("blixard".to_owned())).init()
        }
        None => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()))
            .init(),
    }
}
