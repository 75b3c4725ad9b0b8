# kind = "failover"
# tested = false
# minutes_max = 30
"""A supervisor that stands still ends nothing: systemd's watchdog ends its VM, whatever happens beside it.

It is frozen alone, in a group of its own below its unit's, because a stop wakes a process that a signal
stopped. Frozen before the guest was let run; while its node has a lease; while the agent is gone; before a
stop is asked for and in the middle of one; before systemd reads its units again or executes itself again,
also together with a stop. The script runs under the NixOS test driver and in the lab.
"""

#: The supervisor asks for the rest of the lease and a second; the killing comes a moment later.
WATCHDOG_DEADLINE_SECONDS = 15
#: `TimeoutStartSec=` and `TimeoutStopSec=` of a VM's unit: SIGTERM, which nobody hears, and SIGKILL.
START_DEADLINE_SECONDS = 110

# Freezes everything of a unit as soon as its supervisor has a child, and then only the supervisor: so before
# the hypervisor, which needs longer to be there, was let go. Forks nothing before that. Arguments: the unit,
# its group.
FREEZE_EARLY = r"""
set -euo pipefail
children=0
until ((children >= 2)); do
    children=0
    { mapfile -t pids < "$2/cgroup.procs"; } 2> /dev/null || continue
    for pid in "${pids[@]}"; do
        { read -r program < "/proc/$pid/comm"; } 2> /dev/null || continue
        # systemd's own processes, before they become the supervisor, have brackets.
        [[ $program == blixard* || $program == .blixard* || $program == qemu* ]] && ((children += 1))
    done
done
echo 1 > "$2/cgroup.freeze"
mkdir "$2/frozen"
echo 1 > "$2/frozen/cgroup.freeze"
systemctl show --value --property=MainPID "$1" > "$2/frozen/cgroup.procs"
echo 0 > "$2/cgroup.freeze"
"""

web = StoryVm("web")
deaf = StoryVm("deaf")


def freeze_alone(machine, vm=web):
    """Freezes the supervisor; its hypervisor goes on."""
    freeze_supervisor(machine, vm.unit)
    machine.succeed(vm.qemu)


def start_and_freeze_early(machine):
    """Has the VM started on its machine once more, with a supervisor that stands still before it is ready.

    Returns the group in which that is.
    """
    group = group_of(machine, web.unit)
    machine.succeed(f"blixard vm stop {web.name} --timeout {DEADLINE_SECONDS}")
    put_file(machine, "/run/freeze-early.sh", FREEZE_EARLY)
    machine.succeed(
        f"blixard vm start {web.name} --no-wait --timeout {DEADLINE_SECONDS}"
        f" && bash /run/freeze-early.sh {web.unit} '{group}'",
        timeout=DEADLINE_SECONDS,
    )
    machine.wait_until_succeeds(web.qemu, timeout=10)
    machine.require_unit_state(web.unit, "activating")
    return f"{group}/frozen"


def expect_failover(lost, vm=web):
    """The VM ends on the lost machine by systemd's hand, and runs elsewhere."""
    vm.expect_fenced(lost)
    t.assertEqual("watchdog", lost.get_unit_property(vm.unit, "Result"))
    vm.wait_for_takeover()
    vm.expect_nothing_on(lost)
    give_agent_back(lost)
    vm.expect_only_at_home(lost)


start_all()
wait_until_formed()
watch_copies()
web.run()

with subtest("while its node has a lease: systemd ends the VM, and the agent starts it again"):
    home, boots, before = web.home, web.boots_on(web.home), web.supervisor(web.home)
    freeze_alone(home)
    home.wait_until_succeeds(f"! kill -0 {before}", timeout=WATCHDOG_DEADLINE_SECONDS)
    web.wait_for_boot_after(home, boots)
    t.assertEqual(home.name, web.show(home)["node"])

with subtest("before it is ready: systemd ends the start in time, and the agent tries it again"):
    home, boots = web.home, web.boots_on(web.home)
    start_and_freeze_early(home)
    before = web.supervisor(home)
    home.wait_until_succeeds(f"! kill -0 {before}", timeout=START_DEADLINE_SECONDS)
    t.assertEqual(boots, web.boots_on(home))
    web.wait_for_boot_after(home, boots)

with subtest("before it is ready, and the agent is gone: it lets no guest run once it goes on"):
    boots, frozen = web.boots_on(web.home), start_and_freeze_early(web.home)
    lost = web.about_to_lose()
    take_agent_away(lost)
    web.wait_for_takeover()
    # The start may have ended by now.
    thaw_group(lost, frozen)
    # It waits for a lease as long as a start may take.
    web.wait_until_gone_from(lost, timeout=START_DEADLINE_SECONDS)
    t.assertEqual(boots, web.boots_on(lost))
    give_agent_back(lost)
    web.expect_only_at_home(lost)

with subtest("the agent is gone as well"):
    lost = web.about_to_lose()
    freeze_alone(lost)
    take_agent_away(lost)
    expect_failover(lost)

for commands in (
    [f"systemctl stop --no-block {web.unit}"],
    ["systemctl daemon-reload"],
    ["systemctl daemon-reexec"],
    # Systemd forgets the watchdog of a unit that is being stopped.
    [f"systemctl stop --no-block {web.unit}", "systemctl daemon-reload"],
):
    with subtest(f"meanwhile: {' and '.join(commands)}"):
        lost = web.about_to_lose()
        freeze_alone(lost)
        take_agent_away(lost)
        lost.succeed(*commands)
        expect_failover(lost)

deaf.run(words="blixard.deaf")
for commands in ([], ["systemctl daemon-reload"]):
    with subtest(f"in the middle of a stop that its guest does not hear, and meanwhile: {commands}"):
        lost = deaf.about_to_lose()
        take_agent_away(lost)
        lost.succeed(f"systemctl stop --no-block {deaf.unit}")
        asked = f"systemctl show --value --property=StatusText {deaf.unit} | grep 'asked to shut down'"
        lost.wait_until_succeeds(asked, timeout=10)
        freeze_alone(lost, deaf)
        lost.succeed(*commands)
        expect_failover(lost, deaf)

expect_no_copy_ran_twice()
