# kind = "recovery"
# tested = false
# minutes_max = 30
"""All disks break: a backup that was made under load has everything that was acknowledged before it.

It is restored on one node, the two others are admitted. A damaged file is refused, and one of another cluster
unless that is meant. The script runs under the NixOS test driver and in the lab.
"""

BACKUP = "/var/lib/blixard-backup/monday"
RESTORE = "blixard cluster restore --i-know-the-others-are-stopped"

start_all()
wait_until_formed()
# A follower: what it backs up, it asks the quorum for.
home = next(machine for machine in machines if not leads(machine))
others = others_than(home)
for machine in others:
    start_writers(machine)
expect_writes_go_on(others)
for machine in machines:
    write(machine, f"before-by-{machine.name}")
before = sorted(acknowledged)
old = status(home)

with subtest("a backup under load"):
    home.succeed(f"mkdir -p -m 0700 $(dirname {BACKUP})")
    header = json.loads(home.succeed(f"blixard cluster backup {BACKUP} --json"))
    t.assertEqual((old["cluster_id"], True), (header["cluster_id"], header["linearizable"]))
    expect_writes_go_on(others)
    for machine in others:
        stop_writers(machine)
    left_by_writers(others)

with subtest("all disks break; a damaged backup is refused"):
    for machine in machines:
        machine.succeed(f"systemctl stop {AGENT} && rm {STORE}")
    home.succeed(
        f"cp {BACKUP} {BACKUP}.cut && truncate --size=-1 {BACKUP}.cut",
        f"cp {BACKUP} {BACKUP}.flipped && printf '\\377' |"
        f" dd of={BACKUP}.flipped bs=1 seek=$(($(stat -c %s {BACKUP}) / 2)) conv=notrunc status=none",
    )
    for damage in ("cut", "flipped"):
        expect_refused(home, f"{RESTORE} {BACKUP}.{damage}", "damaged")
    home.fail(f"test -e {STORE}")

with subtest("restored on one, the others are admitted"):
    told = home.succeed(f"{RESTORE} {BACKUP}")
    t.assertIn("given up: 2 members", told)
    home.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed([home])
    for machine in others:
        machine.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed()
    t.assertNotEqual(old["cluster_id"], status(home)["cluster_id"])

with subtest("everything acknowledged before the backup is there, on each"):
    listing = json.loads(home.succeed("blixard vm list --json"))
    restored = [vm["name"] for vm in listing["items"]]
    t.assertLessEqual(set(before), set(restored))
    for machine in machines:
        write(machine, f"after-by-{machine.name}")
        restored.append(f"after-by-{machine.name}")
    expect_exactly(restored)

with subtest("another cluster takes it only when that is meant"):
    for machine in machines:
        machine.succeed(f"systemctl stop {AGENT}")
    home.succeed(f"rm {STORE}")
    itself = {home.name: settings_of(home)["members"][home.name]}
    change_settings(home, cluster_name="other", members=itself)
    home.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed([home])
    home.succeed(f"systemctl stop {AGENT}")
    expect_refused(home, f"{RESTORE} {BACKUP} --config {CHANGED_CONFIG}", "--as-new")
    home.succeed(f"{RESTORE} {BACKUP} --config {CHANGED_CONFIG} --as-new")
    home.succeed(f"systemctl start --no-block {AGENT}")
    wait_until_formed([home])
    t.assertEqual("other", status(home)["cluster_name"])
    listing = json.loads(home.succeed("blixard vm list --json"))
    t.assertLessEqual(set(before), {vm["name"] for vm in listing["items"]})
