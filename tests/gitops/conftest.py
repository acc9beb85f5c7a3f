"""One summary line at the end, with the numbers of the run and what could not be done."""

import pathlib
import shutil
import tempfile

import pytest

from postgres import Database, installed

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


@pytest.fixture(scope="session")
def database(note):
    """A migrated database, or None where PostgreSQL is not installed."""
    programs = installed()
    if programs is None:
        note("queries and dumps were not run: no PostgreSQL")
        yield None
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gitops-postgres-", dir="/tmp"))
    database = Database(folder, programs)
    try:
        database.start()
        database.migrate("telemetry", "timescaledb")
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    passed = len(terminalreporter.stats.get("passed", []))
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    numbers = [f"{number} {name}" for name, number in SUMMARY.items() if name != "not done"]
    missing = SUMMARY.get("not done", [])
    SUMMARY["line"] = f"gitops: {passed} rules passed, {failed} failed; {', '.join(numbers)}" + (
        f"; not done: {'; '.join(missing)}" if missing else ""
    )


def pytest_unconfigure():
    """After pytest's own last line."""
    if "line" in SUMMARY:
        print(SUMMARY["line"])
