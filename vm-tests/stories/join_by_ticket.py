# kind = "members"
# tested = true
# minutes_max = 30
# unlisted = ["n4", "n5"]
# settings.n1.voter_lost_after_s = 6
# settings.n2.voter_lost_after_s = 6
# settings.n3.voter_lost_after_s = 6
# settings.n4.voter_lost_after_s = 6
# settings.n5.voter_lost_after_s = 6
"""Machines join with a ticket: they keep the whole log, run VMs, and vote in the place of one that is lost.

One gets its ticket on stdin, the other in a file that its configuration names. Two nodes write all along. The
script runs under the NixOS test driver and in the lab.
"""

#: A guest boots without hardware virtualization.
BOOT_DEADLINE_SECONDS = 180
TICKET_FILE = "/etc/blixard/join.ticket"
VM = "web"

listed = [n1, n2, n3]
start_all()
wait_until_formed(listed)
leader = leader_among(listed)
victim = next(machine for machine in listed if machine.name != leader.name)
stay = [machine for machine in listed if machine.name != victim.name]
write(victim, "before-all")
for machine in stay:
    start_writers(machine)

with subtest("one joins with the ticket on stdin; the ticket admits nobody else"):
    second = make_ticket(victim, "n5")
    first = leader.succeed("blixard cluster ticket create").strip()
    wait_for_status(n4, 'any(.waiting_for[]; contains("a ticket"))')
    n4.succeed(join_with(first))
    wait_for_status(n5, '.phase == "forming"')
    expect_refused(n5, join_with(first), "it has admitted n4")
    t.assertIn("it has admitted n4", status(n5)["ticket_problem"])

with subtest("another with a ticket in a file"):
    put_file(n5, TICKET_FILE, second)
    n5.succeed(f"chown blixard {TICKET_FILE} && chmod 0400 {TICKET_FILE}")
    change_settings(n5, join=None, join_ticket_file=TICKET_FILE)
    n5.succeed(f"systemctl restart --no-block {AGENT}")
    wait_until_formed(machines, voters=3)

with subtest("both are replicated to, and do not vote"):
    for machine in machines:
        t.assertEqual([each.name for each in listed], voters(machine))
    write(n4, "by-a-learner")
    for machine in (n4, n5):
        for name in ("before-all", "by-a-learner"):
            machine.wait_until_succeeds(
                f"""blixard vm list --stale --json | jq -e 'any(.items[]; .name == "{name}")'""",
                timeout=DEADLINE_SECONDS,
            )

with subtest("a VM runs on one that joined"):
    n1.succeed(
        f"blixard vm run {VM} --node n4 --cpus 1 --memory-mib 256 {GUEST}"
        f" --cmdline 'quiet blixard.name={VM}' --timeout {BOOT_DEADLINE_SECONDS}"
    )
    n4.succeed(f"systemctl is-active blixard-vm@{VM}.service")
    acknowledged.append(VM)

with subtest("a voter is lost, and a learner votes in its place"):
    victim.crash()
    crashed = f'select(.name == "{victim.name}")'
    for machine in [*stay, n4, n5]:
        wait_for_status(
            machine,
            '([.members[] | select(.role == "voter") | .name] | length) == 3'
            f' and (.members[] | {crashed} | .role) == "learner"',
        )
    expect_writes_go_on(stay)
    write(n5, f"while-{victim.name}-is-lost")

with subtest("it comes back and is replicated to"):
    victim.start()
    wait_until_formed(machines, voters=3)
    t.assertEqual("learner", member_of(victim, victim.name)["role"])
    expect_writes_go_on(stay)

with subtest("nothing acknowledged is lost"):
    for machine in stay:
        stop_writers(machine)
    acknowledged += left_by_writers(stay)
    expect_exactly(acknowledged)
