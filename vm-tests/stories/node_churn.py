# kind = "crashes"
# tested = true
# minutes_max = 30
"""Machines crash, one by one and all at once, agents restart, stores are lost: nothing acknowledged is.

Every write that was acknowledged is remembered here and looked for after each blow. The script runs under the
NixOS test driver and in the lab.
"""

#: A guest boots without hardware virtualization, on machines that boot themselves.
BOOT_DEADLINE_SECONDS = 240
VM = "web"
UNIT = f"blixard-vm@{VM}.service"
DISK = f"/var/lib/blixard-disks/{VM}.img"


def boots():
    """How often the guest came up, as its disk counts and its console says."""
    lines = home.succeed(f"journalctl --unit={UNIT} --output=cat | sed -n 's/.*GUEST-UP name={VM} boot=//p'")
    return [int(line) for line in lines.split()]


def wait_for_boot_after(number):
    """Waits until the guest came up once more than `number`."""
    home.wait_until_succeeds(
        f"journalctl --unit={UNIT} --output=cat | grep -w 'GUEST-UP name={VM} boot={number + 1}'",
        timeout=BOOT_DEADLINE_SECONDS,
    )


def wait_until_vm_is(state, machine):
    machine.wait_until_succeeds(
        f"""blixard vm show {VM} --json --timeout 5 | jq -e '.state == "{state}"'""",
        timeout=BOOT_DEADLINE_SECONDS,
    )


def runs():
    """The VM's process and boot: equal as long as nothing disturbed it."""
    return home.get_unit_property(UNIT, "MainPID"), boots()[-1]


start_all()
wait_until_formed()
# Not the leader, so that its crash leaves the VM alone.
home = next(machine for machine in machines if status(machine)["leader"] != machine.name)

with subtest("a VM runs"):
    home.succeed(f"truncate --size=16M {DISK} && chmod 0660 {DISK} && sync {DISK}")
    n1.succeed(
        f"blixard vm run {VM} --node {home.name} --cpus 1 --memory-mib 256 {GUEST} --disk {DISK}"
        f" --cmdline 'quiet blixard.name={VM}' --timeout {BOOT_DEADLINE_SECONDS}"
    )
    wait_for_boot_after(0)
    acknowledged.append(VM)

with subtest("the agent restarts under it: same process, same boot"):
    before = runs()
    home.succeed(f"systemctl restart --no-block {AGENT}")
    wait_until_formed()
    wait_until_vm_is("running", home)
    t.assertEqual(before, runs())
    home.succeed(f"systemctl kill --signal=KILL --kill-whom=main {AGENT}")
    home.wait_until_succeeds(f"systemctl is-active {AGENT} && {formed()}", timeout=DEADLINE_SECONDS)
    wait_until_vm_is("running", n2)
    t.assertEqual(before, runs())

with subtest("the leader crashes: another within seconds, writes go on, the VM does not notice"):
    leader = leader_among(machines)
    if leader.name == home.name:
        # The restarts above may have made it so; a stop in order hands the lead over.
        home.succeed(f"systemctl restart --no-block {AGENT}")
        wait_until_formed()
        leader = leader_among(machines)
    t.assertNotEqual(home.name, leader.name)
    before = runs()
    term = status(leader)["term"]
    leader.crash()
    survivors = others_than(leader)
    successor = leader_among(survivors)
    t.assertGreater(status(successor)["term"], term)
    for machine in survivors:
        write(machine, f"while-{leader.name}-down-by-{machine.name}")
    t.assertEqual(before, runs())
    leader.start()
    wait_until_formed()
    expect_caught_up(leader)
    expect_exactly(acknowledged)
    for name in acknowledged[1:]:
        forget(leader, name)

with subtest("each node crashes in turn"):
    for victim in machines:
        boot = boots()[-1]
        write(victim, f"before-{victim.name}")
        victim.crash()
        survivors = others_than(victim)
        leader_among(survivors)
        write(survivors[0], f"without-{victim.name}")
        if victim.name == home.name:
            # It may run or not, nobody can know: it is not started elsewhere.
            wait_until_vm_is("unknown", survivors[0])
        victim.start()
        wait_until_formed()
        expect_caught_up(victim)
        expect_exactly(acknowledged)
        if victim.name == home.name:
            wait_for_boot_after(boot)
        wait_until_vm_is("running", victim)
        forget(victim, f"before-{victim.name}")
        forget(victim, f"without-{victim.name}")

with subtest("all crash at once"):
    boot = boots()[-1]
    write(n1, "before-all")
    write(n3, "last-before-all")
    for machine in machines:
        machine.crash()
    start_all()
    wait_until_formed()
    expect_exactly(acknowledged)
    wait_for_boot_after(boot)
    wait_until_vm_is("running", n2)
    forget(n2, "before-all")
    forget(n2, "last-before-all")

with subtest("a node loses its store: known by its key, admitted anew"):
    before = runs()
    write(n1, "before-wipe")
    old = status(home)
    old_raft_id = next(member["raft_id"] for member in old["members"] if member["name"] == home.name)
    home.succeed(f"systemctl stop {AGENT}", "rm /var/lib/blixard/store.redb")
    home.succeed(f"systemctl start --no-block {AGENT}")
    home.wait_until_succeeds(f"{formed()} && systemctl is-active {AGENT}", timeout=DEADLINE_SECONDS)
    wait_until_formed()
    new = status(home)
    t.assertEqual(old["endpoint_id"], new["endpoint_id"])
    t.assertEqual(old["cluster_id"], new["cluster_id"])
    t.assertNotEqual(old["store_id"], new["store_id"])
    new_raft_id = next(member["raft_id"] for member in new["members"] if member["name"] == home.name)
    t.assertGreater(new_raft_id, old_raft_id)
    expect_exactly(acknowledged)
    wait_until_vm_is("running", home)
    t.assertEqual(before, runs())
    forget(n1, "before-wipe")

with subtest("a voter loses its store while another is down: no quorum, no lie, nothing lost"):
    leader = leader_among(machines)
    down, wiped = others_than(leader)
    write(leader, "seen-by-all")
    down.crash()
    # Acknowledged by the leader and the one that is about to forget it.
    write(wiped, "seen-by-two")
    wiped.succeed(f"systemctl stop {AGENT}", "rm /var/lib/blixard/store.redb")
    wiped.succeed(f"systemctl start --no-block {AGENT}")
    # One voter is left of three: the wiped one must not stand in for what it was.
    wait_for_status(leader, ".quorum | not")
    code, _ = leader.execute(f"blixard vm create refused --memory-mib 64 {GUEST} --timeout 5", timeout=30)
    t.assertEqual(3, code)
    wait_for_status(wiped, '.phase != "member"')
    down.start()
    wait_until_formed()
    expect_exactly(acknowledged)
    wait_until_vm_is("running", leader)
