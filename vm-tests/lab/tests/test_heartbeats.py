import json
import tempfile
import unittest
from pathlib import Path

import heartbeats
import judge
import listening
from judge import Copy, Heard, Run

WEB_1 = Copy("web", "n1", 100, 7)
WEB_2 = Copy("web", "n2", 200, 8)


def heard(copy, *at_ms, up_s=1.0, boot=1, vm=None, node=None):
    return Heard(copy, vm or copy.vm, node or copy.node, boot, up_s, at_ms)


def record(*all_heard, runs=()):
    return judge.Record(list(runs), list(all_heard))


class Overlaps(unittest.TestCase):
    def test_one_copy_after_the_other_is_no_overlap(self):
        said = record(heard(WEB_1, 0, 100, 200), heard(WEB_2, 300, 400), heard(Copy("dns", "n2", 9, 9), 100))
        self.assertEqual([], heartbeats.overlaps(said))

    def test_heartbeats_of_two_copies_one_between_the_others_are_one(self):
        found = heartbeats.overlaps(record(heard(WEB_1, 0, 100, 200), heard(WEB_2, 150, 250)))
        self.assertEqual([(150, 200)], [(each.from_ms, each.to_ms) for each in found])
        self.assertEqual([(WEB_1, WEB_2)], [(each.first, each.second) for each in found])

    def test_a_single_heartbeat_of_a_copy_that_went_on_is_one(self):
        said = record(heard(WEB_1, 0, 100), heard(WEB_2, *range(30_000, 70_000, 100)), heard(WEB_1, 60_050))
        self.assertEqual([60_050], [each.from_ms for each in heartbeats.overlaps(said)])

    def test_two_that_were_heard_in_the_same_look_are_one(self):
        self.assertEqual(1, len(heartbeats.overlaps(record(heard(WEB_1, 0, 100), heard(WEB_2, 100, 200)))))

    def test_two_are_told_apart_by_their_own_words(self):
        twice = record(heard(WEB_1, 0, 200), heard(Copy("dns", "n1", 5, 5), 100, vm="web", node="n2"))
        self.assertEqual(["n2"], [each.second.node for each in heartbeats.overlaps(twice)])


class Lately(unittest.TestCase):
    def test_who_was_heard_since_then_is_named_with_its_node(self):
        said = record(heard(WEB_1, 0, 400), heard(Copy("dns", "n1", 5, 5), 500, 600))
        self.assertEqual({("dns", "n1")}, heartbeats.heard_since(said, 550))


class Doubts(unittest.TestCase):
    def test_a_hypervisor_that_ran_for_long_without_being_heard_is_silent(self):
        parts = [Run(WEB_1, 0, 15_000), Run(WEB_1, 20_000, 26_000), Run(WEB_2, 30_000, 49_000)]
        told = ["web ran on n1 for 21 s and was never heard"]
        self.assertEqual(told, heartbeats.silent(record(runs=parts)))
        self.assertEqual([], heartbeats.silent(record(heard(WEB_1, 25_000), runs=parts)))

    def test_who_says_to_be_another_is_strange(self):
        for other in ({"vm": "dns"}, {"node": "n2"}):
            self.assertEqual(1, len(heartbeats.strange(record(heard(WEB_1, 0, **other)))))

    def test_one_hypervisor_boots_one_guest_once(self):
        first = heard(WEB_1, 0, up_s=9.0)
        for later in (heard(WEB_1, 500, up_s=3.0), heard(WEB_1, 500, up_s=9.5, boot=2)):
            self.assertEqual(1, len(heartbeats.strange(record(first, later))))
        self.assertEqual([], heartbeats.strange(record(first, heard(WEB_1, 500, up_s=9.5))))


class Verdict(unittest.TestCase):
    def test_a_gap_is_between_heartbeats_of_a_vm_and_a_pause_between_those_of_a_copy(self):
        runs = [Run(WEB_1, 0, 500), Run(WEB_2, 5000, 9000)]
        said = heartbeats.verdict(record(heard(WEB_1, 300, 500), heard(WEB_2, 6000, 8000, 8100), runs=runs))
        self.assertEqual((5, 1, 0), tuple(said[key] for key in (
            "heartbeats", "heartbeat_failovers", "heartbeat_overlaps"
        )))
        self.assertEqual((5500, 2000, 1000), tuple(said[key] for key in (
            "longest_heartbeat_gap_ms", "longest_heartbeat_pause_ms", "longest_until_heard_ms"
        )))
        self.assertEqual(0, heartbeats.verdict(record())["heartbeats"])


class Listening(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = Path(scratch.name) / "100"
        (self.home / "root" / "run").mkdir(parents=True)
        self.file = self.home / "root" / "run" / "heartbeats"
        words = (b"qemu", b"-chardev", b"file,id=heartbeats,path=/run/heartbeats", b"")
        (self.home / "cmdline").write_bytes(b"\0".join(words))
        self.listener = listening.Listener(Path(scratch.name), WEB_1)
        self.addCleanup(self.listener.close)

    def say(self, text):
        with self.file.open("ab") as file:
            file.write(text)

    def read(self):
        return judge.read(json.dumps(said) + "\n" for said in self.listener.written())

    def test_each_line_gets_the_time_of_the_look_that_finds_it(self):
        self.listener.listen(0.0)
        self.say(b"web 3 n1 5.10\nweb 3 n1 5.20\nweb 3 n1")
        self.listener.listen(30.0)
        self.say(b" 5.30\n")
        self.listener.listen(60.0)
        self.assertEqual([heard(WEB_1, 30.0, 30.0, 60.0, up_s=5.3, boot=3)], self.read().heard)
        self.assertEqual([], self.read().heard)

    def test_what_was_said_before_the_end_is_heard_after_it(self):
        self.say(b"web 3 n1 5.10\n")
        self.listener.listen(0.0)
        self.say(b"web 3 n1 5.20\n")
        self.file.unlink()
        (self.home / "cmdline").unlink()
        self.listener.listen(30.0)
        self.assertEqual([(0.0, 30.0)], [each.at_ms for each in self.read().heard])

    def test_what_is_no_heartbeat_is_counted_and_bounded(self):
        self.say(b"web x n1 5.10\n\xff\nweb 3 n1\n" + b"x" * 1000)
        self.listener.listen(0.0)
        self.say(b"yy\nweb 3 n1 5.40\n")
        self.listener.listen(30.0)
        said = self.read()
        self.assertEqual((5, 1), (said.garbled, len(said.heard)))
