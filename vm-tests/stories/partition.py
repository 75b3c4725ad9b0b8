# kind = "failover"
# tested = false
# minutes_max = 15
"""A VM's machine is cut off, both ways or one: the VM ends there with the lease, and runs elsewhere.

In one direction nobody is deceived for long: a node that hears nothing learns of no grant, and one that is
not heard is granted nothing. The script runs under the NixOS test driver and in the lab.
"""

web = StoryVm("web")

start_all()
wait_until_formed()
watch_copies()
web.run()

for which, cut, mend in (
    ("nothing passes", lambda machine: machine.block(), lambda machine: machine.unblock()),
    ("nothing arrives at it", stop_arriving, lambda machine: mend_cables()),
    ("nothing that it sends arrives", stop_leaving, lambda machine: mend_cables()),
):
    with subtest(f"{which}: the VM ends with the lease, and runs elsewhere"):
        lost = web.about_to_lose()
        cut(lost)
        web.expect_fenced(lost)
        web.wait_for_takeover()
        web.expect_nothing_on(lost)

    with subtest("the cable is whole again: nothing of the VM comes back"):
        mend(lost)
        web.expect_only_at_home(lost)

expect_no_copy_ran_twice()
