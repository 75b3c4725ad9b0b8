//! What the command line does with this machine's units when the agent does not answer, done by the agent's
//! crate.

use std::path::Path;

use blixard_cli::{LocalListing, LocalStop, LocalUnits, LocalWork, VmName};

use crate::files::failure;

/// The units of this machine, by its systemd.
#[derive(Debug)]
pub(crate) struct SystemdUnits;

impl LocalUnits for SystemdUnits {
    fn list<'a>(&'a self, config: &'a Path) -> LocalWork<'a, LocalListing> {
        Box::pin(async move { blixard_daemon::local_list(config).await.map_err(failure) })
    }

    fn stop<'a>(&'a self, config: &'a Path, name: &'a VmName) -> LocalWork<'a, LocalStop> {
        Box::pin(async move { blixard_daemon::local_stop(config, name).await.map_err(failure) })
    }
}
