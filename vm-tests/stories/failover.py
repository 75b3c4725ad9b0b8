# kind = "failover"
# tested = true
# minutes_max = 20
"""A VM goes on elsewhere when its node is lost, and never runs twice.

Its machine loses power; its agent is killed and stays away, while the VM and its supervisor go on; both its
agent and its supervisor are gone or frozen, so that only systemd's watchdog is left. Each time the VM is
started on another node, and nothing of it is left on the one before. The script runs under the NixOS test
driver and in the lab.
"""

#: A guest boots without hardware virtualization, on machines that boot themselves.
BOOT_DEADLINE_SECONDS = 240
#: Lease, stop time and margin with the clocks' errors, and what it takes to decide and to start.
LOST_DEADLINE_SECONDS = 24
#: Lease and stop time.
FENCE_DEADLINE_SECONDS = 15
VM = "web"
UNIT = f"blixard-vm@{VM}.service"
#: The brackets keep the pattern from finding the shell that looks for it.
QEMU = f"pgrep --full 'guest={VM}[,]'"
CONSOLE = f"journalctl --unit={UNIT} --output=cat"


def boots_on(machine):
    return int(machine.succeed(f"{CONSOLE} | grep --count BLIXARD-GUEST-UP || true"))


def show(machine):
    return json.loads(machine.succeed(f"blixard vm show {VM} --json --timeout 5"))


def wait_for_takeover(lost, known):
    """Waits until another node than the lost one runs the VM, and its guest has come up there."""
    asked = others_than(lost)[0]
    placed = f'.node != "{lost.name}" and .state == "running"'
    asked.wait_until_succeeds(
        f"blixard vm show {VM} --json --timeout 5 | jq -e '{placed}'",
        timeout=LOST_DEADLINE_SECONDS + BOOT_DEADLINE_SECONDS,
    )
    home = by_name[show(asked)["node"]]
    up = f"test $({CONSOLE} | grep --count BLIXARD-GUEST-UP) -gt {known[home.name]}"
    home.wait_until_succeeds(up, timeout=BOOT_DEADLINE_SECONDS)
    return home


def known_boots(without=()):
    return {machine.name: boots_on(machine) for machine in others_than(*without)}


def expect_nothing_of_it_on(machine):
    machine.fail(QEMU)


start_all()
wait_until_formed()

with subtest("a VM without a disk of its own may be failed over, and runs under a lease"):
    n1.succeed(
        f"blixard vm run {VM} --cpus 1 --memory-mib 256 {GUEST}"
        f" --cmdline 'quiet blixard.name={VM}' --timeout {BOOT_DEADLINE_SECONDS}"
    )
    view = show(n1)
    t.assertEqual("failover", view["spec"]["on_node_loss"])
    home = by_name[view["node"]]
    home.wait_until_succeeds(f"{CONSOLE} | grep BLIXARD-GUEST-UP", timeout=BOOT_DEADLINE_SECONDS)
    lease = json.loads(home.succeed("cat /run/blixard-lease/lease.json"))
    t.assertIn(VM, lease["vms"])
    t.assertGreater(lease["until_ms"], 0)
    refused = "failover is for a VM without a disk that it writes"
    code, said = n1.execute(
        f"blixard vm create writes --memory-mib 64 {GUEST} --disk /var/lib/blixard-disks/a.img"
        " --on-node-loss failover 2>&1"
    )
    t.assertEqual(2, code)
    t.assertIn(refused, said)

with subtest("an agent that restarts does not disturb it"):
    before = home.get_unit_property(UNIT, "MainPID")
    for _ in range(3):
        home.succeed(f"systemctl restart {AGENT}")
        wait_until_formed()
    t.assertEqual(before, home.get_unit_property(UNIT, "MainPID"))

with subtest("its machine loses power: another one runs it"):
    known = known_boots()
    lost = home
    lost.crash()
    home = wait_for_takeover(lost, known)
    lost.start()
    wait_until_formed()
    expect_nothing_of_it_on(lost)
    t.assertEqual(home.name, show(lost)["node"])

with subtest("its agent is gone and it runs on: it ends with its lease, and another machine runs it"):
    known = known_boots()
    lost = home
    lost.succeed(f"systemctl mask --runtime {AGENT}", f"systemctl kill --signal=KILL {AGENT}")
    lost.succeed(QEMU)
    lost.wait_until_succeeds(f"! {QEMU}", timeout=FENCE_DEADLINE_SECONDS)
    home = wait_for_takeover(lost, known)
    expect_nothing_of_it_on(lost)
    lost.succeed(f"systemctl unmask --runtime {AGENT}", f"systemctl start --no-block {AGENT}")
    wait_until_formed()
    expect_nothing_of_it_on(lost)
    t.assertEqual(home.name, show(lost)["node"])

with subtest("its supervisor is frozen as well: systemd ends both, and another machine runs it"):
    known = known_boots()
    lost = home
    supervisor = lost.get_unit_property(UNIT, "MainPID")
    lost.succeed(f"systemctl mask --runtime {AGENT}", f"kill -STOP {supervisor}")
    lost.succeed(f"systemctl kill --signal=KILL {AGENT}", QEMU)
    lost.wait_until_succeeds(f"! {QEMU}", timeout=FENCE_DEADLINE_SECONDS)
    t.assertEqual("watchdog", lost.get_unit_property(UNIT, "Result"))
    home = wait_for_takeover(lost, known)
    lost.succeed(f"systemctl unmask --runtime {AGENT}", f"systemctl start --no-block {AGENT}")
    wait_until_formed()
    expect_nothing_of_it_on(lost)

with subtest("it is deleted, and gone everywhere"):
    n1.succeed(f"blixard vm delete {VM} --timeout {BOOT_DEADLINE_SECONDS}")
    for machine in machines:
        machine.wait_until_succeeds(f"! {QEMU}", timeout=DEADLINE_SECONDS)
