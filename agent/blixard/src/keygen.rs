//! The node's key: `blixard keygen`, and the agent's own when there is none.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use blixard_net::NodeKey;

use crate::agent::config::Config;
use crate::cli::KeygenArgs;

/// Where the configuration is unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/blixard/config.toml";

/// Makes the key if there is none and prints its endpoint id.
///
/// # Errors
/// The key can neither be read nor made.
pub(crate) fn run(args: KeygenArgs) -> anyhow::Result<()> {
    let path = key_path(args)?;
    let key = load_or_make_at(&path, None)?;
    println!("{}", key.endpoint_id());
    Ok(())
}

/// The configuration's key needs a configuration; a bare file needs none.
fn key_path(args: KeygenArgs) -> anyhow::Result<PathBuf> {
    if let Some(path) = args.key_file {
        return Ok(path);
    }
    let config = args.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
    let config =
        Config::load(&config).context("name a file with --key-file, or a configuration with --config")?;
    Ok(config.key_path(None))
}

/// The agent's key: as configured, made if it is missing.
///
/// # Errors
/// As [`run`].
pub(crate) fn load_or_make(config: &Config, credentials_dir: Option<&Path>) -> anyhow::Result<NodeKey> {
    load_or_make_at(&config.key_path(credentials_dir), credentials_dir)
}

fn load_or_make_at(path: &Path, credentials_dir: Option<&Path>) -> anyhow::Result<NodeKey> {
    match NodeKey::load(path, credentials_dir) {
        Ok(key) => Ok(key),
        Err(error) if error.is_not_found() => {
            let key = NodeKey::generate();
            match key.save(path) {
                Ok(()) => Ok(key),
                // Somebody else was faster: theirs it is.
                Err(error) if error.is_already_there() => Ok(NodeKey::load(path, credentials_dir)?),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}
