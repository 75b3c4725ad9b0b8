# kind = "failover"
# tested = false
# minutes_max = 10
"""A machine stands still as a whole for a minute and goes on: what is not covered, measured.

Nothing in a frozen machine can end its VM, and no other machine can tell it from one that lost power: so the
VM is started elsewhere. When the machine goes on, its copy runs until its supervisor has looked at the clock.
How long that is the judge says; that it ends is asserted here. The script runs under the NixOS test driver
and in the lab.
"""

FROZEN_SECONDS = 60

web = StoryVm("web")

start_all()
wait_until_formed()
watch_copies()
web.run()

with subtest("the machine stands still: its VM runs elsewhere"):
    lost = web.about_to_lose()
    began = time.monotonic()
    freeze_machine(lost)
    web.wait_for_takeover()
    rest = FROZEN_SECONDS - int(time.monotonic() - began)
    web.home.sleep(max(rest, 0))

with subtest("it goes on: its copy ends, and the other one is the one that stays"):
    thaw_machine(lost)
    web.wait_until_gone_from(lost)
    web.expect_only_at_home(lost)

if judge is not None:
    tell_moves()
    for overlap in judge.overlaps():
        log.info(f"both copies of {overlap.first.vm} ran for {overlap.length_ms:.0f} ms")
