import unittest

import lease_cost
import measure
from errors import LabError
from judge import Copy, Run
from measure import Trial

WEB_1 = Copy("web", "n1", 100, 7)
WEB_2 = Copy("web", "n2", 200, 8)


def trial(kind, lease_ms, gone_ms, runs_ms):
    return Trial(kind, lease_ms, 3000, gone_ms, runs_ms, runs_ms + 4000, 0.5)


class Times(unittest.TestCase):
    def test_a_copy_is_gone_when_its_last_run_ends_and_another_one_begins_with_its_first(self):
        before = [Run(WEB_1, 0, 900), Run(WEB_1, 4000, 5000)]
        runs = [*before, Run(WEB_2, 18_000, 19_000), Run(WEB_2, 30_000, 31_000)]
        self.assertEqual(5000, measure.gone_ms(runs))
        self.assertEqual(18_000, measure.again_ms(runs))

    def test_without_another_copy_nothing_is_measured(self):
        with self.assertRaises(LabError):
            measure.again_ms([Run(WEB_1, 0, 900)])


class Summary(unittest.TestCase):
    def test_each_fault_has_a_row_for_each_lease(self):
        trials = [trial("follower_crashed", 10_000, 5, runs_ms) for runs_ms in (14_000, 17_000, 16_000)]
        trials.append(trial("agent_frozen", 5000, 4000, 9000))
        told = measure.summary(trials)
        crashed, frozen = told["measured"]
        spread = {"least": 14_000, "median": 16_000, "most": 17_000}
        self.assertEqual(spread, crashed["runs_ms"])
        self.assertEqual(21_000 - 3000, crashed["line_less_bare_boot_ms"]["most"])
        self.assertNotIn("gone_ms", crashed)
        self.assertEqual(4000, frozen["gone_ms"]["most"])
        self.assertEqual([], told["exceeded"])

    def test_what_takes_longer_than_was_promised_is_told(self):
        for kind, lease_ms, gone_ms, runs_ms, kept in (
            ("follower_crashed", 10_000, 5, 20_000, True),
            ("follower_crashed", 10_000, 5, 20_001, False),
            ("leader_crashed", 10_000, 5, 24_000, True),
            ("leader_crashed", 10_000, 5, 24_001, False),
            ("agent_frozen", 10_000, 15_000, 18_000, True),
            ("agent_frozen", 10_000, 15_001, 18_000, False),
            ("supervisor_frozen", 5000, 10_001, 12_000, False),
        ):
            told = measure.summary([trial(kind, lease_ms, gone_ms, runs_ms)])
            self.assertEqual(kept, told["exceeded"] == [], told)

    def test_a_run_that_broke_off_before_the_first_trial_tells_of_none(self):
        self.assertEqual([], measure.summary([])["measured"])


class Whole(unittest.TestCase):
    def view(self, **changes):
        member = {"reachable": True, "lease": {"state": "holds"}}
        view = {"quorum": True, "leader": "n1", "lease": {"holds_for_ms": 9000}}
        return view | {"members": [member] * 3} | changes

    def test_a_cluster_is_whole_when_every_member_has_a_lease(self):
        suspect = {"reachable": True, "lease": {"state": "suspect", "lost_in_ms": 900}}
        self.assertTrue(measure.is_whole(self.view()))
        for changes in (
            {"quorum": False},
            {"leader": None},
            {"lease": None},
            {"lease": {"holds_for_ms": None}},
            {"members": self.view()["members"][:2]},
            {"members": [*self.view()["members"][:2], suspect]},
        ):
            self.assertFalse(measure.is_whole(self.view(**changes)), changes)


class LeaseCost(unittest.TestCase):
    def test_what_was_used_is_told_for_each_second(self):
        before = lease_cost.read(10.0, "1200000\n5000\n600\n164\n")
        after = lease_cost.read(30.0, "1600000\n9000\n1600\n1397\n")
        self.assertEqual(lease_cost.Sample(10.0, 1_200_000, 5000, 600, 164), before)
        told = {"cpu_ms_per_s": 20.0, "sent_bytes_per_s": 200, "received_bytes_per_s": 50}
        self.assertEqual(told | {"lease_file_bytes": 1397}, lease_cost.used(before, after))
