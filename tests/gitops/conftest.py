"""One summary line at the end, with the numbers of the run and what could not be done."""

import pytest

SUMMARY = {}


@pytest.fixture(scope="session")
def count():
    """Adds to a number of the summary line."""

    def add(name, number=1):
        SUMMARY[name] = SUMMARY.get(name, 0) + number

    return add


@pytest.fixture(scope="session")
def note():
    """Says in the summary line what could not be done, and why."""

    def add(text):
        SUMMARY.setdefault("not done", []).append(text)

    return add


def pytest_terminal_summary(terminalreporter):
    passed = len(terminalreporter.stats.get("passed", []))
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    numbers = [f"{number} {name}" for name, number in SUMMARY.items() if name != "not done"]
    missing = SUMMARY.get("not done", [])
    terminalreporter.write_line(
        f"gitops: {passed} rules passed, {failed} failed; {', '.join(numbers)}"
        + (f"; not done: {'; '.join(missing)}" if missing else "")
    )
