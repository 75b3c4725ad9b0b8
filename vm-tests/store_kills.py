"""An agent killed again and again under load opens its store every time; nothing acknowledged is lost.

Two nodes write all the while; the third one's agent is killed with SIGKILL at moments spread over the writes,
every few times once more while it is opening its store. systemd alone brings it back. Then it is the leader's
turn, whoever leads. The script runs under the NixOS test driver and in the lab.
"""

import json
import os

#: How often the one agent is killed. The long run: `cargo xtask lab run store_kills --set KILLS=1000`.
KILLS = int(os.environ.get("STORY_KILLS", "100"))
#: How often whoever leads is killed; each time costs an election.
LEADER_KILLS = int(os.environ.get("STORY_LEADER_KILLS", "10"))
#: Kills that wait for the unit's own RestartSec=; for the others it is 0.
PATIENT_KILLS = 3
#: Kills between two looks from outside.
ROUND_KILLS = 50
WRITERS_PER_NODE = 2
DEADLINE_SECONDS = 60
UNIT = "blixard.service"
DROP_IN = f"/run/systemd/system/{UNIT}.d/at-once.conf"
#: What the agent says of a store that it does not open.
BROKEN = "can not be (opened|read)|counts as lost"
STATUS = "blixard status --json --timeout 5"
FORMED = (
    f"{STATUS} | jq -e '"
    '.phase == "member" and .quorum and .leader != null and (.members | length) == 3'
    ' and all(.members[]; .role == "voter" and .reachable and .capacity != null)'
    "'"
)

# One writer: creates VMs that never start and deletes the one before the last, until /run/load/stop is there.
# Tries again, under the same request id, what is not known to have happened; notes what was acknowledged.
# Arguments: the writer's name, the node.
WRITER = r"""
set -euo pipefail
notes=/run/load/$1
write() {
    for _ in {1..100}; do
        code=0
        blixard vm "$@" --request-id "$1-$2" --timeout 10 > /dev/null 2> "$notes.error" || code=$?
        case $code in
            0) echo "$1 $2" >> "$notes.acknowledged"; return ;;
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

# Kills this machine's agent and waits until it serves again: active, the same store, a member, and further in
# the log than when it was killed. Prints what it saw as JSON.
# Arguments: how often, the store id, the seed of the moments.
KILLER = r"""
set -euo pipefail
kills=$1 store=$2 RANDOM=$3
opens=0 early=0 slowest=0
milliseconds() { echo $(($(date +%s%N) / 1000000)); }
pid() { systemctl show --property=MainPID --value blixard.service; }
fraction() { printf '0.%03d' $((RANDOM % $1)); }
# Sets `applied`. What it answers has to be right at once; only that it does not answer yet is borne.
serves() {
    local view
    view=$(blixard status --json --timeout 5 2> /dev/null) || return 1
    if ! jq -e --arg store "$store" '.phase == "member" and .store_id == $store' <<< "$view" > /dev/null; then
        echo "after $opens opens: another phase or another store: $view" >&2
        exit 1
    fi
    applied=$(jq .applied <<< "$view")
    systemctl is-active --quiet blixard.service
}
until serves; do sleep 0.02; done
for ((kill = 1; kill <= kills; kill++)); do
    sleep "$(fraction 200)"
    before=$applied victim=$(pid)
    kill -KILL "$victim"
    began=$(milliseconds)
    if ((kill % 4 == 0)); then
        # Once more while it opens the store or has just done so.
        while next=$(pid) && [[ $next == 0 || $next == "$victim" ]]; do sleep 0.002; done
        sleep "$(fraction 50)"
        kill -KILL "$next"
        early=$((early + 1))
    fi
    until serves && ((applied > before)); do
        if (($(milliseconds) - began > 60000)); then
            echo "after $opens opens: not back within 60 s" >&2
            exit 1
        fi
        sleep 0.02
    done
    took=$(($(milliseconds) - began))
    slowest=$((took > slowest ? took : slowest))
    opens=$((opens + 1))
done
echo "{\"opens\": $opens, \"early\": $early, \"slowest_ms\": $slowest}"
"""


def status(machine):
    return json.loads(machine.succeed(STATUS))


def put_script(machine, path, text):
    machine.succeed(f"mkdir -p /run/load && cat > {path} <<'END-OF-SCRIPT'\n{text}\nEND-OF-SCRIPT")


def start_writers(machine):
    put_script(machine, "/run/load/writer.sh", WRITER)
    for number in range(1, WRITERS_PER_NODE + 1):
        writer = f"{machine.name}-{number}"
        machine.succeed(
            f'systemd-run --unit=load-{number} --setenv=PATH="$PATH" "$(command -v bash)"'
            f" /run/load/writer.sh {writer} {machine.name}"
        )


def stop_writers(machine):
    """Lets each writer end its last write, so that nothing is left whose outcome is not known."""
    machine.succeed("touch /run/load/stop")
    for number in range(1, WRITERS_PER_NODE + 1):
        machine.wait_until_succeeds(
            f"test -e /run/load/{machine.name}-{number}.done", timeout=DEADLINE_SECONDS
        )


def lines(machine, suffix):
    """What the machine's writers noted."""
    return machine.succeed(f"cat /run/load/*.{suffix} 2>/dev/null || true").splitlines()


def restarts(machine):
    return int(machine.get_unit_property(UNIT, "NRestarts"))


def kill_agent(machine, kills, seed):
    """Kills the machine's agent this often; each time it has to open the store it had."""
    before = restarts(machine)
    arguments = f"{kills} {stores[machine.name]} {seed}"
    saw = json.loads(machine.succeed(f"bash /run/load/killer.sh {arguments}"))
    t.assertEqual(kills, saw["opens"])
    # Nobody but systemd started it, once for each kill.
    t.assertEqual(before + kills + saw["early"], restarts(machine))
    return saw


def leads(machine):
    """Whether it leads by its own word: others may still call so who was killed a moment ago."""
    code, view = machine.execute(STATUS)
    return code == 0 and json.loads(view)["quorum"] and json.loads(view)["leader"] == machine.name


def leader():
    """Waits until a machine leads; returns it."""
    found = []

    def look(_last):
        found[:] = [machine for machine in machines if leads(machine)]
        return len(found) == 1

    retry(look, timeout_seconds=DEADLINE_SECONDS)
    return found[0]


def expect_exactly(names):
    """Every node has caught up and holds exactly these VMs, by its own store and by the quorum's word."""
    commit = max(status(machine)["commit"] for machine in machines)
    for machine in machines:
        machine.wait_until_succeeds(f"{STATUS} | jq -e '.applied >= {commit}'", timeout=DEADLINE_SECONDS)
        for flag in ("--stale", ""):
            listing = json.loads(machine.succeed(f"blixard vm list --json {flag}"))
            t.assertEqual(sorted(names), [vm["name"] for vm in listing["items"]])


start_all()
for each in machines:
    each.wait_until_succeeds(FORMED, timeout=DEADLINE_SECONDS)
    put_script(each, "/run/load/killer.sh", KILLER)
stores = {each.name: status(each)["store_id"] for each in machines}
lead = leader()
victim = next(each for each in machines if each.name != lead.name)
others = [each for each in machines if each.name != victim.name]
for each in others:
    start_writers(each)

with subtest(f"killed {PATIENT_KILLS} times with the unit as it is: it comes back by itself"):
    log.info(f"saw {kill_agent(victim, PATIENT_KILLS, 1)}")

for each in machines:
    each.succeed(f"mkdir -p $(dirname {DROP_IN}) && printf '[Service]\\nRestartSec=0\\n' > {DROP_IN}")
    each.succeed("systemctl daemon-reload")

with subtest(f"killed {KILLS} times under load: it opens its store every time"):
    opens = early = slowest = 0
    while opens < KILLS:
        saw = kill_agent(victim, min(ROUND_KILLS, KILLS - opens), opens + 1)
        opens += saw["opens"]
        early += saw["early"]
        slowest = max(slowest, saw["slowest_ms"])
        log.info(f"{opens} of {KILLS} opens, {early} more kills while opening, slowest {slowest} ms")

with subtest(f"whoever leads is killed, {LEADER_KILLS} times"):
    killed = []
    for number in range(LEADER_KILLS):
        target = leader()
        kill_agent(target, 1, number + 1)
        killed.append(target.name)
    log.info(f"{LEADER_KILLS} of {LEADER_KILLS} opens of leaders: {' '.join(killed)}")

with subtest("nothing acknowledged is lost, on no node"):
    for each in others:
        stop_writers(each)
    for each in machines:
        each.wait_until_succeeds(FORMED, timeout=DEADLINE_SECONDS)
    writes = [line for each in others for line in lines(each, "acknowledged")]
    created = {line.split()[1] for line in writes if line.startswith("create ")}
    deleted = {line.split()[1] for line in writes if line.startswith("delete ")}
    again = sum(len(lines(each, "again")) for each in others)
    log.info(f"{len(created)} created, {len(deleted)} deleted, {again} writes sent again")
    t.assertGreater(len(writes), KILLS)
    t.assertEqual(len(writes), len(created) + len(deleted))
    expect_exactly(created - deleted)
    for each in machines:
        t.assertEqual(stores[each.name], status(each)["store_id"])
        each.fail(f"journalctl --unit={UNIT} --output=cat | grep -E '{BROKEN}'")
