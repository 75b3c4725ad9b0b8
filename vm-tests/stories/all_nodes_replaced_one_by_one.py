# kind = "members"
# tested = false
# minutes_max = 30
# unlisted = ["n4", "n5"]
"""Every machine of a cluster is replaced by one that joins with a ticket, under load: nothing is lost.

The last one that comes is the first machine, with an empty disk and no list of members. The script runs under
the NixOS test driver and in the lab.
"""

listed = [n1, n2, n3]
start_all()
wait_until_formed(listed)
first_stores = {status(machine)["store_id"] for machine in listed}
cluster_id = status(n1)["cluster_id"]


def admit(new, members):
    """The node joins with a ticket; these are the members then, of which three vote."""
    new.succeed(join_with(make_ticket(n3, new.name)))
    wait_until_formed(members, voters=3)


def leave(old, members):
    """The node leaves; these are left, and all of them vote."""
    old.succeed("blixard cluster leave")
    wait_until_formed(members)
    expect_removed(old)
    expect_writes_go_on([n4])


with subtest("one comes in the place of the first"):
    admit(n4, [*listed, n4])
    for machine in (n2, n4):
        start_writers(machine, on=n4)
    for machine in (n1, n2, n3, n4):
        write(machine, f"by-{machine.name}", on=n4)
    expect_writes_go_on([n2, n4])
    leave(n1, [n2, n3, n4])

with subtest("another in the place of the second"):
    admit(n5, [n2, n3, n4, n5])
    stop_writers(n2)
    acknowledged += left_by_writers([n2])
    start_writers(n5)
    leave(n2, [n3, n4, n5])

with subtest("the first, with an empty disk, in the place of the third"):
    n1.succeed(f"systemctl stop {AGENT} && rm {STORE}")
    change_settings(n1, members=None, join=True)
    n1.succeed(f"systemctl start --no-block {AGENT}")
    wait_for_status(n1, 'any(.waiting_for[]; contains("a ticket"))')
    admit(n1, [n1, n3, n4, n5])
    write(n3, "last-by-n3", on=n1)
    leave(n3, [n1, n4, n5])

with subtest("nothing is left of the first stores, and nothing acknowledged is lost"):
    members = [n1, n4, n5]
    for machine in (n4, n5):
        stop_writers(machine)
    acknowledged += left_by_writers([n4, n5])
    expect_exactly(acknowledged, members)
    for machine in members:
        view = status(machine)
        t.assertEqual(cluster_id, view["cluster_id"])
        t.assertEqual(set(), first_stores & {each["store_id"] for each in view["members"]})
