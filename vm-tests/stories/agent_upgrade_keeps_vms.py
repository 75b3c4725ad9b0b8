# kind = "failover"
# tested = false
# minutes_max = 30
"""Agents are restarted again and again, as an upgrade does: no VM notices.

One after the other, whoever leads among them. Most are back at once, some a minute later, which is longer
than a lease. The script runs under the NixOS test driver and in the lab.
"""

import os

RESTARTS = int(os.environ.get("STORY_RESTARTS", "30"))
#: Of which so many take this long.
SLOW_RESTARTS = int(os.environ.get("STORY_SLOW_RESTARTS", "3"))
AWAY_SECONDS = 60

vms = [StoryVm(name) for name in ("web", "dns", "mail")]


start_all()
wait_until_formed()
watch_copies()
for vm in vms:
    vm.run()
before = {vm.name: vm.supervisor(vm.home) for vm in vms}

with subtest(f"{RESTARTS} restarts of agents, {SLOW_RESTARTS} of which take {AWAY_SECONDS} s"):
    for number in range(RESTARTS):
        machine = machines[number % len(machines)]
        if number < SLOW_RESTARTS:
            machine.succeed(f"systemctl stop {AGENT}")
            machine.sleep(AWAY_SECONDS)
            machine.succeed(f"systemctl start {AGENT}")
        else:
            machine.succeed(f"systemctl restart {AGENT}")
        machine.wait_until_succeeds(formed(), timeout=DEADLINE_SECONDS)
        wait_for_lease(machine)

with subtest("every VM is the process that it was"):
    for vm in vms:
        t.assertEqual(before[vm.name], vm.supervisor(vm.home))
        t.assertEqual(1, vm.boots_on(vm.home))
    if judge is not None:
        t.assertEqual(len(vms), judge.verdict()["copies"])

expect_no_copy_ran_twice()
