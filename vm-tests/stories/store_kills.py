# kind = "crashes"
# tested = false
# minutes_max = 30
"""An agent killed again and again under load opens its store every time; nothing acknowledged is lost.

Two nodes write all the while; the third one's agent is killed with SIGKILL at moments spread over the writes,
every few times once more while it is opening its store. systemd alone brings it back. Then it is the leader's
turn, whoever leads. The script runs under the NixOS test driver and in the lab.
"""

import os

#: How often the one agent is killed. The long run: `cargo xtask lab run store_kills --set KILLS=1000`.
KILLS = int(os.environ.get("STORY_KILLS", "100"))
#: How often whoever leads is killed; each time costs an election.
LEADER_KILLS = int(os.environ.get("STORY_LEADER_KILLS", "10"))
#: Kills that wait for the unit's own RestartSec=; for the others it is 0.
PATIENT_KILLS = 3
#: Kills between two looks from outside.
ROUND_KILLS = 50
DROP_IN = f"/run/systemd/system/{AGENT}.d/at-once.conf"
#: What the agent says of a store that it does not open.
BROKEN = "can ?not be (opened|read)|counts as lost"

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


def restarts(machine):
    return int(machine.get_unit_property(AGENT, "NRestarts"))


def kill_agent(machine, kills, seed):
    """Kills the machine's agent this often; each time it has to open the store it had."""
    before = restarts(machine)
    arguments = f"{kills} {stores[machine.name]} {seed}"
    saw = json.loads(machine.succeed(f"bash /run/load/killer.sh {arguments}"))
    t.assertEqual(kills, saw["opens"])
    # Nobody but systemd started it, once for each kill.
    t.assertEqual(before + kills + saw["early"], restarts(machine))
    return saw


def leader():
    """Waits until a machine leads; returns it."""
    found = []

    def look(_last):
        found[:] = [machine for machine in machines if leads(machine)]
        return len(found) == 1

    retry(look, timeout_seconds=DEADLINE_SECONDS)
    return found[0]


start_all()
wait_until_formed()
for each in machines:
    put_file(each, "/run/load/killer.sh", KILLER)
stores = {each.name: status(each)["store_id"] for each in machines}
lead = leader()
victim = others_than(lead)[0]
others = others_than(victim)
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
    wait_until_formed()
    t.assertGreater(sum(len(noted(each, "acknowledged")) for each in others), KILLS)
    expect_exactly(left_by_writers(others))
    for each in machines:
        t.assertEqual(stores[each.name], status(each)["store_id"])
        each.fail(f"journalctl --unit={AGENT} --output=cat | grep -E '{BROKEN}'")
