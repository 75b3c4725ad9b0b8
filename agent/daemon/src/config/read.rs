//! From the file to a [`Config`]: read, parsed, every key known, checked.

use std::path::{Path, PathBuf};

use super::{Config, FILE_LEN_MAX};

/// Why a configuration cannot be used. Names the key and the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read; the source says why.
    #[error("{path} cannot be read", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// No TOML, or a value that cannot be.
    #[error("{path}: {message}", path = path.display())]
    Syntax { path: PathBuf, message: String },
    /// Keys that nothing reads.
    #[error("{path}: {keys}", path = path.display(), keys = keys.join("; "))]
    UnknownKeys { path: PathBuf, keys: Vec<String> },
    /// Values that contradict each other or the world.
    #[error("{path}: {problem}", path = path.display())]
    Invalid { path: PathBuf, problem: String },
}

/// The keys of each table, to name the nearest one. `*` stands for a member's name.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "node_name",
            "cluster_name",
            "data_dir",
            "key_file",
            "listen_address",
            "port",
            "socket",
            "advertise_addresses",
            "join",
            "join_ticket_file",
            "role",
            "last_resort",
            "voter_lost_after_s",
            "hold_s",
            "net",
            "vms",
            "resources",
            "members",
        ],
    ),
    ("net", &["relay_urls", "relay_ca_file"]),
    ("vms", &["accel", "qemu", "disk_dirs"]),
    ("resources", &["cpus", "memory_mib", "reserve_memory_mib"]),
    ("members.*", &["endpoint_id", "addresses"]),
];

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_LEN_MAX {
            let problem = format!("is larger than {FILE_LEN_MAX} bytes");
            return Err(ConfigError::Invalid { path: path.to_owned(), problem });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let mut unknown = Vec::new();
        let deserializer = toml::Deserializer::parse(text).map_err(syntax)?;
        let parsed: Result<Self, _> =
            serde_ignored::deserialize(deserializer, |key| unknown.push(key.to_string()));
        // An unknown key is the likelier cause when a needed one is missing: say it first.
        if !unknown.is_empty() {
            let keys = unknown.iter().map(|key| describe_unknown(key)).collect();
            return Err(ConfigError::UnknownKeys { path: path.to_owned(), keys });
        }
        let config = parsed.map_err(syntax)?;
        match config.problem() {
            Some(problem) => Err(ConfigError::Invalid { path: path.to_owned(), problem }),
            None => Ok(config),
        }
    }
}

fn describe_unknown(key: &str) -> String {
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    let table = if table.starts_with("members.") { "members.*" } else { table };
    let known = KEYS.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, keys)| keys);
    let nearest =
        known.iter().max_by(|a, b| strsim::jaro_winkler(a, last).total_cmp(&strsim::jaro_winkler(b, last)));
    match nearest {
        Some(nearest) => format!("unknown key `{key}`: did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`"),
    }
}
