//! The stories of `vm-tests/`: which there are, their text, and their machines. Runs none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The stories, in the order they run.
pub(crate) const STORIES: [&str; 13] = [
    "form_cluster",
    "replication",
    "node_churn",
    "store_kills",
    "full_disk",
    "renumber",
    "join_by_ticket",
    "remove_and_replace",
    "leader_leaves",
    "two_and_a_witness",
    "recover_from_lost_quorum",
    "backup_restore",
    "all_nodes_replaced_one_by_one",
];

/// Names that a story finds without defining them, apart from its machines.
const DRIVER_NAMES: &str = "driver,join_all,log,machines,polling_condition,retry,start_all,subtest,t";

/// Machines of a story of which `machines.json` says nothing.
const LISTED: [&str; 3] = ["n1", "n2", "n3"];

/// A story's name as that of a NixOS test.
pub(crate) fn attribute(story: &str) -> String {
    story.replace('_', "-")
}

/// The whole script of a story, as NixOS' test driver and the lab run it.
///
/// # Errors
/// When a part of it can not be read.
pub(crate) fn script(root: &Path, story: &str) -> Result<String> {
    let read = |name: &str| {
        let path = root.join("vm-tests").join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    Ok(read("common.py")? + &read(&format!("{story}.py"))?)
}

/// The machines of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cast {
    /// By name: whether it is in everybody's `members`, and what is set otherwise.
    pub(crate) machines: BTreeMap<String, Part>,
}

/// What a machine is in a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether it is in everybody's `members`; otherwise it waits for a ticket.
    pub(crate) listed: bool,
    /// What its config.toml has otherwise.
    pub(crate) settings: Value,
}

impl Cast {
    /// Of a story, as `vm-tests/machines.json` has it.
    ///
    /// # Errors
    /// When the file can not be read.
    pub(crate) fn of_story(root: &Path, story: &str) -> Result<Self> {
        let path = root.join("vm-tests/machines.json");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let table: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self::read(&table[story]))
    }

    fn read(said: &Value) -> Self {
        let names = |key: &str| {
            let list = said[key].as_array()?;
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>())
        };
        let part = |name: String, listed| {
            let settings = said["settings"][&name].clone();
            (name, Part { listed, settings })
        };
        let listed = names("listed").unwrap_or_else(|| LISTED.map(str::to_owned).to_vec());
        let unlisted = names("unlisted").unwrap_or_default();
        let listed = listed.into_iter().map(|name| part(name, true));
        Self { machines: listed.chain(unlisted.into_iter().map(|name| part(name, false))).collect() }
    }

    /// Names that a story finds without defining them, for pyflakes.
    pub(crate) fn names(&self) -> String {
        let machines: Vec<&str> = self.machines.keys().map(String::as_str).collect();
        format!("{DRIVER_NAMES},{}", machines.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_of_which_nothing_is_said_has_three_listed_machines() {
        let cast = Cast::read(&Value::Null);
        assert_eq!(cast.machines.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        assert!(cast.machines.values().all(|part| part.listed && part.settings.is_null()));
        assert!(cast.names().ends_with(",t,n1,n2,n3"));
    }

    #[test]
    fn a_story_may_have_more_and_others() {
        let cast = Cast::read(&json!({"listed": ["n2"], "unlisted": ["n1"], "settings": {"n2": {"a": 1}}}));
        let part = |listed, settings| Part { listed, settings };
        let wanted = [("n1", part(false, Value::Null)), ("n2", part(true, json!({"a": 1})))];
        assert_eq!(cast.machines, wanted.map(|(name, part)| (name.to_owned(), part)).into());
    }

    /// One that is written and never run would show nothing.
    #[test]
    fn every_script_is_a_story_that_is_run_in_both_worlds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository");
        let directory = root.join("vm-tests");
        let names =
            fs::read_dir(&directory).expect("vm-tests").map(|entry| entry.expect("entry").file_name());
        let names: BTreeSet<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        let stories =
            names.iter().filter_map(|name| name.strip_suffix(".py")).filter(|name| *name != "common");
        assert_eq!(stories.collect::<BTreeSet<_>>(), STORIES.into());
        let listed = fs::read_to_string(directory.join("default.nix")).expect("default.nix");
        for story in STORIES {
            let attribute = attribute(story);
            assert!(listed.contains(&format!("  {attribute} = story ./{attribute}.nix;")), "{attribute}");
            let test = fs::read_to_string(directory.join(format!("{attribute}.nix"))).expect("its test");
            assert!(test.contains(&format!("import ./story.nix \"{story}\"")), "{attribute}.nix");
        }
    }
}
