# kind = "members"
# tested = false
# minutes_max = 30
# unlisted = ["n4"]
"""The leader's machine is gone for good: it is removed by force, another joins with a ticket and votes.

Then the first one is found and switched on, with the store it had: it learns that it was removed and disturbs
nobody. Two nodes write all along. The script runs under the NixOS test driver and in the lab.
"""

#: How long a removed node may take to learn it, from its boot on.
LEARNS_WITHIN_SECONDS = 20


def links(machine):
    """Whom the machine has a link to, or tries to have one."""
    request = r"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return machine.succeed(
        f"printf '{request}' | nc -U /run/blixard/blixard.sock"
        """ | sed -n 's/^blixard_net_link_up{peer="\\([^"]*\\)"} .*/\\1/p'"""
    ).split()


listed = [n1, n2, n3]
start_all()
wait_until_formed(listed)
gone = leader_among(listed)
stay = [machine for machine in listed if machine.name != gone.name]
for machine in stay:
    start_writers(machine)
stay[0].succeed(f"blixard vm create lost --node {gone.name} --cpus 1 --memory-mib 64 {GUEST}")

with subtest("it is gone, and not removed by mistake"):
    gone.crash()
    leader_among(stay)
    expect_writes_go_on(stay)
    wait_until_missed(gone, stay)
    expect_refused(stay[0], f"blixard node remove {gone.name}", f"{gone.name} cannot be reached", "--force")
    expect_refused(stay[1], f"blixard node remove {gone.name} --force", f"VMs are placed on {gone.name}")
    t.assertEqual(3, len(voters(stay[0])))

with subtest("removed by force"):
    remove = f"blixard node remove {gone.name} --force --vms delete"
    expect_refused(stay[1], remove, f"VM lost may still run on {gone.name}", "--i-know-it-is-off")
    stay[1].succeed(f"{remove} --i-know-it-is-off")
    wait_until_formed(stay)
    expect_writes_go_on(stay)

with subtest("another joins in its place and votes"):
    n4.succeed(join_with(make_ticket(stay[0], "n4")))
    members = [*stay, n4]
    wait_until_formed(members)
    expect_writes_go_on(stay)

with subtest("the removed one is switched on: it learns it, and neither votes nor reads nor links"):
    gone.start()
    gone.connect()
    began = time.monotonic()
    expect_removed(gone)
    took = time.monotonic() - began
    log.info(f"{gone.name} learned {took:.1f} s after its boot that it was removed")
    t.assertLess(took, LEARNS_WITHIN_SECONDS)
    expect_writes_go_on(stay)
    names = sorted(machine.name for machine in members)
    for machine in members:
        t.assertEqual(names, sorted(voters(machine)))
        t.assertEqual(sorted(set(names) - {machine.name}), sorted(links(machine)))
    t.assertEqual([], links(gone))
    wait_until_formed(members)

with subtest("nothing acknowledged is lost"):
    for machine in stay:
        stop_writers(machine)
    acknowledged += left_by_writers(stay)
    expect_exactly(acknowledged, members)
    wait_for_status(gone, '.phase == "removed"')
