# kind = "vms"
# tested = true
# minutes_max = 30
"""A VM created through any node shows on every node, and its unit runs on exactly one.

Stopping is graceful and starting keeps the disk: the guest counts its boots there. What has no quorum says
so. The script runs under the NixOS test driver and in the lab.
"""

#: A guest boots without hardware virtualization, three of them at a time.
BOOT_DEADLINE_SECONDS = 180


def make_disk(name):
    """An empty disk for the VM on every node, wherever it will be placed."""
    disk = f"/var/lib/blixard-disks/{name}.img"
    for machine in machines:
        machine.succeed(f"truncate --size=16M {disk} && chmod 0660 {disk} && sync {disk}")
    return disk


def spec(name, memory_mib=256):
    """The flags that describe the VM."""
    return (
        f"{name} --cpus 1 --memory-mib {memory_mib} --disk /var/lib/blixard-disks/{name}.img"
        f" {GUEST} --cmdline 'quiet blixard.name={name}'"
    )


def show(machine, name):
    return json.loads(machine.succeed(f"blixard vm show {name} --json"))


def wait_for_boot(machine, name, number):
    """The guest itself says which boot of its disk this is."""
    line = f"BLIXARD-GUEST-UP name={name} boot={number}"
    machine.wait_until_succeeds(
        f"journalctl --unit=blixard-vm@{name}.service --output=cat | grep -w '{line}'",
        timeout=BOOT_DEADLINE_SECONDS,
    )


def running_on(name):
    """The nodes on which the VM's unit is active, as systemd says."""
    return [m.name for m in machines if m.systemctl(f"is-active --quiet blixard-vm@{name}.service")[0] == 0]


start_all()
wait_until_formed()
names = [f"vm-{machine.name}" for machine in machines]

with subtest("created through any node"):
    for machine, name in zip(machines, names):
        make_disk(name)
        machine.succeed(f"blixard vm run {spec(name)} --timeout {BOOT_DEADLINE_SECONDS}")

with subtest("seen on every node"):
    for machine in machines:
        for name in names:
            runs = f'.items[] | select(.name == "{name}") | .state == "running"'
            machine.wait_until_succeeds(f"blixard vm list --json | jq -e '{runs}'", timeout=DEADLINE_SECONDS)
        listing = json.loads(machine.succeed("blixard vm list --json"))
        t.assertTrue(listing["linearizable"])
        t.assertEqual(names, [vm["name"] for vm in listing["items"]])

with subtest("running on exactly one, spread over all"):
    places = {name: show(n1, name)["node"] for name in names}
    t.assertEqual(set(by_name), set(places.values()))
    for name in names:
        t.assertEqual([places[name]], running_on(name))
        wait_for_boot(by_name[places[name]], name, 1)
        home = by_name[places[name]]
        pid = home.get_unit_property(f"blixard-vm@{name}.service", "MainPID")
        t.assertEqual(pid, str(show(n2, name)["main_pid"]))
        # The console comes from the VM's node, whichever node is asked.
        for machine in machines:
            machine.succeed(f"blixard vm logs {name} | grep 'BLIXARD-GUEST-UP name={name}'")

with subtest("the same request is applied once, another spec is refused"):
    make_disk("twice")
    first = json.loads(n1.succeed(f"blixard vm create {spec('twice')} --request-id twice-1 --json"))
    again = json.loads(n2.succeed(f"blixard vm create {spec('twice')} --request-id twice-1 --json"))
    t.assertEqual(first["node"], again["node"])
    code, _ = n3.execute(f"blixard vm create {spec('twice', memory_mib=128)}")
    t.assertEqual(1, code)
    n3.succeed("blixard vm delete twice")

with subtest("what fits nowhere is refused"):
    code, _ = n1.execute(f"blixard vm create {spec('twice', memory_mib=900000)}")
    t.assertEqual(1, code)

with subtest("stopped gracefully, started with its disk"):
    name = names[0]
    home = by_name[places[name]]
    elsewhere = next(machine for machine in machines if machine.name != home.name)
    elsewhere.succeed(f"blixard vm stop {name}")
    t.assertEqual([], running_on(name))
    t.assertEqual("stopped", show(home, name)["state"])
    home.succeed(f"journalctl --unit=blixard-vm@{name}.service --output=cat | grep BLIXARD-GUEST-DOWN")
    elsewhere.succeed(f"blixard vm start {name} --timeout {BOOT_DEADLINE_SECONDS}")
    wait_for_boot(home, name, 2)
    t.assertEqual([home.name], running_on(name))

with subtest("another spec, stopped gracefully and started with its disk"):
    unit = f"blixard-vm@{name}.service"
    elsewhere.succeed(f"blixard vm set {name} --memory-mib 320 --timeout {BOOT_DEADLINE_SECONDS}")
    wait_for_boot(home, name, 3)
    t.assertEqual([home.name], running_on(name))
    changed = show(elsewhere, name)
    t.assertEqual((320, "running"), (changed["spec"]["memory_mib"], changed["state"]))
    description = home.get_unit_property(unit, "Description")
    order = f"generation {changed['generation']}, revision {changed['revision']}"
    t.assertEqual(f"Blixard VM {name}, {order}", description)
    t.assertEqual(str((320 + 192) * 1024 * 1024), home.get_unit_property(unit, "MemoryMax"))
    # The same again changes nothing: the guest goes on.
    pid = home.get_unit_property(unit, "MainPID")
    home.succeed(f"blixard vm set {name} --memory-mib 320")
    t.assertEqual(pid, home.get_unit_property(unit, "MainPID"))

with subtest("without a quorum nothing lies"):
    leader = status(n1)["leader"]
    alone = next(machine for machine in machines if machine.name != leader)
    local = next(name for name in names if places[name] == alone.name)
    pid = alone.get_unit_property(f"blixard-vm@{local}.service", "MainPID")
    others = others_than(alone)
    make_disk("held")
    alone.succeed(f"blixard vm create {spec('held')} --node {alone.name}")
    alone.block()
    wait_for_status(alone, ".quorum | not")
    code, _ = alone.execute(f"blixard vm stop {local} --timeout 5", timeout=30)
    t.assertEqual(3, code)
    code, _ = alone.execute("blixard vm list --timeout 5", timeout=30)
    t.assertEqual(3, code)
    stale = json.loads(alone.succeed("blixard vm list --stale --json"))
    t.assertFalse(stale["linearizable"])
    t.assertEqual(["held", *names], [vm["name"] for vm in stale["items"]])
    others[0].wait_until_succeeds(
        f"""blixard vm show {local} --json | jq -e '.state == "unknown"'""", timeout=DEADLINE_SECONDS
    )
    # What cannot be known to be gone keeps its name, its disk and its place.
    others[0].succeed("blixard vm delete held --no-wait")
    deleting = """blixard vm show held --json | jq -e '.state == "deleting"'"""
    others[1].wait_until_succeeds(deleting, timeout=DEADLINE_SECONDS)
    code, _ = others[0].execute(f"blixard vm create {spec('held')} --node {others[0].name}")
    t.assertEqual(1, code)
    others[0].succeed(deleting)
    make_disk("meanwhile")
    others[1].succeed(f"blixard vm create {spec('meanwhile')} --node {others[1].name}")
    alone.unblock()
    alone.wait_until_succeeds("blixard vm show meanwhile --json", timeout=DEADLINE_SECONDS)
    alone.wait_until_fails("blixard vm show held --json", timeout=DEADLINE_SECONDS)
    others[0].wait_until_succeeds(
        f"""blixard vm show {local} --json | jq -e '.state == "running"'""", timeout=DEADLINE_SECONDS
    )
    t.assertEqual(pid, alone.get_unit_property(f"blixard-vm@{local}.service", "MainPID"))

with subtest("deleted everywhere"):
    for name in [*names, "meanwhile"]:
        n3.succeed(f"blixard vm delete {name}")
        t.assertEqual([], running_on(name))
    for machine in machines:
        t.assertEqual([], json.loads(machine.succeed("blixard vm list --json"))["items"])
