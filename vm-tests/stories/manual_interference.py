# kind = "failover"
# tested = false
# minutes_max = 20
"""What is done to a VM beside the agent is repaired within five seconds; what is done to systemd harms none.

A unit is stopped by hand, a hypervisor and a supervisor are killed; systemd reads its units again, executes
itself again, and the bus is started anew, after which the agent still notices. Each round has VMs of its own,
since one that ends again and again is started after growing pauses. The script runs under the NixOS test
driver and in the lab.
"""

import os

ROUNDS = int(os.environ.get("STORY_ROUNDS", "1"))
REPAIR_DEADLINE_SECONDS = 5

repairs = []


def expect_repaired(vm, what, harm):
    """Something is done to the VM on its machine; it comes up there once more."""
    home, boots = vm.home, vm.boots_on(vm.home)
    home.succeed(harm)
    harmed = time.monotonic()
    vm.wait_for_boot_after(home, boots)
    vm.wait_until_runs()
    t.assertEqual(home, vm.home)
    if judge is not None:
        before, after = judge.runs(vm.name)[-2:]
        seconds = (after.from_ms - before.to_ms) / 1000
        log.info(f"{what}: nothing of it ran for {seconds:.2f} s")
    else:
        # It had ended by then, or was about to.
        seconds = time.monotonic() - vm.age_seconds(home) - harmed
        log.info(f"{what}: a hypervisor began {seconds:.2f} s after that was done")
    repairs.append(seconds)
    t.assertLess(seconds, REPAIR_DEADLINE_SECONDS)


def expect_unharmed(vm, what):
    """Something is done to systemd on the VM's machine, and the VM goes on."""
    before = vm.supervisor(vm.home)
    vm.home.succeed(what)
    wait_until_formed()
    vm.wait_until_runs()
    t.assertEqual(before, vm.supervisor(vm.home))


def while_away(vm):
    """The unit is stopped while the agent is."""
    return f"stop {AGENT}", f"stop {vm.unit}", f"start {AGENT}"


#: What is done to systemd before a hypervisor is killed, and what is done then.
HARMS = (
    ("stopped", None, lambda vm: f"systemctl stop {vm.unit}"),
    ("killed", None, lambda vm: f"kill -KILL $({vm.qemu})"),
    ("orphan", None, lambda vm: f"kill -KILL {vm.supervisor(vm.home)}"),
    ("reload", "systemctl daemon-reload", lambda vm: f"kill -KILL $({vm.qemu})"),
    ("reexec", "systemctl daemon-reexec", lambda vm: f"kill -KILL $({vm.qemu})"),
    ("bus", "systemctl restart dbus.service", lambda vm: f"kill -KILL $({vm.qemu})"),
    ("away", None, lambda vm: "; ".join(f"systemctl {each}" for each in while_away(vm))),
)

start_all()
wait_until_formed()
watch_copies()

for number in range(1, ROUNDS + 1):
    for name, beside, harm in HARMS:
        vm = StoryVm(f"{name}-{number}")
        vm.run()
        command = harm(vm)
        if beside is not None:
            with subtest(f"{beside}: the VM goes on"):
                expect_unharmed(vm, beside)
        with subtest(f"{command}: it is repaired"):
            expect_repaired(vm, name, command)
        vm.delete()

repairs.sort()
median, most = repairs[len(repairs) // 2], repairs[-1]
log.info(f"{len(repairs)} repairs: {median:.2f} s (median), {most:.2f} s at most")
expect_no_copy_ran_twice()
