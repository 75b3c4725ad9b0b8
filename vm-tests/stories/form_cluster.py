# kind = "forming"
# tested = true
# minutes_max = 30
"""Three machines that hold the same list of members become one cluster, by themselves and in any order.

Formed, looked at and torn down three times. A node forms only when every listed one has answered: with one
of them missing the others say whom they wait for. The script runs under the NixOS test driver and in the lab.
"""

ROUNDS = 3


def one_leader(_last):
    """Whether every node names the same leader, and marks that one alone."""
    views = [status(machine) for machine in machines]
    marked = [[member["name"] for member in view["members"] if member["leader"]] for view in views]
    leaders = {view["leader"] for view in views}
    if len(leaders) != 1 or None in leaders:
        return False
    leader = leaders.pop()
    return all(names == [leader] for names in marked)


def verify():
    """Every node sees all three, each with its endpoint id and address, and one leader; the cluster's id."""
    wait_until_formed()
    retry(one_leader, timeout_seconds=DEADLINE_SECONDS)
    views = {machine.name: status(machine) for machine in machines}
    own_ids = {name: view["endpoint_id"] for name, view in views.items()}
    t.assertEqual(3, len(set(own_ids.values())))
    for name, view in views.items():
        t.assertEqual(name, view["node"])
        t.assertEqual(own_ids, {member["name"]: member["endpoint_id"] for member in view["members"]})
        for member in view["members"]:
            t.assertTrue(member["addresses"], f"{name} knows no address of {member['name']}")
        t.assertEqual([], view["warnings"])
    clusters = {view["cluster_id"] for view in views.values()}
    t.assertEqual(1, len(clusters))
    return clusters.pop()


def tear_down():
    """The state is gone; the keys, and with them the nodes' identities, stay."""
    for machine in machines:
        machine.succeed(f"systemctl stop {AGENT}")
    for machine in machines:
        machine.succeed("rm /var/lib/blixard/store.redb")


start_all()
for machine in machines:
    machine.wait_for_unit("multi-user.target")

seen = []
for round_number in range(1, ROUNDS + 1):
    with subtest(f"form, verify: round {round_number} of {ROUNDS}"):
        if round_number > 1:
            # Another node comes late each time; the others must not begin without it.
            late = machines[round_number % len(machines)]
            others = others_than(late)
            for machine in others:
                machine.succeed(f"systemctl start --no-block {AGENT}")
            for machine in others:
                waits = f'.phase == "forming" and any(.waiting_for[]; contains("{late.name}"))'
                wait_for_status(machine, waits)
            late.succeed(f"systemctl start --no-block {AGENT}")
        seen.append(verify())
        for machine in machines:
            machine.wait_for_unit(AGENT)
    if round_number < ROUNDS:
        with subtest(f"tear down: round {round_number}"):
            tear_down()

t.assertEqual(ROUNDS, len(set(seen)), "each cluster has an id of its own")

with subtest("an agent that restarts finds its cluster again"):
    before = status(n1)
    n1.succeed(f"systemctl restart --no-block {AGENT}")
    n1.wait_until_succeeds(f"{formed()} && systemctl is-active {AGENT}", timeout=DEADLINE_SECONDS)
    after = status(n1)
    for key in ("cluster_id", "store_id", "endpoint_id"):
        t.assertEqual(before[key], after[key])
    t.assertGreaterEqual(after["term"], before["term"])
    t.assertGreaterEqual(after["applied"], before["applied"])

with subtest("the agent runs without privileges, and may manage units of VMs alone"):
    for unit in ("blixard.service", "blixard-vm@any.service"):
        n1.succeed(f"systemd-analyze security --no-pager --threshold=20 {unit} >&2")
    agent = "/proc/$(systemctl show --property=MainPID --value blixard.service)"
    t.assertNotEqual("0", n1.succeed(f"stat --format=%u {agent}").strip())
    as_agent = "runuser -u blixard -- systemctl --no-ask-password"
    for verb in ("start", "stop", "restart"):
        n1.fail(f"{as_agent} {verb} dbus.socket")
    n1.fail(f"{as_agent} stop blixard.service", f"{as_agent} reload-or-restart blixard-vmx.service")
    n1.succeed(f"{as_agent} stop blixard-vm@any.service")
