# kind = "failover"
# tested = false
# minutes_max = 15
# settings.n1.hold_s = 30
# settings.n2.hold_s = 30
# settings.n3.hold_s = 30
"""What an agent says last, and how long the others wait then, depends on how it ends.

Told to stop, it announces that its VMs run on for a while, and the others wait for that. Where no quorum
hears it, and where the configuration wants none of it, they end with the lease. A machine that shuts down
announces nothing: its VMs run elsewhere as soon as those of one that lost power. The last line says when VMs
end, if any go on. The script runs under the NixOS test driver and in the lab.
"""

#: How long a lease holds, and what is announced for an agent that is stopped (`hold_s`).
LEASE_SECONDS = 10
HOLD_SECONDS = 30
#: How long the agent may take to end after it has announced that.
ENDING_SECONDS = 15
LAST_WORD = "VMs here that may be failed over end in "
NOT_TAKEN = "no quorum has taken it in time that VMs run on here"

web = StoryVm("web")


def said(machine, which):
    """The lines of the agent itself, and not those of systemd about it."""
    return machine.succeed(f"journalctl _SYSTEMD_UNIT={AGENT} --output=cat {which}").splitlines()


def stop_agent(machine):
    """Stops the agent in order; returns what it said meanwhile."""
    shown = machine.succeed("journalctl --lines=0 --show-cursor --quiet")
    cursor = shown.split("-- cursor: ")[1].strip()
    machine.succeed(f"systemctl stop {AGENT}")
    return said(machine, f"--after-cursor='{cursor}'")


def seconds_told(lines):
    """After how long VMs end, as the last line says."""
    log.info(lines[-1])
    t.assertTrue(lines[-1].startswith(LAST_WORD), lines)
    return int(lines[-1].removeprefix(LAST_WORD).split()[0])


def expect_lost_with_lease(lost, lines):
    """The VM ends when the last line says, and runs elsewhere without a longer wait."""
    t.assertLessEqual(seconds_told(lines), LEASE_SECONDS)
    web.expect_fenced(lost)
    web.wait_for_takeover()


start_all()
wait_until_formed()
watch_copies()
web.run()

with subtest("no quorum hears that the agent stops: it says so, and last that VMs end with the lease"):
    lost = web.about_to_lose()
    lost.block()
    lines = stop_agent(lost)
    t.assertEqual(1, len([line for line in lines if NOT_TAKEN in line]), lines)
    expect_lost_with_lease(lost, lines)
    lost.unblock()
    give_agent_back(lost)
    web.expect_only_at_home(lost)

with subtest("the machine shuts down: nothing is announced, and nothing said of it"):
    lost = web.about_to_lose()
    lost.shutdown()
    web.wait_for_takeover()
    lost.start()
    web.expect_only_at_home(lost)
    lines = said(lost, "--boot=-1")
    t.assertIn("stopped", lines)
    t.assertEqual([], [line for line in lines if LAST_WORD in line or NOT_TAKEN in line])

with subtest("the configuration wants no VM to run on: the last line says that they end with the lease"):
    # Killed, because one that is told to stop announces what it was configured to.
    change_settings(web.home, hold_s=0)
    web.home.succeed(f"systemctl kill --signal=KILL {AGENT}")
    wait_until_formed()
    wait_for_lease(web.home)
    lost = web.about_to_lose()
    lines = stop_agent(lost)
    t.assertEqual([], [line for line in lines if NOT_TAKEN in line])
    expect_lost_with_lease(lost, lines)
    give_agent_back(lost)
    web.expect_only_at_home(lost)

with subtest("an agent that is told to stop announces how long VMs run on; after that they run elsewhere"):
    lost = web.about_to_lose()
    lines = stop_agent(lost)
    t.assertEqual([], [line for line in lines if NOT_TAKEN in line])
    seconds = seconds_told(lines)
    t.assertLessEqual(seconds, HOLD_SECONDS)
    t.assertGreater(seconds, HOLD_SECONDS - ENDING_SECONDS)
    web.expect_fenced(lost, held_seconds=HOLD_SECONDS - LEASE_SECONDS)
    web.wait_for_takeover(held_seconds=HOLD_SECONDS - LEASE_SECONDS)
    give_agent_back(lost)
    web.expect_only_at_home(lost)

expect_no_copy_ran_twice()
