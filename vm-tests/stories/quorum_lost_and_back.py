# kind = "failover"
# tested = false
# minutes_max = 15
"""No majority is left: VMs that may be failed over end by themselves, those that are kept go on.

One machine loses the network and another one power, so that nobody can lead. What comes back takes the VMs
up once. The script runs under the NixOS test driver and in the lab.
"""

web = StoryVm("web")
kept = StoryVm("kept")

start_all()
wait_until_formed()
watch_copies()
web.run()
home = web.home
kept.run(f"--node {home.name}")
t.assertEqual("keep", kept.show(home)["spec"]["on_node_loss"])

with subtest("two of three are gone: one VM ends with the lease, the other does not notice"):
    before = kept.supervisor(home)
    cut_off, crashed = others_than(home)
    web.about_to_lose()
    cut_off.block()
    crashed.crash()
    web.expect_fenced(home)
    wait_for_status(home, ".quorum | not")
    home.succeed(kept.qemu)
    t.assertEqual(before, kept.supervisor(home))
    # Nothing may be started before there is a leader again.
    home.fail(f"systemctl start {web.unit} && {web.qemu}")

with subtest("they come back: it runs again, once, and the other went on"):
    cut_off.unblock()
    crashed.start()
    wait_until_formed()
    web.wait_until_runs()
    t.assertEqual(before, kept.supervisor(home))
    t.assertEqual(home.name, kept.show(home)["node"])

expect_no_copy_ran_twice()
