# kind = "failover"
# tested = true
# minutes_max = 20
"""A VM goes on elsewhere when its node is lost, and never runs twice.

Its machine loses power; its agent is killed and stays away, while the VM and its supervisor go on; both its
agent and its supervisor are gone or frozen, so that only systemd's watchdog is left. Each time the VM is
started on another node, and nothing of it is left on the one before. The script runs under the NixOS test
driver and in the lab.
"""

web = StoryVm("web")

start_all()
wait_until_formed()
watch_copies()

with subtest("a VM without a disk of its own may be failed over, and runs under a lease"):
    web.run()
    t.assertEqual("failover", web.show(n1)["spec"]["on_node_loss"])
    lease = json.loads(web.home.succeed("cat /run/blixard-lease/lease.json"))
    t.assertIn(web.name, lease["vms"])
    t.assertGreater(lease["until_ms"], 0)
    refused = "failover is for a VM without a disk that it writes"
    code, said = n1.execute(
        f"blixard vm create writes --memory-mib 64 {GUEST} --disk /var/lib/blixard-disks/a.img"
        " --on-node-loss failover 2>&1"
    )
    t.assertEqual(2, code)
    t.assertIn(refused, said)

with subtest("an agent that restarts does not disturb it"):
    before = web.supervisor(web.home)
    for _ in range(3):
        web.home.succeed(f"systemctl restart {AGENT}")
        wait_until_formed()
    t.assertEqual(before, web.supervisor(web.home))

with subtest("its machine loses power: another one runs it"):
    lost = web.about_to_lose()
    lost.crash()
    web.wait_for_takeover()
    lost.start()
    web.expect_only_at_home(lost)

with subtest("its agent is gone and it runs on: it ends with its lease, and another machine runs it"):
    lost = web.about_to_lose()
    take_agent_away(lost)
    lost.succeed(web.qemu)
    web.expect_fenced(lost)
    web.wait_for_takeover()
    web.expect_nothing_on(lost)
    give_agent_back(lost)
    web.expect_only_at_home(lost)

with subtest("its supervisor is frozen as well: systemd ends both, and another machine runs it"):
    lost = web.about_to_lose()
    lost.succeed(f"kill -STOP {web.supervisor(lost)}")
    take_agent_away(lost)
    lost.succeed(web.qemu)
    web.expect_fenced(lost)
    t.assertEqual("watchdog", lost.get_unit_property(web.unit, "Result"))
    web.wait_for_takeover()
    give_agent_back(lost)
    web.expect_only_at_home(lost)

with subtest("it is deleted, and gone everywhere; it never ran twice"):
    web.delete()
    expect_no_copy_ran_twice()
