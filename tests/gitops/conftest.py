"""One summary line at the end, with the numbers of the run and what could not be done."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from tree import GITOPS

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


class Database:
    """A PostgreSQL of this run's own, on a socket in its folder, with the database telemetry migrated."""

    def __init__(self, folder, programs):
        self.folder = folder
        self.programs = programs
        # The server refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.where = {"PGHOST": str(folder), "PGUSER": "postgres", "PGDATABASE": "telemetry"}

    def run(self, *command, **variables):
        """Runs a program beside the server, and returns what it printed."""
        variables = {"PATH": f"{self.programs}:{os.environ['PATH']}", **self.where, **variables}
        done = subprocess.run(
            [*self.user, "env", *(f"{name}={value}" for name, value in variables.items()), *map(str, command)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/tmp",
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self):
        shutil.copytree(GITOPS / "apps/base", self.folder / "base")
        if self.user:
            shutil.chown(self.folder, "postgres")
        self.run("initdb", "--pgdata", self.folder / "data", "--auth=trust", "--username=postgres", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", self.folder / "log", "-w", "start")
        self.run("createdb", "telemetry", PGDATABASE="postgres")
        scripts = self.folder / "base/timescaledb"
        self.run("sh", scripts / "run_migrations.sh", scripts / "migrations")

    def stop(self):
        if (self.folder / "data/postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="session")
def database(note):
    """A migrated database, or None where PostgreSQL is not installed."""
    installed = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    program = str(installed[0]) if installed else shutil.which("initdb")
    if program is None:
        note("queries and dumps were not run: no PostgreSQL")
        yield None
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gitops-postgres-", dir="/tmp"))
    database = Database(folder, pathlib.Path(program).parent)
    try:
        database.start()
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    passed = len(terminalreporter.stats.get("passed", []))
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    numbers = [f"{number} {name}" for name, number in SUMMARY.items() if name != "not done"]
    missing = SUMMARY.get("not done", [])
    terminalreporter.write_line(
        f"gitops: {passed} rules passed, {failed} failed; {', '.join(numbers)}"
        + (f"; not done: {'; '.join(missing)}" if missing else "")
    )
