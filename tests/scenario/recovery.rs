//! Backups, restores, and recovery of a cluster whose quorum is lost for good.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use blixard_model::api::{NodePhase, StatusView};
use blixard_model::backup::BackupHeader;

use super::cluster::{Cluster, Node};
use crate::binary::Run;

fn create(node: &Node, name: &str) {
    let run = node.blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
}

fn backup(node: &Node, file: &Path) -> BackupHeader {
    let run = node.blixard(&format!("cluster backup {} --json", file.display()));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    run.json()
}

/// Runs a command on a node whose agent is stopped.
fn offline(node: &Node, line: &str) -> Run {
    node.blixard(&format!("cluster {line} --config {}", node.dir.join("config.toml").display()))
}

fn done(run: &Run) -> &str {
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    &run.stdout
}

fn store(node: &Node) -> Vec<u8> {
    fs::read(node.dir.join("store.redb")).expect("read")
}

/// The number of stores that were kept under other names.
fn kept(node: &Node, by: &str) -> usize {
    let names = fs::read_dir(&node.dir).expect("read").map(|entry| entry.expect("one").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(&format!("store.redb.before-{by}-"))).count()
}

fn alone(c: &Cluster, node: usize) -> StatusView {
    let mut found = None;
    c.until("it leads a cluster of one", |c| {
        let status = c.nodes[node].status().filter(|s| s.quorum && s.members.len() == 1);
        found = status;
        found.is_some()
    });
    found.expect("found")
}

fn warns(c: &Cluster, node: usize, words: &str) {
    c.until(words, |c| {
        c.nodes[node].status().is_some_and(|s| s.warnings.iter().any(|warning| warning.contains(words)))
    });
}

#[test]
fn a_backup_made_during_writes_holds_every_write_acknowledged_before() {
    let mut c = Cluster::formed();
    let file = c.nodes[0].dir.join("backup");
    for n in 0..4 {
        create(&c.nodes[n % 3], &format!("before{n}"));
    }
    c.nodes[1].blixard("vm run here --kernel /k --node n1 --no-wait").ends(0, "");
    let (over, node) = (AtomicBool::new(false), &c.nodes[1]);
    let header = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) || n == 0 {
                create(node, &format!("during{n}"));
                n += 1;
            }
        });
        // Made through a node that need not be the leader: it asks the quorum.
        let header = backup(&c.nodes[2], &file);
        over.store(true, Ordering::Relaxed);
        writer.join().expect("wrote");
        header
    });
    let old_id = c.nodes[0].status().expect("answers").cluster_id.expect("formed");
    assert_eq!((header.cluster_id, header.linearizable, header.node.as_str()), (old_id, true, "n3"));
    c.nodes[0].blixard(&format!("cluster backup {}", file.display())).ends(1, "--force replaces it");
    let whole = c.nodes[0].blixard("cluster backup -");
    assert!(whole.stdout.starts_with("{\"magic\":\"blixard-backup\""), "{whole:?}");
    c.nodes.iter_mut().for_each(|node| {
        node.kill();
        node.wipe();
    });

    // What n1 had may have moved since.
    let restore = |flag: &str| offline(&c.nodes[0], &format!("restore {} {flag}", file.display()));
    restore("").ends(1, "would run twice");
    assert!(!c.nodes[0].dir.join("store.redb").exists());
    let told = restore("--i-know-the-others-are-stopped");
    let told = done(&told);
    assert!(told.contains("given up: 2 members: n2, n3"), "{told}");
    assert_eq!(kept(&c.nodes[0], "restore"), 0, "there was none");
    c.nodes[0].start();
    let status = alone(&c, 0);
    assert_ne!(status.cluster_id, Some(old_id));
    assert_eq!(status.members[0].raft_id.0, 4, "a raft id was used again");
    let names = c.nodes[0].stale_names();
    for n in 0..4 {
        assert!(names.contains(&format!("before{n}")), "acknowledged and lost: {names:?}");
    }
    create(&c.nodes[0], "after");
    c.nodes[1].start();
    c.nodes[2].start();
    c.await_formed(3);
    c.until("everybody has the log", |c| {
        c.nodes.iter().all(|node| node.stale_names().contains(&"after".to_owned()))
    });
}

#[test]
fn a_stale_backup_needs_no_quorum_and_says_so() {
    let mut c = Cluster::formed();
    create(&c.nodes[0], "known");
    c.until("replicated", |c| c.nodes[0].stale_names() == ["known"]);
    c.nodes[1].kill();
    c.nodes[2].kill();
    let file = c.nodes[0].dir.join("backup");
    c.nodes[0].blixard(&format!("cluster backup {}", file.display())).ends(3, "no quorum");
    assert!(!file.exists());
    let run = c.nodes[0].blixard(&format!("cluster backup {} --stale --json", file.display()));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("no quorum was asked"), "{run:?}");
    assert!(!run.json::<BackupHeader>().linearizable);
    let told = {
        c.nodes[0].kill();
        offline(&c.nodes[0], &format!("restore {} --i-know-the-others-are-stopped", file.display()))
    };
    assert!(done(&told).contains("made with --stale"), "{told:?}");
}

#[test]
fn a_damaged_backup_and_one_of_another_cluster_are_refused_and_change_nothing() {
    let (mut c, mut other) = (Cluster::new(1), Cluster::new(1));
    for c in [&mut c, &mut other] {
        c.nodes[0].start();
        c.await_formed(1);
    }
    create(&c.nodes[0], "ours");
    create(&other.nodes[0], "theirs");
    let (ours, theirs) = (c.nodes[0].dir.join("ours"), c.nodes[0].dir.join("theirs"));
    backup(&c.nodes[0], &ours);
    backup(&other.nodes[0], &theirs);
    let restore = |c: &Cluster, file: &Path, flags: &str| {
        offline(&c.nodes[0], &format!("restore {} {flags}", file.display()))
    };
    restore(&c, &ours, "").ends(1, "an agent runs");
    assert!(c.nodes[0].stop().success());
    let before = store(&c.nodes[0]);

    let (whole, bad) = (fs::read(&ours).expect("read"), c.nodes[0].dir.join("bad"));
    for at in (0..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&bad, flipped).expect("written");
        let run = restore(&c, &bad, "");
        assert_eq!(run.code, 1, "byte {at}: {run:?}");
    }
    for len in [0, 1, 300, whole.len() / 2, whole.len() - 1] {
        fs::write(&bad, &whole[..len]).expect("written");
        let run = restore(&c, &bad, "");
        assert_eq!(run.code, 1, "{len} bytes: {run:?}");
    }
    assert!(store(&c.nodes[0]) == before, "a refused restore wrote to the store");
    restore(&c, Path::new("/nonexistent"), "").ends(1, "No such file");
    restore(&c, &theirs, "").ends(1, "--as-new");
    assert_eq!(kept(&c.nodes[0], "restore"), 0);
    c.nodes[0].start();
    c.await_formed(1);
    assert_eq!(c.nodes[0].stale_names(), ["ours"]);
    assert!(c.nodes[0].stop().success());

    done(&restore(&c, &theirs, "--as-new"));
    assert_eq!(kept(&c.nodes[0], "restore"), 1);
    c.nodes[0].start();
    alone(&c, 0);
    assert_eq!(c.nodes[0].stale_names(), ["theirs"]);
    assert!(c.nodes[0].stop().success());
    // Under another cluster name, the backup can only become a new cluster.
    let config = c.nodes[0].dir.join("config.toml");
    let text = fs::read_to_string(&config).expect("read").replace("\"test\"", "\"prod\"");
    fs::write(&config, text).expect("written");
    restore(&c, &ours, "").ends(1, "correct cluster_name");
    done(&restore(&c, &ours, "--as-new"));
    c.nodes[0].start();
    assert_eq!(alone(&c, 0).cluster_name.as_str(), "prod");
}

#[test]
fn a_recovered_node_goes_on_alone_until_the_others_come_back_wiped() {
    let mut c = Cluster::formed();
    for n in 0..3 {
        let create = format!("vm create vm{n} --kernel /k --node n{}", n + 1);
        c.nodes[n].blixard(&create).ends(0, "");
    }
    c.until("replicated", |c| c.nodes.iter().all(|node| node.stale_names().len() == 3));
    let old_id = c.nodes[0].status().expect("answers").cluster_id;
    c.nodes.iter_mut().for_each(Node::kill);

    let told = offline(&c.nodes[0], "recover --i-know-the-others-are-gone");
    let told = done(&told);
    for words in ["3 members", "given up: 2 members: n2, n3", "known to be committed", "next:"] {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    assert_eq!(kept(&c.nodes[0], "recover"), 1);
    c.nodes[0].start();
    let new_id = alone(&c, 0).cluster_id;
    assert_ne!(new_id, old_id);
    assert_eq!(c.nodes[0].stale_names(), ["vm0", "vm1", "vm2"], "acknowledged and lost");
    create(&c.nodes[0], "alone");

    // One of the other nodes comes back as it was. It neither joins nor disturbs the new cluster, and both
    // sides say why.
    c.nodes[1].start();
    warns(&c, 0, "n2 still belongs to the cluster that this one was made of");
    warns(&c, 1, "n1 belongs to a cluster that was made of this one");
    let old = c.nodes[1].status().expect("answers");
    assert_eq!((old.cluster_id, old.quorum, old.members.len()), (old_id, false, 3));
    create(&c.nodes[0], "undisturbed");
    // Both of the other nodes together are a quorum of the old cluster, which is another cluster now.
    c.nodes[2].start();
    warns(&c, 0, "n3 still belongs to the cluster that this one was made of");
    c.until("the old cluster is another one", |c| {
        [1, 2].iter().all(|n| c.nodes[*n].status().is_some_and(|s| s.cluster_id == old_id && s.quorum))
    });
    assert_eq!(alone(&c, 0).cluster_id, new_id);
    create(&c.nodes[0], "still");
    assert_eq!(c.nodes[1].stale_names(), ["vm0", "vm1", "vm2"]);

    for n in [1, 2] {
        c.nodes[n].kill();
        c.nodes[n].wipe();
        c.nodes[n].start();
    }
    c.await_formed(3);
    c.until("they have the new log", |c| c.nodes.iter().all(|node| node.stale_names().len() == 6));
    let status = c.nodes[1].status().expect("answers");
    assert_eq!((status.cluster_id, status.phase), (new_id, NodePhase::Member));
    c.until("nobody is warned of any more", |c| {
        c.nodes.iter().all(|node| node.status().is_some_and(|s| s.warnings.is_empty()))
    });
}

#[test]
fn a_recovery_that_is_not_confirmed_or_not_possible_changes_nothing() {
    let mut c = Cluster::new(1);
    offline(&c.nodes[0], "recover --i-know-the-others-are-gone").ends(1, "nothing to recover");
    assert!(!c.nodes[0].dir.join("store.redb").exists(), "a store was made");
    c.nodes[0].start();
    c.await_formed(1);
    create(&c.nodes[0], "known");
    offline(&c.nodes[0], "recover --i-know-the-others-are-gone").ends(1, "an agent runs");
    c.nodes[0].kill();
    let before = store(&c.nodes[0]);
    let run = offline(&c.nodes[0], "recover");
    run.ends(1, "all other members are given up");
    assert!(run.stderr.contains("--i-know-the-others-are-gone"), "{run:?}");
    assert!(store(&c.nodes[0]) == before, "the store was written to");
    assert_eq!(
        fs::read_dir(&c.nodes[0].dir).expect("read").count(),
        6,
        "cluster, config, key, log, socket, store"
    );

    // A store is not recovered with a key that is not its own.
    let key = c.nodes[0].dir.join("other.key");
    super::cluster::keygen(&key);
    let line = format!("recover --i-know-the-others-are-gone --key-file {}", key.display());
    offline(&c.nodes[0], &line).ends(1, "endpoint_id is");
    c.nodes[0].start();
    c.await_formed(1);
    assert_eq!(c.nodes[0].stale_names(), ["known"]);
}
