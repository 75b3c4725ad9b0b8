//! The seeds that once failed.

use serde::Deserialize;

/// A seed, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// The seed.
    pub seed: u64,
    /// The number of machines, where it is not the seed's own.
    #[serde(default)]
    pub nodes: Option<usize>,
    /// The planted bug that is this one put back: with it the seed fails.
    pub fault: String,
    /// One line of history: what happened, and what was changed.
    pub history: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    regression: Vec<Regression>,
}

/// All of them, in the order they were found.
///
/// # Errors
/// The file in the repository is not what it has to be.
pub fn all() -> Result<Vec<Regression>, String> {
    let file: File =
        toml::from_str(include_str!("../regressions/seeds.toml")).map_err(|error| error.to_string())?;
    Ok(file.regression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_has_its_line_of_history() {
        let all = all().expect("the file is read");
        let told = |regression: &Regression| regression.history.len() > 20 && !regression.fault.is_empty();
        assert!(all.iter().all(told), "{all:?}");
    }
}
