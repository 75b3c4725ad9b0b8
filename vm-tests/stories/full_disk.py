# kind = "disks"
# tested = true
# minutes_max = 30
"""The disk of a follower and then of the leader is full: it says so and ends, nothing acknowledged is lost.

The others go on meanwhile. The node starts again and again and says the same each time; once there is space
it is back by itself, with the store it had. The script runs under the NixOS test driver and in the lab.
"""

#: How long the agent of a full disk is watched while systemd starts it again and again.
WATCHED_SECONDS = 10
#: Most writes until a full disk is noticed; the store's file has some room of its own.
WRITES_MAX = 500
#: Most tries to make a node lead.
MOVES_MAX = 10
DATA_DIR = "/var/lib/blixard"
DATA_MIB = 16
FILLER = f"{DATA_DIR}/filler"
#: Large specs fill a store sooner.
SPEC = f"--cpus 1 --memory-mib 64 --kernel /etc/blixard-guest/vmlinux --cmdline {1500 * 'x'}"
#: VMs that exist at a time; further back they are deleted again, so that the next ones fit.
KEPT = 4

created = 0


def write_large(machine):
    """Creates a VM that never starts, and deletes an old one; each tried again under one request id.

    All are placed on a node whose disk has space: only a VM's own node can say that it is gone.
    """
    global created
    created += 1
    name = f"w-{created}"
    wanted = [f"create {name} --node {others[0].name} {SPEC} --request-id create-{name}"]
    acknowledged.append(name)
    if len(acknowledged) > KEPT:
        old = acknowledged.pop(0)
        wanted.append(f"delete {old} --request-id delete-{old}")
    for command in wanted:
        machine.wait_until_succeeds(f"blixard vm {command} --timeout 5", timeout=DEADLINE_SECONDS)


def move_to_small_disk(machine):
    """Puts the node's data on a small file system of its own."""
    kept = "/var/lib/blixard-moved"
    machine.succeed(
        f"systemctl stop {AGENT}",
        f"cp -a {DATA_DIR} {kept} && mount -t tmpfs -o size={DATA_MIB}m,mode=0700 tmpfs {DATA_DIR}",
        f"cp -a {kept}/. {DATA_DIR}/ && rm -r {kept}",
        f"systemctl start --no-block {AGENT}",
    )


def mark(machine):
    """Where the journal ends now."""
    shown = machine.succeed("journalctl --lines=0 --show-cursor --quiet")
    return shown.split("-- cursor: ")[1].strip()


def said(machine, since):
    """What systemd and the agent said of the unit since the mark."""
    journal = f"journalctl --unit={AGENT} --output=cat --after-cursor='{since}'"
    return machine.succeed(journal).splitlines()


def ends(lines):
    """How the agent's process ended, each time."""
    return [line for line in lines if "Main process exited" in line]


def advice(lines):
    """The lines that say what to do. A process says it to the journal and on stderr, if only one arrives."""
    return [line for line in lines if "free space" in line and DATA_DIR in line]


def fill(machine):
    machine.succeed(f"! dd if=/dev/zero of={FILLER} bs=64k count={16 * DATA_MIB} 2>&1")
    machine.succeed(f"test $(df --output=avail {DATA_DIR} | tail -n 1) -eq 0")


def lead_by(wanted):
    """Makes the node lead: whoever does is restarted while there is only the wanted one to hand over to."""
    for _ in range(MOVES_MAX):
        wait_until_formed()
        leaders = [machine for machine in machines if leads(machine)]
        if [machine.name for machine in leaders] == [wanted.name]:
            return
        third = others_than(wanted, *leaders)
        for machine in third:
            machine.succeed(f"systemctl stop {AGENT}")
        for machine in leaders:
            machine.succeed(f"systemctl restart {AGENT}")
        for machine in third:
            machine.succeed(f"systemctl start --no-block {AGENT}")
    t.fail(f"{wanted.name} never leads")


def fill_and_free():
    """Fills the node's disk, looks at what it and the others do, frees it again."""
    before = status(full)
    since = mark(full)
    fill(full)
    for _ in range(WRITES_MAX):
        write_large(others[0])
        if ends(said(full, since)):
            break
    t.assertTrue(ends(said(full, since)), "the full disk is noticed")

    # The others are a quorum.
    for machine in others * KEPT:
        write_large(machine)
    name = full.name
    unreachable = f'any(.members[]; .name == "{name}" and (.reachable | not))'
    gone = f'.quorum and .leader != "{name}" and {unreachable}'
    for machine in others:
        wait_for_status(machine, gone)

    # It starts again and again, not too often, and each time it says the same.
    restarts = int(full.get_unit_property(AGENT, "NRestarts"))
    for _ in range(WATCHED_SECONDS):
        code, _ = full.execute(f"blixard vm create refused --node {name} {SPEC} --timeout 1")
        t.assertEqual(3, code)
        full.sleep(1)
    t.assertLessEqual(int(full.get_unit_property(AGENT, "NRestarts")) - restarts, 2 * WATCHED_SECONDS)
    for machine in others:
        machine.succeed(f"{STATUS} | jq -e '{gone}'")

    # Nobody starts it: systemd does.
    full.succeed(f"rm {FILLER}")
    wait_until_formed()
    lines = said(full, since)
    log.info(f"{len(ends(lines))} ends; it says: {advice(lines)[-1:]}")
    for line in ends(lines):
        t.assertIn("status=75/TEMPFAIL", line)
    t.assertLessEqual(len(ends(lines)), len(advice(lines)))
    after = status(full)
    for key in ("cluster_id", "store_id", "endpoint_id"):
        t.assertEqual(before[key], after[key])
    expect_exactly(acknowledged)
    write_large(full)
    expect_exactly(acknowledged)


start_all()
wait_until_formed()
full = next(machine for machine in machines if not leads(machine))
others = others_than(full)
move_to_small_disk(full)
wait_until_formed()

with subtest("a follower's disk is full"):
    lead_by(others[0])
    fill_and_free()

with subtest("the leader's disk is full"):
    lead_by(full)
    fill_and_free()
