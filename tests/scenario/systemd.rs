//! What an agent makes of the directories that systemd names to it: the one for what it keeps outside its
//! data directory, and the one with its credentials.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::cluster::{Cluster, Node};

/// Starts an agent that is expected to refuse. Returns what it has written to its log meanwhile.
fn refused(c: &mut Cluster, environment: &[(&str, &str)]) -> String {
    let before = c.nodes[0].log().len();
    c.nodes[0].start_with(environment);
    assert_eq!(c.await_end(0), 1);
    c.nodes[0].log()[before..].to_owned()
}

/// A directory beside the node's.
fn beside(node: &Node, name: &str) -> std::path::PathBuf {
    let dir = node.dir.with_file_name(name);
    fs::create_dir(&dir).expect("made");
    dir
}

/// The key lies in the data directory, and there is no list of members: with nothing of either, the agent
/// would be another node that forms a cluster of its own.
#[test]
fn an_agent_whose_data_is_not_mounted_makes_nothing_in_its_place() {
    let mut c = Cluster::new(1);
    c.configure(1, &[]);
    let record = beside(&c.nodes[0], "blixard-record");
    let state = format!("{}:{}", beside(&c.nodes[0], "blixard").display(), record.display());
    let environment = [("STATE_DIRECTORY", state.as_str())];
    c.nodes[0].start_with(&environment);
    c.await_formed(1);
    let cluster_id = c.nodes[0].status().expect("answers").cluster_id;
    assert!(c.nodes[0].stop().success());

    let disk = beside(&c.nodes[0], "disk");
    let data = ["node.key", "cluster", "store.redb"];
    for name in data {
        fs::rename(c.nodes[0].dir.join(name), disk.join(name)).expect("moved away");
    }
    let said = refused(&mut c, &environment);
    let (data_dir, record) = (c.nodes[0].dir.display(), record.join("cluster"));
    assert!(said.contains(&format!("{data_dir} has nothing of this node")), "{said}");
    assert!(said.contains(&format!("remove {}", record.display())), "{said}");
    for name in data {
        assert!(!c.nodes[0].dir.join(name).exists(), "{name} was made\n{said}");
        fs::rename(disk.join(name), c.nodes[0].dir.join(name)).expect("moved back");
    }
    c.nodes[0].start_with(&environment);
    c.await_formed(1);
    assert_eq!(c.nodes[0].status().expect("answers").cluster_id, cluster_id);
}

/// systemd's files have a mode with which a key is refused anywhere else.
#[test]
fn a_key_is_read_where_systemd_hands_it_over_and_not_made_when_it_is_missing() {
    let mut c = Cluster::new(1);
    let credentials = beside(&c.nodes[0], "credentials");
    let key = credentials.join("node.key");
    fs::rename(c.nodes[0].dir.join("node.key"), &key).expect("moved");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).expect("changed");
    c.configure_with(1, &[1], &format!("key_file = {key:?}\n"));
    let said = refused(&mut c, &[]);
    assert!(said.contains("chmod 0600"), "{said}");

    let directory = credentials.display().to_string();
    let environment = [("CREDENTIALS_DIRECTORY", directory.as_str())];
    c.nodes[0].start_with(&environment);
    c.await_formed(1);
    assert!(c.nodes[0].stop().success());

    fs::remove_file(&key).expect("removed");
    let said = refused(&mut c, &environment);
    assert!(said.contains("LoadCredential=node.key:FILE"), "{said}");
    assert!(!key.exists() && !c.nodes[0].dir.join("node.key").exists(), "{said}");
}
