import contextlib
import io
import unittest

import reporting
from errors import LabError


class BrokenOff(unittest.TestCase):
    def reason_of(self, error):
        report = {}
        with contextlib.redirect_stderr(io.StringIO()), reporting.broken_off(report):
            if error is not None:
                raise error
        return report.get("reason")

    def test_the_report_says_why(self):
        self.assertIsNone(self.reason_of(None))
        self.assertEqual("interrupted", self.reason_of(KeyboardInterrupt()))
        self.assertEqual("no room", self.reason_of(LabError("no room")))
        self.assertEqual("KeyError: 'leader'", self.reason_of(KeyError("leader")))
