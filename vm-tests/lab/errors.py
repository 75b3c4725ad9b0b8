"""The harness' own errors; a story's failed assertion is `driver.RequestedAssertionFailed`."""


class LabError(Exception):
    """Something the lab needs is missing or went wrong; the text names the cause and the way out."""
