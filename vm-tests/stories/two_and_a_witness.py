# kind = "members"
# tested = false
# minutes_max = 30
# settings.n3.role = "witness"
"""Two machines that run VMs, and a witness: it votes and keeps the log, and is never given a VM.

With it the two go on when one of them crashes, whichever led. The script runs under the NixOS test driver and
in the lab.
"""

start_all()
wait_until_formed()

with subtest("it votes"):
    t.assertEqual(["n1", "n2", "n3"], voters(n2))

with subtest("it is never given a VM"):
    expect_refused(
        n1, f"blixard vm create pinned --node n3 --cpus 1 --memory-mib 64 {GUEST}", "a witness runs no VMs"
    )
    for number in range(4):
        write(machines[number % len(machines)], f"anywhere-{number}")
    listing = json.loads(n3.succeed("blixard vm list --json"))
    t.assertEqual({"n1", "n2"}, {vm["node"] for vm in listing["items"]})

for machine in (n2, n3):
    start_writers(machine, on=n2)
expect_writes_go_on([n2, n3])

with subtest("one of the two crashes: the other goes on with the witness"):
    n1.crash()
    leader_among([n2, n3])
    expect_writes_go_on([n2, n3])
    # A machine that died a moment ago is still given VMs.
    wait_until_missed(n1, [n2, n3])
    write(n3, "while-n1-is-down")
    shown = json.loads(n2.succeed("blixard vm show while-n1-is-down --json"))
    t.assertEqual("n2", shown["node"])
    for machine in (n2, n3):
        stop_writers(machine)
    acknowledged += left_by_writers([n2, n3])
    expect_exactly(acknowledged, [n2, n3])

with subtest("it comes back and has everything"):
    n1.start()
    wait_until_formed()
    expect_exactly(acknowledged)
    t.assertEqual(0, member_of(n1, "n3")["vms"])
