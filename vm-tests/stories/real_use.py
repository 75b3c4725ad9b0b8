# kind = "guests"
# tested = false
# minutes_max = 20
# listed = ["n1"]
"""What users of such products ran into, on one machine: it is refused, bounded, or mended by itself.

A disk that is an image of another format. A console that forges an emergency. A local socket full of silent
connections. A journal that answers late when VMs end, and VMs that end late when another one is to start.
polkit's rule taken away. systemd and the bus that start anew while a VM is started. A backup from before
another VM of the same name ran. The script runs under the NixOS test driver and in the lab.
"""

DISKS = "/var/lib/blixard-disks"
RUN = "--cpus 1 --memory-mib 64"
#: What happens beside the agent is repaired within 5 s; the rest is for machines that share a processor.
REPAIR_DEADLINE_SECONDS = 20
#: More than the usual limit of descriptors.
SILENT_CONNECTIONS = 1500
#: The agent serves this many callers of its socket at once, and has descriptors for more than them.
DESCRIPTORS_MAX = 512
#: The agent gives 256 of them 3 s at a time to ask something: a command waits longer, 30 s, unless told.
QUEUE_DEADLINE_SECONDS = 60
#: How long `journalctl` takes when it is slow: the agent gives it 5 s.
SLOW_SECONDS = 4
#: As many actions the agent does at once.
ACTIONS_MAX = 8
#: Pauses between failed attempts grow from 1 s to 60 s: five of them in this time, each with one warning.
DENIED_SECONDS = 20
DENIED_WARNINGS_MAX = 8

# Opens connections to the agent's socket that say nothing, and keeps them. Arguments: how many, the socket.
BE_SILENT = r"""
set -euo pipefail
mkfifo /run/silent
# Nothing is ever written there, and its end does not come.
exec 3<> /run/silent
for ((i = 0; i < $1; i++)); do nc -U "$2" <&3 > /dev/null 2>&1 & done
touch /run/silent.all
wait
"""

web = StoryVm("web")
twin = StoryVm("twin")
crowd = [StoryVm(f"crowd-{number}") for number in range(1, ACTIONS_MAX + 1)]


def make_disk(name, content=""):
    """A file that VMs may have as their disk, with this at its beginning, as printf has it."""
    path = f"{DISKS}/{name}"
    n1.succeed(
        f"printf '{content}' > {path} && truncate --size=1M {path}",
        f"chmod 0660 {path} && chgrp blixard-disk {path}",
    )
    return path


def agent_said(line):
    """How often the agent's journal has the line."""
    said = f"journalctl --unit={AGENT} --output=cat | grep --count --fixed-strings '{line}' || true"
    return int(n1.succeed(said))


def pid_of(vm):
    return n1.succeed(vm.qemu).strip()


def wait_until_started_again(vms, before, timeout=REPAIR_DEADLINE_SECONDS):
    """Each of these VMs has another hypervisor than that one."""
    for vm, pid in zip(vms, before):
        n1.wait_until_succeeds(f"pid=$({vm.qemu}) && test $pid != {pid}", timeout=timeout)


start_all()
wait_until_formed()

with subtest("an image in another format is refused with the command that converts it, and stays as it is"):
    for name, said, magic in (
        ("qcow2", "qcow2", "QFI\\373\\0\\0\\0\\3"),
        ("vmdk", "VMDK", "KDMV\\1\\0\\0\\0"),
    ):
        disk = make_disk(f"disk.{name}", magic)
        before = n1.succeed(f"sha256sum {disk}")
        expect_refused(
            n1,
            f"blixard vm run image {RUN} {GUEST} --disk {disk} --timeout {DEADLINE_SECONDS}",
            f"is a {said} image and disks are raw",
            f"qemu-img convert -f {name} -O raw {disk} {DISKS}/disk.raw",
        )
        n1.fail("pgrep --full 'guest=image[,]'")
        t.assertEqual(before, n1.succeed(f"sha256sum {disk}"))
        n1.succeed(f"blixard vm delete image --timeout {DEADLINE_SECONDS}")

with subtest("what a guest prints is a line of its console, and no emergency"):
    web.run(words="blixard.say=<0>BLIXARD-FORGED\\033[2J")
    forged = f"journalctl --unit={web.unit} --grep=BLIXARD-FORGED"
    said = n1.succeed(f"{forged} --output=json --output-fields=PRIORITY").splitlines()
    t.assertEqual(["6"], [json.loads(line)["PRIORITY"] for line in said])
    t.assertIn("<0>BLIXARD-FORGED\\x1b[2J", repr(n1.succeed(f"{forged} --output=cat --all")))
    n1.fail(f"{forged} --priority=notice")

with subtest(f"{SILENT_CONNECTIONS} silent connections to the local socket keep nobody out"):
    put_file(n1, "/run/be-silent.sh", BE_SILENT)
    n1.succeed(
        'systemd-run --unit=silent --property=TasksMax=infinity --setenv=PATH="$PATH" "$(command -v bash)"'
        f" /run/be-silent.sh {SILENT_CONNECTIONS} /run/blixard/blixard.sock"
    )
    n1.wait_for_file("/run/silent.all", DEADLINE_SECONDS)
    began = time.monotonic()
    n1.succeed("blixard status")
    log.info(f"status was answered after {time.monotonic() - began:.1f} s")
    agent = n1.get_unit_property(AGENT, "MainPID")
    t.assertLess(int(n1.succeed(f"ls /proc/{agent}/fd | wc -l")), DESCRIPTORS_MAX)
    n1.wait_until_succeeds("! systemctl is-active silent.service", timeout=QUEUE_DEADLINE_SECONDS)
    t.assertEqual(0, agent_said("Too many open files"))

for command in ("systemctl daemon-reexec", "systemctl restart dbus.service"):
    with subtest(f"{command} while a VM is started: that goes on"):
        for number in range(1, 4):
            name = f"started-{number}"
            begun = f"$(systemctl show --value --property=ActiveState blixard-vm@{name}.service) != inactive"
            n1.succeed(
                f"blixard vm run {name} {RUN} {GUEST} --timeout {DEADLINE_SECONDS} & run=$!;"
                f" until [[ {begun} ]]; do :; done; {command}; wait $run",
                timeout=2 * DEADLINE_SECONDS,
            )
            n1.succeed(f"blixard vm delete {name} --timeout {DEADLINE_SECONDS}")
        wait_until_formed()

with subtest("without polkit's leave: a few attempts and a reason; with it the VM stops"):
    rule = "/etc/polkit-1/rules.d/00-denied.rules"
    denies = "return subject.user === \"blixard\" ? polkit.Result.NO : polkit.Result.NOT_HANDLED;"
    put_file(n1, rule, f"polkit.addRule(function(action, subject) {{ {denies} }});")
    n1.succeed(f"chmod 0644 {rule} && systemctl restart polkit.service")
    warned, pid = agent_said("VM web not stopped"), pid_of(web)
    code, said = n1.execute(f"blixard vm stop web --timeout {DENIED_SECONDS} 2>&1")
    t.assertNotEqual(0, code)
    log.info(f"exit code {code}: {said.strip()}")
    shown = web.show(n1)
    t.assertEqual(("running", "stopped"), (shown["state"], shown["desired"]))
    t.assertIn("not permitted (is polkit's rule", shown["reason"])
    warnings = agent_said("VM web not stopped") - warned
    log.info(f"{warnings} warnings: {shown['reason']}")
    t.assertGreater(warnings, 0)
    t.assertLessEqual(warnings, DENIED_WARNINGS_MAX)
    t.assertEqual(pid, pid_of(web))
    n1.succeed(f"rm {rule} && systemctl restart polkit.service")
    web.wait_until_gone_from(n1, DEADLINE_SECONDS)
    n1.wait_until_succeeds(
        "blixard vm show web --json | jq -e '.state == \"stopped\" and .reason == null'",
        timeout=DEADLINE_SECONDS,
    )
    n1.succeed(f"blixard vm start web --timeout {DEADLINE_SECONDS}")

with subtest("VMs end while the journal answers late: that is noted at once, and they are started again"):
    many = crowd[:6]
    for vm in many:
        n1.succeed(f"blixard vm run {vm.name} {RUN} {GUEST} --timeout {DEADLINE_SECONDS}")
    agent = n1.get_unit_property(AGENT, "MainPID")
    path = n1.succeed(f"tr '\\0' '\\n' < /proc/{agent}/environ | sed -n 's/^PATH=//p'").strip()
    dropin = f"/etc/systemd/system.control/{AGENT}.d/slow.conf"
    put_file(n1, dropin, f"[Service]\nEnvironment=PATH=/run/slow:{path}")
    sleep, journalctl = n1.succeed("command -v sleep journalctl").split()
    slow = f'#!/bin/sh\n{sleep} {SLOW_SECONDS}\nexec {journalctl} "$@"'
    put_file(n1, "/run/slow/journalctl", slow)
    n1.succeed("chmod 0755 /run/slow /run/slow/journalctl")
    n1.succeed("systemctl daemon-reload", f"systemctl restart {AGENT}")
    wait_until_formed()
    wait_for_status(n1, ".warnings == []")
    before = [pid_of(vm) for vm in many]
    n1.succeed(f"kill -KILL {' '.join(before)}")
    n1.wait_until_succeeds("pgrep --full '[/]run/slow/journalctl'", timeout=DEADLINE_SECONDS)
    listing = json.loads(n1.succeed("blixard vm list --json --timeout 5"))["items"]
    t.assertNotIn("unknown", [vm["state"] for vm in listing])
    wait_until_started_again(many, before, timeout=3 * SLOW_SECONDS)
    n1.succeed(f"rm {dropin}", "systemctl daemon-reload", f"systemctl restart {AGENT}")
    wait_until_formed()

with subtest(f"{ACTIONS_MAX} VMs are deleted whose hypervisors hang: another one that ends is started again"):
    for vm in crowd[6:]:
        n1.succeed(f"blixard vm run {vm.name} {RUN} {GUEST} --timeout {DEADLINE_SECONDS}")
    hung = [pid_of(vm) for vm in crowd]
    n1.succeed(f"kill -STOP {' '.join(hung)}")
    for vm in crowd:
        n1.succeed(f"blixard vm delete {vm.name} --no-wait --timeout {DEADLINE_SECONDS}")
    before = pid_of(web)
    n1.succeed(f"kill -KILL {before}")
    wait_until_started_again([web], [before])
    # None of them has ended yet.
    n1.succeed(f"kill -0 {' '.join(hung)}")
    for vm in crowd:
        vm.wait_until_gone_from(n1, DEADLINE_SECONDS)
    web.delete()

with subtest("a backup is restored after another VM of the same name ran: the one in the backup runs"):
    backup = "/var/lib/blixard-backup/monday"
    n1.succeed(f"mkdir -p -m 0700 $(dirname {backup})")
    twin.run(f"--disk {make_disk('a.raw')}")
    n1.succeed(f"blixard cluster backup {backup}")
    twin.delete()
    n1.succeed(
        f"blixard vm run twin --cpus 1 --memory-mib 192 {GUEST} --disk {make_disk('b.raw')}"
        f" --timeout {DEADLINE_SECONDS}"
    )
    other = pid_of(twin)
    n1.succeed(f"systemctl stop {AGENT}", f"blixard cluster restore {backup}")
    t.assertEqual(other, pid_of(twin))
    n1.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed()
    wait_until_started_again([twin], [other], timeout=DEADLINE_SECONDS)
    words = n1.succeed(f"tr '\\0' ' ' < /proc/{pid_of(twin)}/cmdline")
    t.assertIn(f"{DISKS}/a.raw", words)
    t.assertNotIn(f"{DISKS}/b.raw", words)
    t.assertEqual(128, twin.show(n1)["spec"]["memory_mib"])
    t.assertEqual(1, agent_said("VM twin stopped: it ran by another order than the one that is wanted"))
    n1.wait_until_succeeds(
        f"journalctl --unit={twin.unit} --output=cat | grep --fixed-strings 'name=twin boot=2'",
        timeout=GUEST_DEADLINE_SECONDS,
    )
