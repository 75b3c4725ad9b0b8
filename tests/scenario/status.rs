//! What `blixard status` shows of a cluster to which something happens.

use std::time::Instant;

use blixard_model::Role;
use blixard_model::api::{NodeView, StatusView};

use super::cluster::{Cluster, Node};

fn screen(node: &Node) -> String {
    let run = node.blixard("status");
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout
}

fn member<'a>(view: &'a StatusView, name: &str) -> &'a NodeView {
    view.members.iter().find(|member| member.name.as_str() == name).expect("a member")
}

/// What this node shows of a member.
fn seen(node: &Node, of: &str) -> Option<NodeView> {
    node.status().map(|view| member(&view, of).clone())
}

fn create(node: &Node, name: &str) {
    let run = node.blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn status_shows_since_when_a_dead_node_is_unreachable_and_that_no_other_may_be_lost() {
    let mut c = Cluster::formed();
    c.until("all is well on every node", |c| {
        c.nodes.iter().all(|node| node.blixard("status --check").code == 0)
    });
    for node in &c.nodes {
        let view = node.status().expect("answers");
        assert!(
            view.changes.is_empty() && screen(node).contains("yes: 3 of 3 voters reachable, 1 may be lost")
        );
        assert!(view.members.iter().all(|m| m.unreachable_for_ms.is_none() && !m.lost && !m.snapshot));
    }
    let dead = c.followers()[0];
    let name = c.nodes[dead].name.clone();
    let killed = Instant::now();
    c.nodes[dead].kill();
    let others: Vec<usize> = (0..3).filter(|node| *node != dead).collect();
    for node in &others {
        let mut gone = None;
        c.until("it is unreachable", |c| {
            gone = seen(&c.nodes[*node], &name).filter(|member| !member.reachable);
            gone.is_some()
        });
        let for_ms = gone.and_then(|gone| gone.unreachable_for_ms).expect("since when");
        assert!(u128::from(for_ms) <= killed.elapsed().as_millis(), "not since before");
    }
    c.until("no other may be lost, and the check says why", |c| {
        others.iter().all(|node| {
            let check = c.nodes[*node].blixard("status --check");
            let says = check.stderr.contains(&format!("{name} is unreachable for "));
            let screen = screen(&c.nodes[*node]);
            check.code == 1 && says && screen.contains("yes: 2 of 3 voters reachable, none may be lost")
        })
    });
    c.nodes[others[1]].kill();
    c.until("the quorum is gone", |c| {
        screen(&c.nodes[others[0]]).contains("no: 1 of 3 voters reachable, 2 needed: reads may be old")
    });
    let check = c.nodes[others[0]].blixard("status --check");
    assert!(check.code == 1 && check.stderr.contains("error: quorum: no: 1 of 3 voters"), "{check:?}");
}

#[test]
fn a_frozen_learner_falls_behind_and_catches_up() {
    let mut c = Cluster::new(4);
    c.nodes.iter_mut().for_each(Node::start);
    c.until("the fourth is a learner and up to date, by everybody's word", |c| {
        c.nodes.iter().all(|node| {
            let Some(view) = node.status().filter(|view| view.members.len() == 4) else { return false };
            let learners = view.members.iter().filter(|m| m.role == Role::Learner && m.capacity.is_some());
            learners.count() == 1 && view.members.iter().all(|m| m.behind == Some(0) && m.reachable)
        })
    });
    let view = c.nodes[0].status().expect("answers");
    let learner = view.members.iter().find(|m| m.role == Role::Learner).expect("one").name.to_string();
    let frozen = c.nodes.iter().position(|node| node.name == learner).expect("one of them");
    let others: Vec<usize> = (0..4).filter(|node| *node != frozen).collect();
    c.nodes[frozen].freeze();
    for n in 0..5 {
        create(&c.nodes[others[0]], &format!("vm-{n}"));
    }
    for node in &others {
        c.until("it is behind, whoever is asked", |c| {
            seen(&c.nodes[*node], &learner).is_some_and(|member| member.behind >= Some(5))
        });
    }
    c.nodes[frozen].thaw();
    c.until("it has caught up, by its own word too", |c| {
        c.nodes.iter().all(|node| seen(node, &learner).is_some_and(|member| member.behind == Some(0)))
    });
}
