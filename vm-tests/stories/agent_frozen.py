# kind = "failover"
# tested = false
# minutes_max = 15
"""An agent that stands still and is not dead: its VMs end with its lease, and nothing of them comes back.

Once by the freezer, which systemd knows of and suspends the agent's watchdog for, and once by a signal. The
supervisor and the hypervisor go on meanwhile. When the agent goes on it still believes what it knew before.
The script runs under the NixOS test driver and in the lab.
"""

web = StoryVm("web")

start_all()
wait_until_formed()
watch_copies()
web.run()

for how, stop, go_on in (
    ("by the freezer", "freeze", "thaw"),
    ("by a signal", "kill --signal=STOP", "kill --signal=CONT"),
):
    with subtest(f"the agent stands still {how}: its VM ends with the lease, and runs elsewhere"):
        lost = web.about_to_lose()
        lost.succeed(f"systemctl {stop} {AGENT}", web.qemu)
        web.expect_fenced(lost)
        web.wait_for_takeover()
        web.expect_nothing_on(lost)

    with subtest("it goes on: nothing of the VM comes back"):
        lost.succeed(f"systemctl {go_on} {AGENT}")
        web.expect_only_at_home(lost)

expect_no_copy_ran_twice()
