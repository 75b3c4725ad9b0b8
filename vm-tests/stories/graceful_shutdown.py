# kind = "failover"
# tested = false
# minutes_max = 15
"""A machine that shuts down in order gives its guests the time that they need, also those that need a lease.

The guest takes twice as long as a lease to shut down. Its agent goes on meanwhile, and the VM runs elsewhere
once the machine is off. The script runs in the lab.
"""

SECONDS = 20

web = StoryVm("web")

start_all()
wait_until_formed()
watch_copies()
web.run(words=f"blixard.slow={SECONDS}")

with subtest("its guest shuts down by itself before the machine is off"):
    lost = web.home
    lost.shutdown()
    web.about_to_lose()
    web.wait_for_takeover()
    lost.start()
    lost.succeed(
        f"journalctl --unit={web.unit} --output=cat | grep --line-regexp BLIXARD-GUEST-DOWN",
        f"journalctl --unit={AGENT} --output=cat | grep 'the machine shuts down; waiting'",
    )
    wait_until_formed()
    web.expect_only_at_home(lost)

expect_no_copy_ran_twice()
