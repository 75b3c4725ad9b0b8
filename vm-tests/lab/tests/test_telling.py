import unittest
from unittest import mock

import telling
import waiting


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Retry(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.object(waiting, "time", Clock())
        self.clock = patch.start()
        self.addCleanup(patch.stop)

    def test_it_ends_with_the_first_success(self):
        calls = []
        telling.retry(lambda last: calls.append(last) or len(calls) == 3)
        self.assertEqual([False, False, False], calls)
        self.assertEqual(2.0, self.clock.now)

    def test_the_last_call_knows_that_it_is(self):
        calls = []
        with self.assertRaisesRegex(telling.RequestedAssertionFailed, "timed out after 2 s"):
            telling.retry(lambda last: calls.append(last), timeout_seconds=2)
        self.assertEqual([False, False, True], calls)


class Conditions(unittest.TestCase):
    def setUp(self):
        self.machine = mock.Mock(conditions=[])

    def condition(self, function):
        return telling.PollingCondition(function, [self.machine], 0.0, "it holds")

    def test_one_that_fails_is_told(self):
        condition = self.condition(lambda: False)
        with condition:
            self.assertEqual([condition], self.machine.conditions)
            with self.assertRaisesRegex(telling.RequestedAssertionFailed, "it holds"):
                condition.maybe_raise()
        self.assertEqual([], self.machine.conditions)

    def test_one_that_runs_commands_does_not_ask_for_itself(self):
        condition = self.condition(lambda: condition.maybe_raise())
        condition.maybe_raise()


class Shorten(unittest.TestCase):
    def test_a_long_command_is_cut(self):
        self.assertEqual("a b", telling.shorten("a\n  b"))
        self.assertLess(len(telling.shorten("x" * 1000)), 310)
