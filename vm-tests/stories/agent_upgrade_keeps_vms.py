# kind = "failover"
# tested = false
# minutes_max = 30
"""Agents are restarted again and again, as an upgrade does: no VM notices.

One after the other, whoever leads among them; each is back within the lease. The script runs under the NixOS
test driver and in the lab.
"""

import os

RESTARTS = int(os.environ.get("STORY_RESTARTS", "30"))

vms = [StoryVm(name) for name in ("web", "dns", "mail")]


def expect_lease(machine):
    """The node has a lease that is being renewed, as it says itself."""
    until = "jq -e .until_ms /run/blixard-lease/lease.json"
    before = int(machine.succeed(until))
    machine.wait_until_succeeds(f"test $({until}) -gt {before}", timeout=ELECTION_DEADLINE_SECONDS)


start_all()
wait_until_formed()
watch_copies()
for vm in vms:
    vm.run()
before = {vm.name: vm.supervisor(vm.home) for vm in vms}

with subtest(f"{RESTARTS} restarts of agents"):
    for number in range(RESTARTS):
        machine = machines[number % len(machines)]
        machine.succeed(f"systemctl restart {AGENT}")
        machine.wait_until_succeeds(formed(), timeout=DEADLINE_SECONDS)
        expect_lease(machine)

with subtest("every VM is the process that it was"):
    for vm in vms:
        t.assertEqual(before[vm.name], vm.supervisor(vm.home))
        t.assertEqual(1, vm.boots_on(vm.home))
    if judge is not None:
        t.assertEqual(len(vms), judge.verdict()["copies"])

expect_no_copy_ran_twice()
