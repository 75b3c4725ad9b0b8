# kind = "failover"
# tested = false
# minutes_max = 20
"""An agent that is killed: systemd starts it again and no VM notices; where it stays away, its VMs move once.

Each agent is killed several times in a row, whoever leads among them, with a VM on each machine. Then the
agent of a follower and that of the leader are killed and masked: what ran there ends with the lease and runs
elsewhere, and stays there when the agent is back. The script runs under the NixOS test driver and in the lab.
"""

#: How often each agent is killed that systemd starts again.
KILLS = 3
#: systemd waits a second before it starts it again, as often as that is.
BACK_DEADLINE_SECONDS = 10

vms = [StoryVm(name) for name in ("web", "dns", "mail")]


def running(vm):
    """The process that a VM is on its machine, and how often its guest came up there."""
    return vm.supervisor(vm.home), vm.boots_on(vm.home)


def expect_none_moved(before):
    """Every VM is the process that it was, where it was, and its guest has not booted again."""
    for vm in vms:
        t.assertEqual(before[vm.name], running(vm))
        t.assertEqual(vm.home.name, vm.show(machines[0])["node"])
    if judge is not None:
        t.assertEqual(len(vms), judge.verdict()["copies"])


start_all()
wait_until_formed()
watch_copies()
for vm in vms:
    vm.run()
# The newest goes where most room is.
t.assertEqual({machine.name for machine in machines}, {vm.home.name for vm in vms})

with subtest(f"each agent is killed {KILLS} times: systemd starts it again, and no VM notices"):
    before = {vm.name: running(vm) for vm in vms}
    for machine in machines * KILLS:
        killed = machine.get_unit_property(AGENT, "MainPID")
        machine.succeed(f"systemctl kill --signal=KILL {AGENT}")
        pid = f"pid=$(systemctl show --property=MainPID --value {AGENT})"
        machine.wait_until_succeeds(
            f"{pid} && test $pid -ne 0 -a $pid -ne {killed}", timeout=BACK_DEADLINE_SECONDS
        )
        machine.wait_until_succeeds(formed(), timeout=DEADLINE_SECONDS)
    for machine in machines:
        t.assertEqual(str(KILLS), machine.get_unit_property(AGENT, "NRestarts"))
    expect_none_moved(before)

for who in ("one that follows", "one that leads"):
    leader = leader_among(machines)
    candidates = [leader] if who == "one that leads" else others_than(leader)
    lost = next(machine for machine in candidates if any(vm.home == machine for vm in vms))
    moved = [vm for vm in vms if vm.home == lost]

    with subtest(f"the agent of {who} is killed and stays away: its VMs end, and run elsewhere"):
        for vm in moved:
            vm.about_to_lose()
        take_agent_away(lost)
        for vm in moved:
            lost.succeed(vm.qemu)
        for vm in moved:
            vm.expect_fenced(lost)
        for vm in moved:
            vm.wait_for_takeover()
            vm.expect_nothing_on(lost)

    with subtest("it comes back: nothing runs twice, and each VM stays at its new home"):
        before = {vm.name: running(vm) for vm in vms}
        give_agent_back(lost)
        for vm in moved:
            vm.expect_only_at_home(lost)
        wait_for_lease(lost)
        for vm in vms:
            t.assertEqual(before[vm.name], running(vm))
            vm.expect_nothing_on(lost)

expect_no_copy_ran_twice()
