# kind = "failover"
# tested = true
# minutes_max = 20
"""A VM goes on elsewhere when its node is lost, and never runs twice.

Its machine loses power; its agent is killed and stays away, while the VM and its supervisor go on; both its
agent and its supervisor are gone or frozen, so that only systemd's watchdog is left. Each time the VM is
started on another node, and nothing of it is left on the one before. The script runs under the NixOS test
driver and in the lab.
"""

#: How long a lease holds.
LEASE_SECONDS = 10
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
    expect_refused(
        n1,
        f"blixard vm create writes --memory-mib 64 {GUEST} --disk /var/lib/blixard-disks/a.img"
        " --on-node-loss failover",
        "failover is for a VM whose disks other nodes have as well",
    )

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

# Last: others wait for what an agent has announced before it ended, also when its machine is lost then.
with subtest("an agent that restarts, or is stopped for longer than a lease, does not disturb it"):
    before = web.supervisor(web.home)
    for _ in range(2):
        web.home.succeed(f"systemctl restart {AGENT}")
        wait_until_formed()
    web.home.succeed(f"systemctl stop {AGENT}")
    later = int(web.home.succeed("cut -d. -f1 /proc/uptime")) + LEASE_SECONDS + 2
    web.home.wait_until_succeeds(f"test $(cut -d. -f1 /proc/uptime) -ge {later}", timeout=60)
    web.home.succeed(f"systemctl start {AGENT}")
    wait_until_formed()
    t.assertEqual(before, web.supervisor(web.home))

with subtest("each node acknowledges that the cluster is disarmed"):
    n1.succeed("blixard cluster disarm --for 10m")
    disarmed = status(n1)["disarmed"]
    t.assertEqual([], disarmed["waits_for"])
    lease = json.loads(web.home.succeed("cat /run/blixard-lease/lease.json"))
    now = float(web.home.succeed("cut -d' ' -f1 /proc/uptime"))
    t.assertGreater(lease["until_ms"] / 1000, now + 500)
    n1.succeed("blixard cluster arm")
    t.assertIsNone(status(n1)["disarmed"])

with subtest("it is deleted, and gone everywhere; it never ran twice"):
    web.delete()
    expect_no_copy_ran_twice()
