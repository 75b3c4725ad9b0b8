"""What `cargo xtask chaos` does to a cluster: each fault is begun, goes on for a while, and is ended.

A fault knows whether the hypervisors of the machine that it takes away are alive when it begins. Those are
the ones that can overlap: a machine that loses power takes its hypervisors along.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

from driver import Machine
from telling import RequestedAssertionFailed

AGENT = "blixard.service"
#: The VM whose guest does not hear that it is to shut down: a stop of it takes its whole time.
DEAF = "deaf"


@dataclass
class Field:
    """What a fault may be done to."""

    machines: list[Machine]
    #: The VMs on each machine that run at this moment.
    homes: dict[str, list[str]]
    leader: Machine
    dice: random.Random
    #: The functions that stand before every story.
    common: SimpleNamespace

    def busiest(self) -> Machine:
        """A machine with as many VMs as any."""
        most = max(len(vms) for vms in self.homes.values())
        return self.dice.choice([each for each in self.machines if len(self.homes[each.name]) == most])

    def vm(self, machine: Machine) -> str | None:
        """One of the machine's VMs."""
        return self.dice.choice(sorted(self.homes[machine.name]) or [None])


@dataclass
class Begun:
    """A fault that goes on."""

    #: The machines whose VMs have to end, if it goes on for long enough.
    lost: list[Machine]
    #: What ends it.
    end: Callable[[], None]
    #: Whether the machines that are left can start the VMs of the lost ones.
    is_taken_over: bool = True
    #: Machines whose agent was stopped in order, and so announced a hold: the others wait for it for a while.
    held: list[Machine] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    begin: Callable[[Field], Begun]
    #: How often it is drawn, against the others.
    weight: int = 1
    #: Whether the hypervisors are alive when it begins, and no stop of them is part of it.
    leaves_alive: bool = True
    #: Whether machines, with their VMs, are taken away by it.
    loses_machines: bool = True


_RELOAD = "systemctl daemon-reload"


def _supervisors(machine: Machine) -> list[int]:
    listed = "systemctl show --value --property=MainPID 'blixard-vm@*.service'"
    return [int(pid) for pid in machine.execute(listed)[1].split() if pid != "0"]


def signal_supervisors(machine: Machine, signal: str) -> None:
    """Sends the signal to every supervisor of the machine."""
    pids = " ".join(str(pid) for pid in _supervisors(machine))
    if pids:
        # One of them may have ended since.
        machine.execute(f"kill -{signal} {pids}")


def _power_lost(victim: Machine) -> Begun:
    victim.crash()
    # It starts, unless it runs, and can be talked to.
    return Begun([victim], victim.connect)


def _machine_crashed(field: Field) -> Begun:
    return _power_lost(field.busiest())


def _leader_crashed(field: Field) -> Begun:
    return _power_lost(field.leader)


def _leader_cut_off(field: Field) -> Begun:
    field.leader.block()
    return Begun([field.leader], field.leader.unblock)


def _agent_killed(field: Field) -> Begun:
    victim = field.busiest()
    field.common.take_agent_away(victim)
    return Begun([victim], lambda: field.common.give_agent_back(victim))


def _agent_frozen(field: Field) -> Begun:
    victim = field.busiest()
    victim.succeed(f"systemctl freeze {AGENT}")
    return Begun([victim], lambda: _ended(victim, f"systemctl thaw {AGENT}"))


def _all_frozen(field: Field) -> Begun:
    """The agent is killed, and no supervisor moves: only systemd's watchdog is left."""
    victim = field.busiest()
    signal_supervisors(victim, "STOP")
    field.common.take_agent_away(victim)

    def end() -> None:
        signal_supervisors(victim, "CONT")
        field.common.give_agent_back(victim)

    return Begun([victim], end)


def _unit(vm: str) -> str:
    return f"blixard-vm@{vm}.service"


def _freeze(field: Field, machine: Machine, vm: str) -> list[str]:
    """Freezes a supervisor alone; returns its group, or nothing where it ends by an earlier fault."""
    with contextlib.suppress(RequestedAssertionFailed):
        return [field.common.freeze_supervisor(machine, _unit(vm))]
    return []


def _frozen_groups(also: str) -> Callable[[Field], Begun]:
    """The agent is frozen, and each supervisor alone, in a group of its own: no signal and no stop wakes it.

    Beside that systemd does what is told here, if anything. Freezing the agent does not make it read its
    units again, as masking does.
    """

    def begin(field: Field) -> Begun:
        victim = field.busiest()
        victim.succeed(f"systemctl freeze {AGENT}")
        groups = [group for vm in field.homes[victim.name] for group in _freeze(field, victim, vm)]
        return _stands_still(field, victim, groups, also)

    return begin


def _frozen_in_stop(also: str) -> Callable[[Field], Begun]:
    """The agent is frozen, and a supervisor alone while it waits for a guest that does not hear it."""

    def begin(field: Field) -> Begun:
        victim = next(each for each in field.machines if DEAF in field.homes[each.name])
        victim.succeed(f"systemctl freeze {AGENT}", f"systemctl stop --no-block {_unit(DEAF)}")
        state = f"systemctl show --value --property=StatusText {_unit(DEAF)}"
        with contextlib.suppress(RequestedAssertionFailed):
            victim.wait_until_succeeds(f"{state} | grep 'asked to shut down'", timeout=10)
        return _stands_still(field, victim, _freeze(field, victim, DEAF), also)

    return begin


def _stands_still(field: Field, victim: Machine, groups: list[str], also: str) -> Begun:
    if also:
        victim.succeed(also)

    def end() -> None:
        for group in groups:
            field.common.thaw_group(victim, group)
        _ended(victim, f"systemctl thaw {AGENT}")

    return Begun([victim], end)


def _supervisor_frozen(also: str) -> Callable[[Field], Begun]:
    """A supervisor is frozen alone and stays so: systemd ends its VM, and the agent starts it again there."""

    def begin(field: Field) -> Begun:
        victim = field.busiest()
        vm = field.vm(victim)
        if vm is not None:
            _freeze(field, victim, vm)
        if also:
            victim.succeed(also)
        return Begun([], lambda: None)

    return begin


def _guests_paused(field: Field) -> Begun:
    """Every hypervisor is stopped by a signal and its node cut off; they go on before the cable is whole."""
    victim = field.busiest()
    pattern = "--full 'guest=[a-z]'"
    victim.execute(f"pkill --signal STOP {pattern}")
    victim.block()

    def end() -> None:
        victim.execute(f"pkill --signal CONT {pattern}")
        victim.unblock()

    return Begun([victim], end)


def _cut_off(field: Field) -> Begun:
    victim = field.busiest()
    victim.block()
    return Begun([victim], victim.unblock)


def _nothing_arrives(field: Field) -> Begun:
    victim = field.busiest()
    field.common.stop_arriving(victim)
    return Begun([victim], field.common.mend_cables)


def _nothing_leaves(field: Field) -> Begun:
    victim = field.busiest()
    field.common.stop_leaving(victim)
    return Begun([victim], field.common.mend_cables)


def _quorum_lost(field: Field) -> Begun:
    """Every cable but one is out: nobody can lead, and every VM has to end."""
    cut = field.dice.sample(field.machines, len(field.machines) - 1)
    for machine in cut:
        machine.block()

    def end() -> None:
        for machine in cut:
            machine.unblock()

    return Begun(field.machines, end, is_taken_over=False)


def _harm(what: Callable[[str], str]) -> Callable[[Field], Begun]:
    """Something is done to one VM, by hand, on its machine."""

    def begin(field: Field) -> Begun:
        victim = field.busiest()
        vm = field.vm(victim)
        if vm is not None:
            victim.execute(what(vm))
        return Begun([], lambda: None)

    return begin


def _tell_systemd(command: str) -> Callable[[Field], Begun]:
    def begin(field: Field) -> Begun:
        victim = field.dice.choice(field.machines)
        victim.succeed(command)
        return Begun([], lambda: None)

    return begin


def _agent_restarted(field: Field) -> Begun:
    victim = field.dice.choice(field.machines)
    victim.succeed(f"systemctl restart {AGENT}")
    return Begun([], lambda: None, held=[victim])


def _ended(machine: Machine, command: str) -> None:
    # The agent that is thawed may have been ended by its watchdog meanwhile.
    with contextlib.suppress(RequestedAssertionFailed):
        machine.succeed(command)


def _by_hand(name: str, what: Callable[[str], str]) -> Fault:
    return Fault(name, _harm(what), leaves_alive=False, loses_machines=False)


#: Every kind of fault. Hypervisors that go on without their node are what a cluster can get wrong.
ALL = (
    Fault("machine_crashed", _machine_crashed, weight=2, leaves_alive=False),
    Fault("leader_crashed", _leader_crashed, leaves_alive=False),
    Fault("leader_cut_off", _leader_cut_off, weight=2),
    Fault("agent_killed", _agent_killed, weight=3),
    Fault("agent_frozen", _agent_frozen, weight=3),
    Fault("agent_and_supervisors_frozen", _all_frozen, weight=3),
    Fault("supervisors_frozen_alone", _frozen_groups("")),
    Fault("supervisors_frozen_alone_reload", _frozen_groups(_RELOAD)),
    Fault("frozen_in_stop", _frozen_in_stop(""), weight=2),
    Fault("frozen_in_stop_reload", _frozen_in_stop(_RELOAD), weight=2),
    Fault("supervisor_frozen", _supervisor_frozen(""), leaves_alive=False, loses_machines=False),
    Fault("supervisor_frozen_reload", _supervisor_frozen(_RELOAD), leaves_alive=False, loses_machines=False),
    Fault("guests_paused_and_cut_off", _guests_paused, leaves_alive=False),
    Fault("cut_off", _cut_off, weight=3),
    Fault("nothing_arrives", _nothing_arrives, weight=2),
    Fault("nothing_leaves", _nothing_leaves, weight=2),
    Fault("quorum_lost", _quorum_lost),
    _by_hand("unit_stopped", lambda vm: f"systemctl stop blixard-vm@{vm}.service"),
    _by_hand("hypervisor_killed", lambda vm: f"pkill --signal KILL --full 'guest={vm}[,]'"),
    _by_hand("supervisor_killed", lambda vm: f"pkill --signal KILL --full 'vm-run {vm}$'"),
    Fault("daemon_reload", _tell_systemd(_RELOAD), loses_machines=False),
    Fault("daemon_reexec", _tell_systemd("systemctl daemon-reexec"), loses_machines=False),
    Fault("bus_restarted", _tell_systemd("systemctl restart dbus.service"), loses_machines=False),
    Fault("agent_restarted", _agent_restarted, loses_machines=False),
)
