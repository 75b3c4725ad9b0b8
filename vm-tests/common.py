"""What every story has at hand: this text stands before the story's own, under NixOS' driver and in the lab.

Plain functions over the machines' own commands, so that they mean the same in both. What a story is about
stays in the story.
"""

import json
import time
import tomllib

DEADLINE_SECONDS = 60
ELECTION_DEADLINE_SECONDS = 20
AGENT = "blixard.service"
STATUS = "blixard status --json --timeout 5"
GUEST = "--kernel /etc/blixard-guest/vmlinux --initrd /etc/blixard-guest/initrd"

by_name = {machine.name: machine for machine in machines}


def others_than(*without):
    return [machine for machine in machines if machine not in without]


def status(machine):
    return json.loads(machine.succeed(STATUS))


def wait_for_status(machine, condition, timeout=DEADLINE_SECONDS):
    """Waits until the node's own view of the cluster is so, in jq's words."""
    machine.wait_until_succeeds(f"{STATUS} | jq -e '{condition}'", timeout=timeout)


def formed(nodes=None, voters=None):
    """A command that succeeds on a node whose cluster has exactly these members, all machines unless told.

    So many of them vote, all unless told; there is a leader, and each is reached and has said what it offers.
    """
    names = sorted(machine.name for machine in nodes or machines)
    condition = (
        '.phase == "member" and .quorum and .leader != null'
        f" and ([.members[].name] | sort) == {json.dumps(names)}"
        f' and ([.members[] | select(.role == "voter")] | length) == {voters or len(names)}'
        " and all(.members[]; .reachable and .capacity != null)"
    )
    return f"{STATUS} | jq -e '{condition}'"


def wait_until_formed(nodes=None, voters=None):
    """Waits until each of these nodes sees them all, as `formed` says."""
    for machine in nodes or machines:
        machine.wait_until_succeeds(formed(nodes, voters), timeout=DEADLINE_SECONDS)


def leads(machine):
    """Whether it leads by its own word: others may still call so who is gone since a moment."""
    code, view = machine.execute(STATUS)
    return code == 0 and json.loads(view)["quorum"] and json.loads(view)["leader"] == machine.name


def leader_among(candidates):
    """Waits until these nodes agree on a leader who is one of them; returns its machine."""
    names = " or ".join(f'.leader == "{machine.name}"' for machine in candidates)
    for machine in candidates:
        wait_for_status(machine, f".quorum and ({names})", ELECTION_DEADLINE_SECONDS)
    return by_name[status(candidates[0])["leader"]]


# What was acknowledged.

#: Names of the VMs that have to be there.
acknowledged: list[str] = []


def write(machine, name, on=None):
    """Creates a small VM that never starts, as a mark in the log. Tried again under one request id.

    Placed on that machine, or anywhere.
    """
    where = f"--node {on.name}" if on else ""
    machine.wait_until_succeeds(
        f"blixard vm create {name} {where} --cpus 1 --memory-mib 64 {GUEST}"
        f" --request-id write-{name} --timeout 5",
        timeout=DEADLINE_SECONDS,
    )
    acknowledged.append(name)


def forget(machine, name):
    """Deletes a mark."""
    machine.succeed(f"blixard vm delete {name}")
    acknowledged.remove(name)


def expect_caught_up(machine):
    """The node has applied what is committed, as the cluster knows it."""
    commit = status(others_than(machine)[0])["commit"]
    wait_for_status(machine, f".applied >= {commit}")


def expect_exactly(names, nodes=None):
    """Each of these nodes, all unless told, has caught up and holds exactly these VMs.

    Asked for what a quorum knows, and for what its own store has.
    """
    nodes = nodes or machines
    commit = max(status(machine)["commit"] for machine in nodes)
    for machine in nodes:
        wait_for_status(machine, f".applied >= {commit}")
        for flag in ("", "--stale"):
            listed = machine.wait_until_succeeds(
                f"blixard vm list --json --timeout 5 {flag}", timeout=DEADLINE_SECONDS
            )
            listing = json.loads(listed)
            t.assertEqual(flag == "", listing["linearizable"])
            t.assertEqual(sorted(names), [vm["name"] for vm in listing["items"]])


def expect_refused(machine, command, *reasons):
    """The command is refused, and says each of these."""
    code, said = machine.execute(f"{command} 2>&1", timeout=DEADLINE_SECONDS)
    t.assertEqual(1, code, f"{command}: {said}")
    for reason in reasons:
        t.assertIn(reason, said)


# Members that come and go.

STORE = "/var/lib/blixard/store.redb"


def make_ticket(machine, name):
    """A ticket for the node of that name."""
    return machine.succeed(f"blixard cluster ticket create --ttl 10m --name {name}").strip()


def join_with(ticket):
    """A command that lets a node join, the ticket on stdin: no argument, everybody could see it."""
    return f"blixard cluster join --timeout {DEADLINE_SECONDS} <<< {ticket}"


def expect_removed(machine):
    """Waits until the node knows that it is no member any more, and sees that it answers no reads."""
    wait_for_status(machine, '.phase == "removed"', ELECTION_DEADLINE_SECONDS)
    for flag in ("", "--stale"):
        code, _ = machine.execute(f"blixard vm list --timeout 5 {flag}", timeout=30)
        t.assertEqual(3, code)


def member_of(machine, name):
    """What the machine knows of a member; None of one that is none."""
    return next((each for each in status(machine)["members"] if each["name"] == name), None)


def voters(machine):
    """Who votes, by name, as this node knows."""
    return [each["name"] for each in status(machine)["members"] if each["role"] == "voter"]


def wait_until_missed(gone, nodes):
    """Until each of these nodes says that the machine cannot be reached: then no VM is placed there."""
    for machine in nodes:
        wait_for_status(machine, f'.members[] | select(.name == "{gone.name}") | .reachable | not')


def lose_disk(machine):
    """Crashes the machine and takes its store away: a disk that broke. It boots with an empty one."""
    machine.succeed(f"rm {STORE} && sync $(dirname {STORE})")
    machine.crash()


# Load.

WRITERS_PER_NODE = 2

# One writer: creates VMs that never start and deletes the one before the last, until /run/load/stop is there.
# Tries again, under the same request id, what is not known to have happened; notes what was acknowledged and
# when, in microseconds. Arguments: the writer's name, the node.
WRITER = r"""
set -euo pipefail
notes=/run/load/$1
write() {
    for _ in {1..100}; do
        code=0
        blixard vm "$@" --request-id "$1-$2" --timeout 10 > /dev/null 2> "$notes.error" || code=$?
        case $code in
            0) echo "$1 $2 ${EPOCHREALTIME/[.,]/}" >> "$notes.acknowledged"; return ;;
            3 | 4) echo "$code $1 $2" >> "$notes.again"; sleep 0.1 ;;
            *) break ;;
        esac
    done
    cat "$notes.error" >&2
    exit 1
}
kernel=/etc/blixard-guest/vmlinux
for ((i = 1; ; i++)); do
    [[ -e /run/load/stop ]] && break
    write create "$1-$i" --node "$2" --cpus 1 --memory-mib 64 --kernel "$kernel"
    if ((i > 2)); then write delete "$1-$((i - 2))"; fi
done
touch "$notes.done"
"""


def put_file(machine, path, text):
    machine.succeed(f"mkdir -p $(dirname {path}) && cat > {path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")


def start_writers(machine, on=None):
    """Lets commands on the machine write without a pause; once in a story, on a machine that stays on.

    What they create is placed on this machine, or on another that stays a member: only a VM's own node can
    say that it is gone.
    """
    put_file(machine, "/run/load/writer.sh", WRITER)
    for number in range(1, WRITERS_PER_NODE + 1):
        writer = f"{machine.name}-{number}"
        machine.succeed(
            f'systemd-run --unit=load-{number} --setenv=PATH="$PATH" "$(command -v bash)"'
            f" /run/load/writer.sh {writer} {(on or machine).name}"
        )


def stop_writers(machine):
    """Lets each writer end its last write, so that nothing is left whose outcome is not known."""
    machine.succeed("touch /run/load/stop")
    for number in range(1, WRITERS_PER_NODE + 1):
        notes = f"/run/load/{machine.name}-{number}"
        ended = f"systemctl show --value --property=ActiveState load-{number} | grep -qvx active"
        machine.wait_until_succeeds(f"test -e {notes}.done || {ended}", timeout=DEADLINE_SECONDS)
        machine.succeed(f"test -e {notes}.done || {{ cat {notes}.error >&2; false; }}")


def noted(machine, suffix):
    """What the machine's writers noted."""
    return machine.succeed(f"cat /run/load/*.{suffix} 2>/dev/null || true").splitlines()


def expect_writes_go_on(nodes):
    """Something more is acknowledged to the writers of each of these machines."""
    for machine in nodes:
        before = len(noted(machine, "acknowledged"))
        machine.wait_until_succeeds(
            f"test $(cat /run/load/*.acknowledged | wc -l) -gt {before}", timeout=DEADLINE_SECONDS
        )


def longest_gap_seconds(nodes):
    """Longest time that nothing was acknowledged to any writer of one of these machines."""
    gaps = [0.0]
    for machine in nodes:
        times = sorted(int(line.split()[2]) for line in noted(machine, "acknowledged"))
        gaps += [(later - earlier) / 1e6 for earlier, later in zip(times, times[1:])]
    return max(gaps)


def left_by_writers(nodes):
    """The VMs that these machines' writers, which have ended, created and did not delete."""
    writes = [line for machine in nodes for line in noted(machine, "acknowledged")]
    created = {line.split()[1] for line in writes if line.startswith("create ")}
    deleted = {line.split()[1] for line in writes if line.startswith("delete ")}
    again = sum(len(noted(machine, "again")) for machine in nodes)
    log.info(f"{len(created)} created, {len(deleted)} deleted, {again} writes sent again")
    t.assertEqual(len(writes), len(created) + len(deleted))
    return sorted(created - deleted)


# Who runs what.

#: The lab's judge looks into all machines at once, from outside. NixOS' driver has none: there it is None.
judge = globals().get("judge")
#: A guest boots without hardware virtualization, on machines that boot themselves.
GUEST_DEADLINE_SECONDS = 240
#: A lease and the time that the killing may take.
FENCE_DEADLINE_SECONDS = 15
#: From the fault until a hypervisor runs elsewhere. The last lease, the time to stop, and the margin are 10,
#: 5 and 2 s, the clocks' errors are far below one. The leader and then the node look about once a second, and
#: the hypervisor has to start: that is to be under 20 s. The rest is for machines that share a processor.
TAKEOVER_DEADLINE_SECONDS = 24
#: The same when the leader is lost with it: before the next one begins to wait, there is an election.
TAKEOVER_FROM_LEADER_DEADLINE_SECONDS = 28


def watch_copies():
    """Begins to look which hypervisors run, where somebody can."""
    if judge is not None:
        judge.start()


def expect_no_copy_ran_twice():
    """No two copies of a VM ran at once since `watch_copies`, nor did two of their guests say so."""
    if judge is None:
        log.info("NOT JUDGED: nobody looked from outside, so whether two copies ran at once is not known")
        return
    tell_moves()
    t.assertEqual([], judge.overlaps())
    t.assertEqual([], judge.heartbeat_overlaps())
    t.assertEqual([], judge.doubts())


def tell_moves():
    """What the judge saw, in the story's log."""
    for move in judge.moves():
        seconds = (move.began_ms - move.ended_ms) / 1000
        log.info(f"{move.vm} ran on {move.lost.node}, nowhere for {seconds:.1f} s, then on {move.taken.node}")
    log.info(f"the judge: {json.dumps(judge.verdict())}")


class StoryVm:
    """A small VM without a disk of its own, and what a story wants to know of it."""

    def __init__(self, name):
        self.name = name
        self.unit = f"blixard-vm@{name}.service"
        #: Finds its hypervisor. The brackets keep the pattern from finding the shell that looks for it.
        self.qemu = f"pgrep --full 'guest={name}[,]'"
        #: The machine on which it was last seen to come up.
        self.home = None
        self._known = {}
        self._fault = 0.0
        self._deadline_seconds = 0

    def run(self, flags="", machine=None, words=""):
        """Creates it, starts it, and waits until its guest, which is told these words, is up."""
        asked = machine or machines[0]
        asked.succeed(
            f"blixard vm run {self.name} --cpus 1 --memory-mib 128 {GUEST} {flags}"
            f" --cmdline 'quiet blixard.name={self.name} {words}' --timeout {GUEST_DEADLINE_SECONDS}"
        )
        self.home = by_name[self.show(asked)["node"]]
        self.wait_for_boot_after(self.home, 0)

    def show(self, machine):
        """What the cluster says of it, asked on that machine."""
        return json.loads(machine.succeed(f"blixard vm show {self.name} --json --timeout 5"))

    def _console(self):
        return f"journalctl --unit={self.unit} --output=cat"

    def boots_on(self, machine):
        """How often its guest came up on that machine."""
        return int(machine.succeed(f"{self._console()} | grep --count BLIXARD-GUEST-UP || true"))

    def wait_for_boot_after(self, machine, boots):
        """Its guest has come up on that machine more often than `boots` times."""
        up = f"test $({self._console()} | grep --count BLIXARD-GUEST-UP) -gt {boots}"
        machine.wait_until_succeeds(up, timeout=GUEST_DEADLINE_SECONDS)

    def supervisor(self, machine):
        """The supervisor's process id in that machine."""
        return int(machine.get_unit_property(self.unit, "MainPID"))

    def about_to_lose(self):
        """Its machine, which the story takes away at once, or just did; `wait_for_takeover` comes next."""
        others = others_than(self.home)
        self._known = {machine.name: self.boots_on(machine) for machine in others}
        # It may be off by now: where it was shut down, the others wait from then.
        is_leader = status(others[0])["leader"] == self.home.name
        self._deadline_seconds = (
            TAKEOVER_FROM_LEADER_DEADLINE_SECONDS if is_leader else TAKEOVER_DEADLINE_SECONDS
        )
        self._fault = time.monotonic()
        return self.home

    def wait_until_gone_from(self, machine, timeout=FENCE_DEADLINE_SECONDS):
        """Nothing of it is left on that machine in time."""
        machine.wait_until_succeeds(f"! {self.qemu}", timeout=timeout)

    def expect_fenced(self, lost, held_seconds=0):
        """It ends on the machine that was lost within the time of a lease, or of a hold, and of the killing.

        The hold is longer than a lease by so much.
        """
        deadline_seconds = FENCE_DEADLINE_SECONDS + held_seconds
        self.wait_until_gone_from(lost, deadline_seconds)
        if judge is not None:
            ended = [run.to_ms for run in judge.runs(self.name) if run.copy.node == lost.name][-1] / 1000
            log.info(f"{self.name} ended {ended - self._fault:.1f} s after the fault on {lost.name}")
            t.assertLess(ended - self._fault, deadline_seconds)

    def expect_nothing_on(self, machine):
        """There is no hypervisor of it on that machine."""
        machine.fail(self.qemu)

    def began_after_fault(self, machine):
        """How long after the fault the hypervisor that runs on that machine began, in seconds.

        By what the kernels count, in which no clock that is set has a part: from outside where somebody
        looks, and there only once its guest is let go; else by the age of its process.
        """
        if judge is not None:
            began_ms = (run.from_ms for run in judge.runs(self.name) if run.copy.node == machine.name)
            return min(ms for ms in began_ms if ms > self._fault * 1000) / 1000 - self._fault
        return time.monotonic() - self.age_seconds(machine) - self._fault

    def age_seconds(self, machine):
        """How long its hypervisor's process has been there."""
        ticks = f"$(cut --delimiter=')' --fields=2 /proc/$({self.qemu})/stat)"
        said = machine.succeed(f"echo $(getconf CLK_TCK) $(cat /proc/uptime) {ticks}").split()
        # After the rate and the two numbers of /proc/uptime comes the third field; the time is the 22nd.
        return float(said[1]) - int(said[3 + 19]) / int(said[0])

    def wait_for_takeover(self, asked=None, held_seconds=0):
        """Another machine than its home runs it, and its guest has come up there: that is its home now.

        It began there in time after `about_to_lose`: later by what a hold, or a cluster that is disarmed, is
        longer than a lease. How long the guest boots is the machines' affair.
        """
        lost, deadline_seconds = self.home, self._deadline_seconds + held_seconds
        asked = asked or others_than(lost)[0]
        placed = f'.node != "{lost.name}" and .state == "running"'
        asked.wait_until_succeeds(
            f"blixard vm show {self.name} --json --timeout 5 | jq -e '{placed}'",
            timeout=deadline_seconds + GUEST_DEADLINE_SECONDS,
        )
        self.home = by_name[self.show(asked)["node"]]
        self.wait_for_boot_after(self.home, self._known[self.home.name])
        seconds = self.began_after_fault(self.home)
        log.info(f"{self.name} ran on {self.home.name} {seconds:.1f} s after the fault on {lost.name}")
        t.assertLess(seconds, deadline_seconds)

    def wait_until_runs(self, asked=None):
        """Some machine runs it, as its supervisor says there: that is its home now."""
        asked = asked or machines[0]
        asked.wait_until_succeeds(
            f"blixard vm show {self.name} --json --timeout 5 | jq -e '.state == \"running\"'",
            timeout=GUEST_DEADLINE_SECONDS,
        )
        self.home = by_name[self.show(asked)["node"]]
        self.home.succeed(self.qemu)

    def expect_only_at_home(self, lost):
        """The machine that it was lost with is back, knows where the VM runs, and runs nothing of it."""
        wait_until_formed()
        self.expect_nothing_on(lost)
        t.assertEqual(self.home.name, self.show(lost)["node"])

    def delete(self):
        """Deletes it; nothing of it is left anywhere."""
        machines[0].succeed(f"blixard vm delete {self.name} --timeout {GUEST_DEADLINE_SECONDS}")
        for machine in machines:
            self.wait_until_gone_from(machine, DEADLINE_SECONDS)


def take_agent_away(machine):
    """Kills the agent, which does not come back before `give_agent_back`."""
    machine.succeed(f"systemctl mask --runtime {AGENT}", f"systemctl kill --signal=KILL {AGENT}")


def give_agent_back(machine):
    """Starts the agent again; does not wait for it."""
    machine.succeed(f"systemctl unmask --runtime {AGENT}", f"systemctl start --no-block {AGENT}")


def wait_for_lease(machine):
    """Waits until the node's lease is renewed, as it says itself."""
    grant = "jq -ce .grant /run/blixard-lease/lease.json"
    before = machine.succeed(grant).strip()
    renewed = f"""test "$({grant})" != '{before}'"""
    machine.wait_until_succeeds(renewed, timeout=ELECTION_DEADLINE_SECONDS)


# A supervisor that stands still.


def group_of(machine, unit):
    """The control group of a VM's unit, which runs."""
    return f"/sys/fs/cgroup{machine.get_unit_property(unit, 'ControlGroup')}"


def freeze_supervisor(machine, unit):
    """Freezes the supervisor of a VM and not its hypervisor; returns the group in which it stands still.

    That is below the unit's: a stop wakes a process that a signal stopped.
    """
    group = f"{group_of(machine, unit)}/frozen"
    pid = machine.get_unit_property(unit, "MainPID")
    # A 0 would be the shell itself.
    machine.succeed(
        f"test {pid} -ne 0 && mkdir --parents '{group}' && echo {pid} > '{group}/cgroup.procs'"
        f" && echo 1 > '{group}/cgroup.freeze'"
    )
    machine.wait_until_succeeds(f"grep --line-regexp 'frozen 1' '{group}/cgroup.events'", timeout=10)
    return group


def thaw_group(machine, group):
    """Lets what stands still in that group go on, unless the group is gone with it."""
    machine.succeed(f"if [[ -e '{group}' ]]; then echo 0 > '{group}/cgroup.freeze'; fi")


# A machine that stands still.


def freeze_machine(machine):
    """Stops the whole machine. In the lab its clock goes on; under NixOS' driver it stands still as well."""
    if judge is not None:
        machine.freeze()
    else:
        machine.send_monitor_command("stop")


def thaw_machine(machine):
    """Lets a frozen machine go on."""
    if judge is not None:
        machine.thaw()
    else:
        machine.send_monitor_command("cont")


# One direction of a cable.


def _drop(machine, rule):
    chain = "add chain inet cut arriving { type filter hook input priority 0; }"
    rules = f"add table inet cut; {chain}; add rule inet cut arriving iifname eth1 {rule} drop"
    machine.succeed(f"nft '{rules}'")


def stop_arriving(machine):
    """What the others send does not arrive at the machine; what it sends arrives."""
    _drop(machine, "")


def stop_leaving(machine):
    """What the machine sends arrives nowhere; what the others send arrives at it."""
    address = json.loads(machine.succeed("ip -json link show dev eth1"))[0]["address"]
    for other in others_than(machine):
        _drop(other, f"ether saddr {address}")


def mend_cables():
    """Ends what the two above began, wherever it was."""
    for machine in machines:
        machine.succeed("nft 'add table inet cut; delete table inet cut'")


# Another configuration, another address.

CONFIG = "/etc/blixard/config.toml"
CHANGED_CONFIG = "/etc/blixard/changed.toml"


def toml(value):
    """A value as TOML has it, on one line. JSON's strings, numbers and truths are TOML's."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(each)}" for key, each in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    return json.dumps(value)


def settings_of(machine):
    """The agent's configuration on this machine."""
    return tomllib.loads(machine.succeed(f"cat {CHANGED_CONFIG} 2>/dev/null || cat {CONFIG}"))


def change_settings(machine, **changes):
    """Has the agent find these keys in its configuration when it starts next; None takes a key away.

    On NixOS the file in /etc is the store's, and /etc/systemd/system as well: so the agent is told another
    file, by a drop-in in a directory that systemd reads too and that stays when the machine boots again.
    """
    settings = (settings_of(machine) | changes).items()
    lines = [f"{key} = {toml(value)}" for key, value in settings if value is not None]
    put_file(machine, CHANGED_CONFIG, "\n".join(lines))
    program = machine.succeed("readlink -f $(command -v blixard)").strip()
    start = f"ExecStart=\nExecStart={program} agent --config {CHANGED_CONFIG}"
    put_file(machine, f"/etc/systemd/system.control/{AGENT}.d/changed.conf", f"[Service]\n{start}")
    machine.succeed("systemctl daemon-reload")


def show_address(machine):
    """The machine's address in the machines' network, as `ip` tells it."""
    return json.loads(machine.succeed("ip -json -4 address show dev eth1"))[0]["addr_info"][0]


def move(machine):
    """Takes the machine's address away and gives it a free one, until it boots again; returns that."""
    old = show_address(machine)
    network, last = old["local"].rsplit(".", 1)
    new = f"{network}.{int(last) + 100}"
    machine.succeed(
        f"ip address del {old['local']}/{old['prefixlen']} dev eth1",
        f"ip address add {new}/{old['prefixlen']} dev eth1",
    )
    return new


# The story.

