# kind = "members"
# tested = false
# minutes_max = 30
"""The leader leaves under load, and then the next one is removed, until one member is left: writes go on.

The script runs under the NixOS test driver and in the lab.
"""

#: Longest time that nothing may be acknowledged while a leader leaves.
GAP_SECONDS_MAX = 3

start_all()
wait_until_formed()
first = leader_among(machines)
followers = others_than(first)
for machine in followers:
    start_writers(machine)
expect_writes_go_on(followers)

with subtest("the leader leaves, and another leads"):
    first.succeed("blixard cluster leave")
    second = leader_among(followers)
    wait_until_formed(followers)
    expect_removed(first)
    expect_writes_go_on(followers)
    gap = longest_gap_seconds(followers)
    log.info(f"longest time without an acknowledged write while the leader left: {gap:.2f} s")
    t.assertLess(gap, GAP_SECONDS_MAX)

last = next(machine for machine in followers if machine.name != second.name)

with subtest("one with VMs is not removed"):
    stop_writers(second)
    expect_refused(last, f"blixard node remove {second.name}", f"VMs are placed on {second.name}")
    for name in left_by_writers([second]):
        last.succeed(f"blixard vm delete {name}")

with subtest("of two the leader is removed, and one goes on alone"):
    last.succeed(f"blixard node remove {second.name}")
    wait_until_formed([last])
    expect_removed(second)
    expect_writes_go_on([last])
    gap = longest_gap_seconds([last])
    log.info(f"longest time without an acknowledged write in all: {gap:.2f} s")
    t.assertLess(gap, GAP_SECONDS_MAX)

with subtest("nothing acknowledged is lost, also when it starts again"):
    stop_writers(last)
    acknowledged += left_by_writers([last])
    expect_exactly(acknowledged, [last])
    last.succeed(f"systemctl restart {AGENT}")
    wait_until_formed([last])
    write(last, "alone")
    expect_exactly(acknowledged, [last])
    for machine in (first, second):
        expect_removed(machine)
