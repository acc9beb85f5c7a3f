"""A PostgreSQL server of a test's own, on a socket in its folder. It touches no server that it did not start."""

import os
import pathlib
import shutil
import subprocess

from tree import GITOPS

# A restore of the drill's database takes a few seconds; a machine that is busy with other tests may need many times that.
COMMAND_SECONDS = 300


def installed():
    """The folder of PostgreSQL's programs, or None where there is no server."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    program = str(found[0]) if found else shutil.which("initdb")
    return pathlib.Path(program).parent if program else None


class Database:
    """A server, started by start(); what it runs sees the tree's scripts under folder/base."""

    def __init__(self, folder, programs):
        self.folder = folder
        self.programs = programs
        # The server refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.where = {"PGHOST": str(folder), "PGUSER": "postgres", "PGDATABASE": "telemetry"}

    def attempt(self, *command, **variables):
        """Runs a program beside the server, and returns how it ended."""
        variables = {"PATH": f"{self.programs}:{os.environ['PATH']}", **self.where, **variables}
        return subprocess.run(
            [*self.user, "env", *(f"{name}={value}" for name, value in variables.items()), *map(str, command)],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            cwd="/tmp",
        )

    def run(self, *command, **variables):
        """The same for what must succeed; returns what it printed."""
        done = self.attempt(*command, **variables)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self):
        """Makes the cluster and starts it, without any database of ours."""
        shutil.copytree(GITOPS / "apps/base", self.folder / "base")
        if self.user:
            shutil.chown(self.folder, "postgres")
        self.run("initdb", "--pgdata", self.folder / "data", "--auth=trust", "--username=postgres", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", self.folder / "log", "-w", "start")

    def migrate(self, name, folder):
        """Makes a database and runs the migrations of base/folder on it, as the migration Job does."""
        self.run("createdb", name, PGDATABASE="postgres")
        self.run_migrations(name, folder)

    def run_migrations(self, name, folder):
        """Brings a database up to date; returns what the script said."""
        script = self.folder / "base/timescaledb/run_migrations.sh"
        return self.run("sh", script, self.folder / "base" / folder / "migrations", PGDATABASE=name)

    def stop(self):
        """Ends the server at once; what it kept goes with its folder."""
        if (self.folder / "data/postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
