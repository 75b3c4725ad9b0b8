# kind = "recovery"
# tested = true
# minutes_max = 30
"""Two of three disks break for good: the last node goes on alone when it is told to, with all that it had.

Its writers go on trying meanwhile, under the same request ids. The two others come back with empty disks and
vote again. The script runs under the NixOS test driver and in the lab.
"""

RECOVER = "blixard cluster recover"

start_all()
wait_until_formed()
for machine in machines:
    write(machine, f"by-{machine.name}")
# The leader has everything that was ever acknowledged.
last = leader_among(machines)
lost = others_than(last)
start_writers(last)
expect_writes_go_on([last])
old = status(last)

with subtest("two are lost, and with them the quorum"):
    for machine in lost:
        lose_disk(machine)
    wait_for_status(last, ".quorum | not")
    code, _ = last.execute(f"blixard vm create refused --memory-mib 64 {GUEST} --timeout 5", timeout=30)
    t.assertEqual(3, code)

with subtest("it is not given up by mistake"):
    expect_refused(last, f"{RECOVER} --i-know-the-others-are-gone", "an agent runs")
    last.succeed(f"systemctl stop {AGENT}")
    before = last.succeed(f"sha256sum {STORE}; ls /var/lib/blixard")
    expect_refused(last, RECOVER, "all other members are given up", "--i-know-the-others-are-gone")
    t.assertEqual(before, last.succeed(f"sha256sum {STORE}; ls /var/lib/blixard"))

with subtest("the last one goes on alone"):
    told = last.succeed(f"{RECOVER} --i-know-the-others-are-gone")
    t.assertIn("given up: 2 members", told)
    last.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed([last])
    t.assertNotEqual(old["cluster_id"], status(last)["cluster_id"])
    expect_writes_go_on([last])

with subtest("the others come with empty disks and vote again"):
    for machine in lost:
        machine.start()
    wait_until_formed()
    expect_writes_go_on([last])
    new = status(last)
    t.assertEqual(1, len({status(machine)["cluster_id"] for machine in machines}))
    t.assertGreater(
        min(each["raft_id"] for each in new["members"]), max(each["raft_id"] for each in old["members"])
    )

with subtest("everything acknowledged is there, each write once"):
    stop_writers(last)
    acknowledged += left_by_writers([last])
    expect_exactly(acknowledged)
    for machine in machines:
        write(machine, f"again-by-{machine.name}")
    expect_exactly(acknowledged)
