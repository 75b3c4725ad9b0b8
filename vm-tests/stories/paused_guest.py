# kind = "guests"
# tested = true
# minutes_max = 20
# listed = ["n1"]
"""What happens to a guest beside the agent is seen: it stands still, hangs, dies, is stopped by somebody.

A guest whose disk is full says so and goes on by itself once there is space. A hypervisor that says nothing
is noticed. Whoever ends a supervisor ends its guest, which is started again, with the reason. The script runs
under the NixOS test driver and in the lab.
"""

#: A guest boots without hardware virtualization, on machines that boot themselves.
BOOT_DEADLINE_SECONDS = 240
#: A hypervisor that hangs is noticed within 10 s, and told of with the next report.
HANG_DEADLINE_SECONDS = 30
VM = "web"
UNIT = f"blixard-vm@{VM}.service"
DISKS = "/var/lib/blixard-disks"
SMALL = f"{DISKS}/small"
DISK = f"{SMALL}/{VM}.img"
FILL_MIB = 32
JOURNAL = f"journalctl --unit={UNIT} --output=cat"
QEMU = f"pgrep --full 'guest={VM},'"


def wait_until_vm_is(condition, timeout=BOOT_DEADLINE_SECONDS):
    n1.wait_until_succeeds(f"blixard vm show {VM} --json --timeout 5 | jq -e '{condition}'", timeout=timeout)


def wait_until_it_runs():
    wait_until_vm_is('.state == "running" and .reason == null')


def wait_for_console(line, times=1):
    seen = f"test $({JOURNAL} | grep --count {line}) -ge {times}"
    n1.wait_until_succeeds(seen, timeout=BOOT_DEADLINE_SECONDS)


def check():
    """The exit code and the words of `blixard status --check`."""
    return n1.execute("blixard status --check --timeout 5 2>&1")


def qemu():
    """The hypervisor's process id, which is not the unit's main process: that is the supervisor."""
    pid = int(n1.succeed(QEMU))
    t.assertNotEqual(pid, int(n1.get_unit_property(UNIT, "MainPID")))
    return pid


def quoted(lines):
    return " ".join(f"'{line}'" for line in lines)


def status_text():
    return n1.get_unit_property(UNIT, "StatusText")


start_all()
wait_until_formed()

with subtest("a guest fills a disk that has no more space: it stands still, and says for what"):
    n1.succeed(
        f"mkdir {SMALL} && mount -t tmpfs -o size=4m,mode=0755 tmpfs {SMALL}",
        f"truncate --size=64M {DISK} && chmod 0660 {DISK} && chgrp blixard-disk {DISK}",
        f"blixard vm run {VM} --cpus 1 --memory-mib 256 {GUEST} --disk {DISK}"
        f" --cmdline 'blixard.fill={FILL_MIB}' --timeout {BOOT_DEADLINE_SECONDS}",
    )
    wait_until_vm_is('.state == "paused"')
    reason = json.loads(n1.succeed(f"blixard vm show {VM} --json"))["reason"]
    t.assertIn(f"disk0 {DISK}", reason)
    t.assertIn("No space left on device", reason)
    t.assertEqual(f"paused: {reason}", status_text())
    code, words = check()
    t.assertEqual(1, code)
    t.assertIn(f"VM {VM} is paused: disk0 {DISK}", words)
    before = qemu()
    n1.succeed(f"systemctl restart {AGENT}")
    wait_until_formed()
    wait_until_vm_is('.state == "paused"')

with subtest("it goes on by itself once there is space"):
    t.assertEqual("0", n1.succeed(f"{JOURNAL} | grep --count GUEST-FILLED || true").strip())
    n1.succeed(f"mount -o remount,size=80m {SMALL}")
    wait_until_it_runs()
    wait_for_console("GUEST-FILLED")
    t.assertEqual(before, qemu())
    n1.wait_until_succeeds("blixard status --check --timeout 5", timeout=DEADLINE_SECONDS)

with subtest("a hypervisor that hangs is noticed, and so is its return"):
    n1.succeed(f"kill -STOP {qemu()}")
    wait_until_vm_is('.reason // "" | startswith("not answering: ")', HANG_DEADLINE_SECONDS)
    t.assertEqual(1, check()[0])
    n1.succeed(f"kill -CONT {qemu()}")
    wait_until_it_runs()
    t.assertEqual(before, qemu())

with subtest("a hypervisor that is killed is started again, and so is one whose supervisor is"):
    n1.succeed(f"kill -KILL {qemu()}")
    wait_for_console("GUEST-UP", times=2)
    wait_until_vm_is('.state == "running"')
    supervisor, orphan = n1.get_unit_property(UNIT, "MainPID"), qemu()
    n1.succeed(f"kill -KILL {supervisor}")
    n1.wait_until_succeeds(f"! kill -0 {orphan}", timeout=DEADLINE_SECONDS)
    wait_for_console("GUEST-UP", times=3)
    twice = "crash-looping: it ended or failed 2 times"
    wait_until_vm_is(f'.state == "running" and (.reason | startswith("{twice}"))')
    wait_until_it_runs()

with subtest("a guest that is stopped beside the agent is asked first, and started again"):
    n1.succeed(f"systemctl stop {UNIT}")
    wait_for_console("GUEST-DOWN")
    wait_for_console("GUEST-UP", times=4)
    wait_until_it_runs()

with subtest("a VM that is to stop stops, and its unit is no failure"):
    n1.succeed(f"blixard vm stop {VM} --timeout {BOOT_DEADLINE_SECONDS}")
    wait_for_console("GUEST-DOWN", times=2)
    t.assertEqual("inactive", n1.get_unit_property(UNIT, "ActiveState"))
    n1.fail(QEMU)

with subtest("a VM that a release without supervisors started goes on, and its guest is asked when it stops"):
    started = "s/^ExecStart=\\(.*\\) vm-run %i$/\\1/p"
    program = n1.succeed(f"systemctl cat blixard-vm@.service | sed -n '{started}'").strip()
    older = "/run/systemd/system/blixard-vm@.service.d/older.conf"
    lines = (
        "[Service]", "Type=exec", "ExecStart=", f"ExecStart={program} vm-exec %i",
        f"ExecStartPost={program} vm-wait %i", "KillMode=control-group", "OOMPolicy=stop",
    )
    n1.succeed(f"mkdir --parents {older.rpartition('/')[0]}", f"printf '%s\\n' {quoted(lines)} > {older}")
    n1.succeed("systemctl daemon-reload", f"blixard vm start {VM} --timeout {BOOT_DEADLINE_SECONDS}")
    wait_for_console("GUEST-UP", times=5)
    t.assertEqual(n1.succeed(QEMU).strip(), n1.get_unit_property(UNIT, "MainPID"))
    n1.succeed(f"rm {older}", "systemctl daemon-reload")
    before = n1.get_unit_property(UNIT, "MainPID")
    n1.succeed(f"systemctl restart {AGENT}")
    wait_until_formed()
    wait_until_it_runs()
    t.assertEqual((before, ""), (n1.get_unit_property(UNIT, "MainPID"), status_text()))
    n1.succeed(f"systemctl stop {UNIT}")
    wait_for_console("GUEST-DOWN", times=3)
    wait_for_console("GUEST-UP", times=6)
    wait_until_it_runs()
    t.assertEqual("running", status_text())
