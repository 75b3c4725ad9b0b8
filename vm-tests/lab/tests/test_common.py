import time
import unittest
from unittest import mock

import story
from judge import Copy, Run
from telling import SilentLog

LOST, NEW = mock.Mock(), mock.Mock()
LOST.name, NEW.name = "n1", "n2"


class Takeover(unittest.TestCase):
    """How long a VM may take to run elsewhere, as stories assert it."""

    def lose(self, judge, leads, after_seconds=0.0):
        """A VM whose machine was lost so long ago."""
        symbols = {"machines": [LOST, NEW], "judge": judge, "log": SilentLog(), "t": self}
        exec(compile(story.COMMON.read_text(), str(story.COMMON), "exec"), symbols)
        symbols["status"] = lambda machine: {"leader": "n1" if leads else "n2"}
        vm = symbols["StoryVm"]("web")
        vm.home = LOST
        vm.boots_on, vm.wait_for_boot_after = mock.Mock(return_value=0), mock.Mock()
        vm.show = mock.Mock(return_value={"node": "n2"})
        with mock.patch.object(time, "monotonic", return_value=time.monotonic() - after_seconds):
            self.assertEqual(LOST, vm.about_to_lose())
        return vm

    def judged(self, after_seconds):
        """A judge who saw a guest let go so long from now, and earlier runs on both machines."""
        now_ms = time.monotonic() * 1000
        from_ms = now_ms + after_seconds * 1000
        copies = [Copy("web", "n2", 1, 1), Copy("web", "n1", 2, 2), Copy("web", "n2", 3, 3)]
        begins = [now_ms - 90_000, now_ms - 60_000, from_ms]
        runs = [Run(copy, begin, begin + 9000) for copy, begin in zip(copies, begins)]
        return mock.Mock(runs=lambda vm: runs)

    def test_it_has_24_s_by_what_the_judge_saw_and_28_s_where_the_leader_is_lost(self):
        for seconds, leads in ((23.5, False), (27.5, True)):
            vm = self.lose(self.judged(seconds), leads)
            vm.wait_for_takeover()
            self.assertEqual(NEW, vm.home)
        for seconds, leads in ((24.5, False), (28.5, True), (240, True)):
            vm = self.lose(self.judged(seconds), leads)
            with self.assertRaisesRegex(AssertionError, "not less than"):
                vm.wait_for_takeover()

    def test_a_wait_for_a_hold_is_added(self):
        self.lose(self.judged(140), False).wait_for_takeover(held_seconds=120)

    def test_without_a_judge_the_age_of_the_process_tells(self):
        # It began 2,000 ticks after the machine, 20 s, and the machine 45 s ago.
        fields = ["S", *["0"] * 18, "2000", "0"]
        NEW.succeed.return_value = " ".join(["100", "45.00", "80.00", *fields])
        for lost_ago_seconds, is_in_time in ((45, True), (60, False)):
            vm = self.lose(None, False, lost_ago_seconds)
            self.assertAlmostEqual(lost_ago_seconds - 25, vm.began_after_fault(NEW), delta=1)
            if is_in_time:
                vm.wait_for_takeover()
            else:
                self.assertRaises(AssertionError, vm.wait_for_takeover)
