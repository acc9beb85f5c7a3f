"""One summary line at the end, with the numbers of the drill."""

import os

import pytest

SUMMARY = {}


@pytest.fixture(scope="session")
def count():
    """Adds to a number of the summary line."""

    def add(name, number=1):
        SUMMARY[name] = SUMMARY.get(name, 0) + number

    return add


def pytest_terminal_summary(terminalreporter):
    passed = len(terminalreporter.stats.get("passed", []))
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    numbers = ", ".join(f"{number} {name}" for name, number in SUMMARY.items())
    missing = "TimescaleDB's own steps (no package brings that server)"
    if not os.environ.get("WEED"):
        missing = f"the S3 server (make test-restore builds it; here a folder stands in its place), {missing}"
    SUMMARY["line"] = f"restore: {passed} passed, {failed} failed; {numbers}; not done: {missing}"


def pytest_unconfigure():
    """After pytest's own last line."""
    if "line" in SUMMARY:
        print(SUMMARY["line"])
