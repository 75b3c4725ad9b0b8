# kind = "failover"
# tested = false
# minutes_max = 20
"""A supervisor that stands still ends nothing: systemd's watchdog ends its VM, whatever happens beside it.

It is frozen alone, in a group of its own below its unit's, because a stop wakes a process that a signal
stopped. Frozen while its node has a lease; while the agent is gone; before a stop is asked for, before
systemd reads its units again or executes itself again, and before a stop and a reload together. The script
runs under the NixOS test driver and in the lab.
"""

#: The supervisor asks for the rest of the lease and a second; the killing comes a moment later.
WATCHDOG_DEADLINE_SECONDS = 15

web = StoryVm("web")


def freeze_supervisor(machine):
    """Freezes the supervisor and not its hypervisor."""
    group = f"/sys/fs/cgroup{machine.get_unit_property(web.unit, 'ControlGroup')}/frozen"
    machine.succeed(
        f"mkdir '{group}' && echo {web.supervisor(machine)} > '{group}/cgroup.procs'"
        f" && echo 1 > '{group}/cgroup.freeze'"
    )
    machine.wait_until_succeeds(f"grep --line-regexp 'frozen 1' '{group}/cgroup.events'", timeout=10)
    machine.succeed(web.qemu)


def expect_failover(lost):
    """The VM ends on the lost machine by systemd's hand, and runs elsewhere."""
    web.expect_fenced(lost)
    t.assertEqual("watchdog", lost.get_unit_property(web.unit, "Result"))
    web.wait_for_takeover()
    web.expect_nothing_on(lost)
    give_agent_back(lost)
    web.expect_only_at_home(lost)


start_all()
wait_until_formed()
watch_copies()
web.run()

with subtest("while its node has a lease: systemd ends the VM, and the agent starts it again"):
    home, boots, before = web.home, web.boots_on(web.home), web.supervisor(web.home)
    freeze_supervisor(home)
    home.wait_until_succeeds(f"! kill -0 {before}", timeout=WATCHDOG_DEADLINE_SECONDS)
    web.wait_for_boot_after(home, boots)
    t.assertEqual(home.name, web.show(home)["node"])

with subtest("the agent is gone as well"):
    lost = web.about_to_lose()
    freeze_supervisor(lost)
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
        freeze_supervisor(lost)
        take_agent_away(lost)
        lost.succeed(*commands)
        expect_failover(lost)

expect_no_copy_ran_twice()
