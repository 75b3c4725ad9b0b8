import json
import random
import subprocess
import unittest
from unittest import mock

import chaos
import faults
import judge
import ledger
from judge import Copy, Heard, Run

WEB_1 = Copy("web", "n1", 100, 7)
WEB_2 = Copy("web", "n2", 200, 8)
DNS_2 = Copy("dns", "n2", 400, 9)
KINDS = {kind.name: kind for kind in faults.ALL}


def done(name, began_ms, is_held=False):
    return chaos.Done(KINDS[name], began_ms, began_ms + 500, is_held)


class Counted(unittest.TestCase):
    def test_a_failover_counts_for_the_fault_before_it(self):
        said = mock.Mock(done=[done("cut_off", 1000), done("machine_crashed", 40_000)])
        runs = [Run(WEB_1, 0, 9000), Run(WEB_2, 19_000, 40_050), Run(WEB_1, 58_000, 60_000)]
        counted = chaos._counted(said, judge.Record(runs))
        self.assertEqual({"times": 1, "failovers": 1, "longest_gap_ms": 10_000}, counted["faults"]["cut_off"])
        self.assertEqual(1, counted["faults"]["machine_crashed"]["failovers"])
        self.assertEqual(1, counted["failovers_of_living"])
        self.assertEqual({"median": 8000, "most": 8000}, counted["ended_after_ms"])
        self.assertEqual({"median": 18_000, "most": 18_000}, counted["started_after_ms"])

    def test_one_that_waited_for_a_hold_is_told_apart(self):
        said = mock.Mock(done=[done("agent_restarted", 0), done("cut_off", 1000, is_held=True)])
        counted = chaos._counted(said, judge.Record([Run(WEB_1, 0, 9000), Run(WEB_2, 131_000, 140_000)]))
        self.assertIsNone(counted["started_after_ms"])
        self.assertEqual({"median": 130_000, "most": 130_000}, counted["started_after_hold_ms"])

    def test_an_overlap_is_told_with_the_fault_before_it(self):
        record = judge.Record([Run(WEB_1, 0, 9000), Run(WEB_2, 8000, 9500)])
        said = mock.Mock(done=[done("agent_frozen", 2000)], writers=[])
        told = ["web ran on n1 and n2 for 1000 ms, 6.0 s after agent_frozen"]
        self.assertEqual(told, chaos._told(record, said))

    def test_an_overlap_of_heartbeats_is_told_and_who_was_never_heard(self):
        heard = [Heard(WEB_1, "web", "n1", 0, 9.0, (8000, 9000)), Heard(WEB_2, "web", "n2", 0, 1.0, (8500,))]
        record = judge.Record([Run(DNS_2, 0, 30_000)], heard)
        said = mock.Mock(done=[done("agent_frozen", 2000)], writers=[])
        beat, silent = chaos._told(record, said)
        self.assertEqual("web beat on n1 and n2 for 0 ms, 6.5 s after agent_frozen", beat)
        self.assertEqual("dns ran on n2 for 30 s and was never heard", silent)


WELL = {
    "overlaps": 0,
    "heartbeat_overlaps": 0,
    "silent_copies": 0,
    "strange_heartbeats": 0,
    "lost_writes": 0,
    "ended": True,
}
TWICE = {"overlaps": 1, "heartbeat_overlaps": 2}


class Ends(unittest.TestCase):
    def test_a_run_passes_when_neither_verdict_has_an_overlap_and_everybody_was_heard(self):
        self.assertTrue(chaos._is_ok(WELL, False))
        for key in WELL:
            other = False if key == "ended" else 1
            self.assertFalse(chaos._is_ok(WELL | {key: other}, False), key)

    def test_a_control_run_passes_when_both_verdicts_have_overlaps(self):
        self.assertTrue(chaos._is_ok(WELL | TWICE, True))
        for change in ({"overlaps": 0}, {"heartbeat_overlaps": 0}, {"lost_writes": 1}, {"silent_copies": 1}):
            self.assertFalse(chaos._is_ok(WELL | TWICE | change, True), change)

    def test_a_run_that_broke_off_before_the_judge_spoke_does_not_pass(self):
        self.assertFalse(chaos._is_ok({"ended": False}, False))


class Kinds(unittest.TestCase):
    def test_kinds_have_names_of_their_own(self):
        self.assertEqual(len(faults.ALL), len(KINDS))


class FrozenAlone(unittest.TestCase):
    def test_systemd_reads_its_units_again_only_where_that_is_part_of_the_fault(self):
        for name in ("supervisors_frozen_alone", "frozen_in_stop"):
            for ending, times in (("", 0), ("_reload", 1)):
                machine, common = mock.Mock(), mock.Mock()
                machine.name = "n1"
                homes = {"n1": [faults.DEAF]}
                field = faults.Field([machine], homes, machine, random.Random(1), common)
                begun = KINDS[name + ending].begin(field)
                told = [command for call in machine.succeed.call_args_list for command in call.args]
                self.assertEqual(times, sum("daemon-reload" in command for command in told), name + ending)
                # Masking reloads as well.
                common.take_agent_away.assert_not_called()
                common.freeze_supervisor.assert_called_once_with(machine, "blixard-vm@deaf.service")
                begun.end()
                common.thaw_group.assert_called_once_with(machine, common.freeze_supervisor.return_value)


class Reads(unittest.TestCase):
    """What a writer makes of an answer, when five was acknowledged."""

    def read(self, cmdline, linearizable=True):
        vms = [{"name": "ledger-1", "spec": {"cmdline": cmdline}}, {"name": "web", "spec": {}}]
        listing = json.dumps({"linearizable": linearizable, "items": vms})
        writer = ledger.Writer("ledger-1", lambda: [mock.Mock()], 1)
        writer.tally.acknowledged = 5
        with mock.patch.object(subprocess, "run", return_value=mock.Mock(returncode=0, stdout=listing)):
            self.assertTrue(writer.read())
        return writer.tally.lost

    def test_what_was_acknowledged_is_there_and_the_next_may_be(self):
        self.assertEqual([], self.read("quiet count=5"))
        self.assertEqual([], self.read("count=6"))

    def test_less_is_lost_and_more_was_never_asked_for(self):
        for cmdline in ("count=4", "count=7", ""):
            self.assertEqual(1, len(self.read(cmdline)), cmdline)
        self.assertEqual(1, len(self.read("count=5", linearizable=False)))

    def test_no_answer_is_no_read(self):
        writer = ledger.Writer("ledger-1", lambda: [mock.Mock()], 1)
        with mock.patch.object(subprocess, "run", return_value=mock.Mock(returncode=3)):
            self.assertFalse(writer.read())
        self.assertEqual((0, []), (writer.tally.reads, writer.tally.lost))
