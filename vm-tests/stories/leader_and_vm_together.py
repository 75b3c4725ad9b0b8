# kind = "failover"
# tested = false
# minutes_max = 15
"""A VM's machine is lost that also led the cluster: the next leader waits for every lease, then the VM runs.

Once it loses power and once its network, with the hypervisor alive. The script runs under the NixOS test
driver and in the lab.
"""


def run_on_leader(name):
    """A VM on the machine that leads: it has the most room, since something is reserved on each other one."""
    leader = leader_among(machines)
    for machine in others_than(leader):
        write(machine, f"reserved-{name}-{machine.name}", on=machine)
    vm = StoryVm(name)
    vm.run()
    for machine in others_than(leader):
        forget(machine, f"reserved-{name}-{machine.name}")
    t.assertEqual(leader, vm.home)
    return vm


start_all()
wait_until_formed()
watch_copies()

for name, what, lose, bring_back in (
    ("web", "power", lambda machine: machine.crash(), lambda machine: machine.start()),
    ("dns", "its network", lambda machine: machine.block(), lambda machine: machine.unblock()),
):
    with subtest(f"the leader loses {what}, and ran the VM: another leads, and another runs it"):
        vm = run_on_leader(name)
        lost = vm.about_to_lose()
        t.assertTrue(leads(lost))
        lose(lost)
        leader_among(others_than(lost))
        vm.wait_for_takeover()
        bring_back(lost)
        vm.expect_only_at_home(lost)
        vm.delete()

expect_no_copy_ran_twice()
