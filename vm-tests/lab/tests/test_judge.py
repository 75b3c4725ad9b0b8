import json
import tempfile
import unittest
from pathlib import Path

import judge
import recorder
from judge import Copy, Run

WEB_1 = Copy("web", "n1", 100, 7)
WEB_2 = Copy("web", "n2", 200, 8)
WEB_1_AGAIN = Copy("web", "n1", 300, 9)
DNS_2 = Copy("dns", "n2", 400, 9)


class Overlaps(unittest.TestCase):
    def test_one_copy_after_the_other_is_no_overlap(self):
        runs = [Run(WEB_1, 0, 100), Run(WEB_2, 100, 200), Run(WEB_1_AGAIN, 250, 300), Run(DNS_2, 0, 300)]
        self.assertEqual([], judge.overlaps(runs))

    def test_two_copies_at_once_are_one_on_one_node_too(self):
        found = judge.overlaps([Run(WEB_1, 0, 100), Run(WEB_2, 99, 200), Run(WEB_1_AGAIN, 50, 60)])
        self.assertEqual([(50, 60), (99, 100)], [(each.from_ms, each.to_ms) for each in found])
        self.assertEqual([WEB_1_AGAIN, WEB_2], [each.second for each in found])

    def test_a_copy_that_stood_still_meanwhile_and_goes_on_overlaps_only_then(self):
        runs = judge.joined([Run(WEB_1, 0, 1000), Run(WEB_2, 30_000, 70_000), Run(WEB_1, 60_000, 60_100)])
        self.assertEqual([100], [each.length_ms for each in judge.overlaps(runs)])

    def test_a_copy_that_runs_in_the_pauses_of_another_overlaps(self):
        parts = [Run(WEB_1, 0, 100), Run(WEB_2, 500, 600), Run(WEB_1, 1000, 1100)]
        self.assertEqual([100], [each.length_ms for each in judge.overlaps(judge.joined(parts))])


class Joined(unittest.TestCase):
    def test_parts_of_a_run_become_one_until_there_is_a_long_pause(self):
        pause = judge.PAUSE_MAX_MS
        parts = [Run(WEB_1, 20, 30), Run(WEB_1, 0, 20), Run(WEB_1, 30 + pause, 40 + pause)]
        self.assertEqual([Run(WEB_1, 0, 40 + pause)], judge.joined(parts))
        parts.append(Run(WEB_1, 41 + 2 * pause, 50 + 2 * pause))
        self.assertEqual(2, len(judge.joined(parts)))


class Verdict(unittest.TestCase):
    def test_moves_and_gaps_are_between_the_runs_of_one_vm(self):
        runs = [Run(WEB_1, 0, 100), Run(DNS_2, 50, 90), Run(WEB_2, 400, 500), Run(WEB_1_AGAIN, 500, 600)]
        move = judge.moves(runs)[0]
        self.assertEqual(("web", WEB_1, WEB_2, 100, 400), tuple(vars(move).values()))
        self.assertEqual(2, len(judge.moves(runs)))
        self.assertEqual(300, judge.longest_gap_ms(runs))
        self.assertEqual(0, judge.longest_gap_ms([]))

    def test_a_record_is_read_up_to_its_last_whole_line(self):
        lines = [
            json.dumps({"ran": ["web", "n1", 100, 7], "from_ms": 0.0, "to_ms": 500.0}) + "\n",
            json.dumps({"looks": 16, "longest_blind_ms": 31.0, "until_ms": 500.0}) + "\n",
            json.dumps({"ran": ["web", "n2", 200, 8], "from_ms": 499.0, "to_ms": 600.0}) + "\n",
            '{"looks": 9, "lon',
        ]
        said = judge.verdict(judge.read(lines))
        self.assertEqual((2, 1, 1, 1), tuple(said[key] for key in said if key in (
            "copies", "failovers", "overlaps", "longest_overlap_ms"
        )))
        self.assertEqual((16, 31), (said["looks"], said["longest_blind_ms"]))


class Proc:
    """A process table of files."""

    def __init__(self, home):
        self.home = Path(home)

    def put(self, pid, *words, group="/lab-a/n1/payload/x.service"):
        home = self.home / str(pid)
        (home / "task" / str(pid + 1)).mkdir(parents=True)
        (home / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (home / "cgroup").write_text(f"8:pids:/\n0::{group}\n")
        (home / "stat").write_text(f"{pid} (a ) b) S " + " ".join(str(field) for field in range(4, 53)))
        (home / "task" / str(pid + 1) / "comm").write_text("CPU 0/TCG\n")
        self.use(pid, 0)

    def use(self, pid, nanoseconds):
        (self.home / str(pid) / "task" / str(pid + 1) / "schedstat").write_text(f"{nanoseconds} 0 1\n")

    def end(self, pid):
        for path in sorted((self.home / str(pid)).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.home / str(pid)).rmdir()


QEMU = ("qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-m", "96")
LET_GO = recorder.STARTUP_NS


class Recorded(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.proc = Proc(scratch.name)
        self.said = []
        self.recorder = recorder.Recorder(self.proc.home, "lab-a", self.said.append)

    def runs(self, now_ms):
        self.recorder.flush(now_ms)
        record = judge.read(json.dumps(said) + "\n" for said in self.said)
        return [(run.copy.node, run.from_ms, run.to_ms) for run in record.runs]

    def test_a_hypervisor_runs_from_when_its_processors_do_until_it_is_gone(self):
        self.proc.put(5, "sh")
        self.proc.put(6, *QEMU, group="/lab-b/n1/payload/x.service")
        self.proc.put(7, *QEMU)
        for now_ms, more in ((0, -LET_GO), (30, 0), (60, 1), (90, 1), (120, 2)):
            self.proc.use(7, LET_GO + more)
            self.proc.use(6, LET_GO + more)
            self.recorder.look(now_ms)
        self.proc.end(7)
        self.recorder.look(150)
        self.assertEqual([("n1", 30, 150)], self.runs(150))

    def test_a_process_that_becomes_a_hypervisor_is_one(self):
        self.proc.put(7, "blixard", "vm-run", "web")
        self.recorder.look(0)
        self.proc.end(7)
        self.proc.put(7, *QEMU)
        self.recorder.look(30)
        self.proc.use(7, LET_GO + 1)
        self.recorder.look(60)
        self.assertEqual([("n1", 30, 60)], self.runs(60))

    def test_one_that_stands_still_does_not_run_until_it_goes_on(self):
        self.proc.put(7, *QEMU)
        self.proc.use(7, LET_GO + 1)
        for now_ms in range(0, 60_000, 500):
            self.recorder.look(now_ms)
        self.proc.use(7, LET_GO + 2)
        self.recorder.look(60_000)
        self.assertEqual([("n1", 59_500, 60_000)], self.runs(60_000))

    def test_the_longest_time_without_a_look_is_told(self):
        for now_ms in (0, 30, 75, 90):
            self.recorder.look(now_ms)
        self.recorder.flush(90)
        self.assertEqual([45], [said["longest_blind_ms"] for said in self.said])
