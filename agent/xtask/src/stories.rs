//! The stories of `vm-tests/stories/`: which there are, what each says about itself, and their text. This
//! module runs none.
//!
//! A story describes itself in its first lines. `vm-tests/lab/facts.py` documents and checks them; this
//! module reads only what `xtask` needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// Names that a story uses without defining them, apart from its machines.
const DRIVER_NAMES: &str = "driver,join_all,log,machines,polling_condition,retry,start_all,subtest,t";

/// The quotes around a story's description.
const DESCRIPTION_QUOTE: &str = "\"\"\"";

/// A story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Story {
    /// The name of its file, without the ending.
    pub(crate) name: String,
    /// What it says about itself.
    pub(crate) facts: StoryFacts,
    /// The whole script, as NixOS' test driver and the lab run it: with `common.py` before it.
    pub(crate) script: String,
}

/// What a story says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct StoryFacts {
    /// What the story is about.
    pub(crate) kind: String,
    /// Whether `cargo xtask test` runs it. That is so for one story of each kind.
    pub(crate) tested: bool,
    #[serde(default = "StoryFacts::listed")]
    listed: Vec<String>,
    #[serde(default)]
    unlisted: Vec<String>,
    #[serde(default)]
    settings: BTreeMap<String, Value>,
}

/// The machines of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cast {
    /// By name: whether the machine is in everybody's `members`, and which settings differ.
    pub(crate) machines: BTreeMap<String, Part>,
}

/// The part of one machine in a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether the machine is in everybody's `members`; otherwise it waits for a ticket.
    pub(crate) listed: bool,
    /// The settings in its config.toml that differ.
    pub(crate) settings: Value,
}

/// Every story, by name.
///
/// # Errors
/// A file cannot be read, or lacks one of the facts.
pub(crate) fn all(root: &Path) -> Result<Vec<Story>> {
    let home = root.join("vm-tests");
    let common = read(&home.join("common.py"))?;
    let directory = home.join("stories");
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut stories = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = read(&path)?;
            let facts = StoryFacts::read(&text).with_context(|| format!("reading {}", path.display()))?;
            stories.push(Story { name, facts, script: common.clone() + &text });
        }
    }
    stories.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stories)
}

fn read(path: &PathBuf) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

impl Story {
    /// The name of the story as a NixOS test.
    pub(crate) fn attribute(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Names that the story uses without defining them, for pyflakes.
    pub(crate) fn names(&self) -> String {
        let cast = self.facts.cast();
        let machines: Vec<&str> = cast.machines.keys().map(String::as_str).collect();
        format!("{DRIVER_NAMES},{}", machines.join(","))
    }
}

impl StoryFacts {
    fn listed() -> Vec<String> {
        ["n1", "n2", "n3"].map(str::to_owned).to_vec()
    }

    /// Reads the lines before a story's description.
    fn read(text: &str) -> Result<Self> {
        let (lines, _) = text.split_once(DESCRIPTION_QUOTE).context("it has no description")?;
        let lines: Vec<&str> = lines.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
        Ok(toml::from_str(&lines.join("\n"))?)
    }

    /// The machines of the story.
    pub(crate) fn cast(&self) -> Cast {
        let part = |name: &String, listed| {
            let settings = self.settings.get(name).cloned().unwrap_or_default();
            (name.clone(), Part { listed, settings })
        };
        let listed = self.listed.iter().map(|name| part(name, true));
        let unlisted = self.unlisted.iter().map(|name| part(name, false));
        Cast { machines: listed.chain(unlisted).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn facts(more: &str) -> StoryFacts {
        let text =
            format!("# kind = \"members\"\n# tested = false\n{more}\"\"\"A story.\"\"\"\nstart_all()\n");
        StoryFacts::read(&text).expect("facts")
    }

    #[test]
    fn a_story_that_names_no_machines_has_three_listed_ones() {
        let cast = facts("").cast();
        assert_eq!(cast.machines.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        assert!(cast.machines.values().all(|part| part.listed && part.settings.is_null()));
    }

    #[test]
    fn a_story_may_name_its_machines_and_settings() {
        let more = "# minutes_max = 5\n# listed = [\"n2\"]\n# unlisted = [\"n1\"]\n# settings.n2.a = 1\n";
        let part = |listed, settings| Part { listed, settings };
        let wanted = [("n1", part(false, Value::Null)), ("n2", part(true, json!({"a": 1})))];
        assert_eq!(facts(more).cast().machines, wanted.map(|(name, part)| (name.to_owned(), part)).into());
    }

    #[test]
    fn a_story_without_its_facts_is_an_error() {
        for text in ["start_all()\n", "\"\"\"A story.\"\"\"\n", "# kind = 1\n\"\"\"A story.\"\"\"\n"] {
            assert!(StoryFacts::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_story_of_each_kind_is_tested() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository");
        let stories = all(root).expect("the stories");
        let kinds: BTreeSet<&str> = stories.iter().map(|story| story.facts.kind.as_str()).collect();
        let tested = stories.iter().filter(|story| story.facts.tested);
        let mut tested: Vec<&str> = tested.map(|story| story.facts.kind.as_str()).collect();
        tested.sort_unstable();
        assert!(!tested.is_empty());
        assert_eq!(tested, kinds.into_iter().collect::<Vec<_>>());
    }
}
