# kind = "addresses"
# tested = true
# minutes_max = 30
"""Machines change their addresses: a follower, the leader, and then all of them at once.

Who moves alone says so in its own configuration, `advertise_addresses`, and dials the others, which know only
its old address; they go on meanwhile. When all move, only their list of members says where they are now. The
records in the log follow each time. The script runs under the NixOS test driver and in the lab.
"""

#: How long the others may show an old address once the agent that moved has started again.
RECORDED_SECONDS = 30


def wait_for_records(addresses):
    """Waits until every node's log, and a quorum's word, has these addresses, each a node's only one."""
    wanted = json.dumps({name: [address] for name, address in addresses.items()})
    condition = f"([.[] | {{(.name): .addresses}}] | add) == {wanted}"
    for machine in machines:
        wait_for_status(machine, f".members | {condition}", RECORDED_SECONDS)
        machine.wait_until_succeeds(
            f"blixard node list --json --timeout 5 | jq -e '.items | {condition}'", timeout=RECORDED_SECONDS
        )


def identities():
    """Who the nodes are: that stays."""
    views = [status(machine) for machine in machines]
    return [[view[key] for key in ("cluster_id", "store_id", "endpoint_id")] for view in views]


start_all()
wait_until_formed()
before = identities()
port = settings_of(n1)["port"]
addresses = {machine.name: f"{show_address(machine)['local']}:{port}" for machine in machines}
wait_for_records(addresses)
for machine in machines:
    start_writers(machine)

for role in ("a follower", "the leader"):
    with subtest(f"{role} moves to another address, and the others go on"):
        leader = leader_among(machines)
        moved = leader if role == "the leader" else others_than(leader)[0]
        rest = others_than(moved)
        addresses[moved.name] = f"{move(moved)}:{port}"
        expect_writes_go_on(rest)
        change_settings(moved, advertise_addresses=[addresses[moved.name]])
        moved.succeed(f"systemctl restart --no-block {AGENT}")
        wait_for_records(addresses)
        wait_until_formed()
        expect_writes_go_on(machines)

with subtest("nothing acknowledged is lost"):
    for machine in machines:
        stop_writers(machine)
    acknowledged += left_by_writers(machines)
    expect_exactly(acknowledged)

with subtest("all move at once, and only their list of members says where to"):
    for machine in machines:
        write(machine, f"before-{machine.name}-moves")
    for machine in machines:
        machine.succeed(f"systemctl stop {AGENT}")
    for machine in machines:
        addresses[machine.name] = f"{move(machine)}:{port}"
    members = settings_of(n1)["members"]
    for name, member in members.items():
        member["addresses"] = [addresses[name]]
    for machine in machines:
        change_settings(machine, members=members, advertise_addresses=None)
        machine.succeed(f"systemctl start --no-block {AGENT}")
    wait_for_records(addresses)
    wait_until_formed()
    expect_exactly(acknowledged)
    for machine in machines:
        write(machine, f"after-{machine.name}-moved")
    expect_exactly(acknowledged)
    t.assertEqual(before, identities())
    for machine in machines:
        t.assertEqual([], status(machine)["warnings"])
