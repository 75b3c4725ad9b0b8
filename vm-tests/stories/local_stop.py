# kind = "guests"
# tested = false
# minutes_max = 20
"""A VM is stopped on its own machine, whatever the cluster does, and stays so until somebody starts it.

The machine is cut off from the others; its agent hangs, and its agent is away. Neither the heal nor a new
agent nor a reboot starts the VM again, and the cluster learns why it is stopped. What systemd is told beside
that is repaired, and a VM that is not to be restarted is left alone when it ends. The script runs under the
NixOS test driver and in the lab.
"""

#: A guest boots without hardware virtualization, on machines that boot themselves.
BOOT_DEADLINE_SECONDS = 240
#: What happens beside the agent is repaired within 5 s, the boot of the guest not counted; the rest is slack
#: for machines that share a processor.
REPAIR_DEADLINE_SECONDS = 20
VM = "web"
UNIT = f"blixard-vm@{VM}.service"
#: The brackets keep the pattern from finding the shell that looks for it.
QEMU = f"pgrep --full 'guest={VM}[,]'"
SHOW = f"blixard vm show {VM} --json --timeout 5"
STOP = f"blixard local stop {VM} --json --timeout {BOOT_DEADLINE_SECONDS}"


def wait_until_vm_is(machine, condition, timeout=BOOT_DEADLINE_SECONDS):
    machine.wait_until_succeeds(f"{SHOW} | jq -e '{condition}'", timeout=timeout)


def wait_until_it_runs():
    wait_until_vm_is(n1, '.state == "running"')
    n3.succeed(QEMU)


def wait_until_it_stays_stopped(cause):
    """The cluster knows that it stays stopped, and why; nothing of it runs, and nothing is kept any more."""
    wait_until_vm_is(n1, f'.desired == "stopped" and .state == "stopped" and .stopped.cause == {cause}')
    wait_until_vm_is(n1, f'.stopped.node == "n3" and (.reason | contains("blixard vm start {VM}"))')
    n3.fail(QEMU)
    n3.wait_until_succeeds("test -z \"$(ls /var/lib/blixard/stopped)\"", timeout=DEADLINE_SECONDS)


def start_it():
    n1.succeed(f"blixard vm start {VM} --timeout {BOOT_DEADLINE_SECONDS}")
    wait_until_it_runs()


def local_vm():
    """How the machine itself sees it, and who looked."""
    listing = json.loads(n3.succeed("blixard local list --json --timeout 30"))
    return listing["source"], next(vm for vm in listing["items"] if vm["name"] == VM)


start_all()
wait_until_formed()

n1.succeed(
    f"blixard vm run {VM} --node n3 --cpus 1 --memory-mib 256 {GUEST} --timeout {BOOT_DEADLINE_SECONDS}"
)
wait_until_it_runs()

with subtest("a machine that is cut off shows its VMs, refuses what needs the others, and stops one by hand"):
    n3.block()
    wait_for_status(n3, ".quorum | not")
    source, seen = local_vm()
    t.assertEqual(("agent", "running", "running"), (source, seen["state"], seen["wanted"]))
    code, said = n3.execute(f"blixard vm stop {VM} --timeout 5 2>&1")
    t.assertEqual(3, code, said)
    t.assertEqual("agent", json.loads(n3.succeed(STOP))["source"])
    n3.fail(QEMU)
    t.assertEqual("stopped by hand on n3", local_vm()[1]["reason"].partition(";")[0])

with subtest("it stays stopped after a restart, a reboot and the heal, and the cluster learns of it"):
    n3.succeed(f"systemctl restart {AGENT}")
    n3.wait_until_succeeds(f"{STATUS} | jq -e '.phase == \"member\"'", timeout=DEADLINE_SECONDS)
    n3.fail(QEMU)
    n3.crash()
    n3.start()
    n3.block()
    n3.wait_until_succeeds(f"{STATUS} | jq -e '.phase == \"member\"'", timeout=DEADLINE_SECONDS)
    n3.fail(QEMU)
    n3.unblock()
    wait_until_formed()
    wait_until_it_stays_stopped('"by_hand"')
    n1.succeed("blixard vm list | grep 'stopped by hand on n3'")
    start_it()

with subtest("with an agent that hangs it is done without it, and the agent learns of it"):
    agent = n3.get_unit_property(AGENT, "MainPID")
    n3.succeed("systemctl service-watchdogs no", f"kill -STOP {agent}")
    t.assertEqual("systemd", json.loads(n3.succeed(STOP))["source"])
    n3.fail(QEMU)
    n3.succeed(f"kill -CONT {agent}", "systemctl service-watchdogs yes")
    wait_until_formed()
    wait_until_it_stays_stopped('"by_hand"')
    t.assertEqual(agent, n3.get_unit_property(AGENT, "MainPID"))
    start_it()

with subtest("without an agent systemd tells what runs, and root stops it for good"):
    n3.succeed(f"systemctl stop {AGENT}")
    source, seen = local_vm()
    t.assertEqual(("systemd", "running", None), (source, seen["state"], seen["wanted"]))
    code, said = n3.execute(f"runuser --user nobody -- blixard local stop {VM} --timeout 30 2>&1")
    t.assertEqual(1, code, said)
    t.assertIn("root may do it", said)
    n3.succeed(QEMU)
    t.assertEqual("systemd", json.loads(n3.succeed(STOP))["source"])
    n3.fail(QEMU)
    n3.succeed(f"systemctl start {AGENT}")
    wait_until_formed()
    wait_until_it_stays_stopped('"by_hand"')
    start_it()

with subtest("what systemd is told beside the agent is repaired"):
    for interference in (
        f"systemctl stop {UNIT}",
        f"systemctl kill --signal=KILL {UNIT}",
        f"systemctl daemon-reload && systemctl kill --signal=KILL {UNIT}",
        f"systemctl restart dbus.service || systemctl restart dbus-broker.service; systemctl stop {UNIT}",
    ):
        before = n3.get_unit_property(UNIT, "MainPID")
        n3.succeed(interference)
        pid = f"pid=$(systemctl show --property=MainPID --value {UNIT})"
        again = f"{pid} && test $pid -ne 0 -a $pid -ne {before}"
        n3.wait_until_succeeds(again, timeout=REPAIR_DEADLINE_SECONDS)
        wait_until_it_runs()
    # It is not to be taken for a loop in what follows.
    n1.succeed(f"blixard vm stop {VM} --timeout {BOOT_DEADLINE_SECONDS}")

with subtest("a VM that is never restarted stays stopped when it ends, and says why"):
    n1.succeed(f"blixard vm set {VM} --restart never")
    start_it()
    n3.succeed(f"kill -KILL $({QEMU})")
    wait_until_it_stays_stopped('{"ended": "hypervisor_ended"}')
    n3.succeed(f"systemctl restart {AGENT}")
    wait_until_formed()
    n3.fail(QEMU)
    start_it()

with subtest("how it ended, when and how often is told, and it is started again where that is wanted"):
    n1.succeed(f"blixard vm set {VM} --restart on-failure --timeout {BOOT_DEADLINE_SECONDS}")
    wait_until_it_runs()
    n3.succeed(f"kill -KILL $({QEMU})")
    wait_until_vm_is(n1, '.last_end.failures == 1 and (.last_end.why | contains("killed by signal 9"))')
    wait_until_it_runs()
    line = "^LAST END +.* ago: the hypervisor was killed"
    n1.succeed(f"blixard vm show {VM} | grep --extended-regexp '{line}'")
