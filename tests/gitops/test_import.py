"""The import from the older system: its tables, small, into a migrated database; every sum stated by hand."""

import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from tree import GITOPS, ROOT

TIMESCALE = ROOT / "tests/stack/timescale"
HERE = ROOT / "tests/gitops"
IMPORT = GITOPS / "apps/base/timescaledb/import"
# What the new system had measured by the time of the import.
NEW = """insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, meter_id)
    select 'SE1', timestamptz '2026-10-02 12:00+00' + n * interval '10 minutes', 'p0/1/' || n, 'p0', 'synced', 1021500 + n * 100, '7359'
    from generate_series(0, 71) as n"""
# The counter from its first older reading, 1,000,000, to the last new one; 24 hours and 6 days before.
RAW_WH = 1021500 + 71 * 100 - 1000000
HOURS_WH = sum(500 + 10 * n for n in range(24))
DAYS_WH = sum(10000 + 1000 * n for n in range(6))


class Plain:
    """The machine's PostgreSQL."""

    def __init__(self, database):
        self.database = database

    def psql(self, *arguments, name="house"):
        return self.database.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *arguments, PGDATABASE=name)

    def prepare(self):
        self.database.migrate("house", "timescaledb")

    def bring(self, older, *arguments):
        script = self.database.folder / "base/timescaledb/import/import_older.sh"
        return self.database.attempt("sh", script, *arguments, PGDATABASE="house", OLDER_URL=older)

    def drop(self):
        self.database.run("dropdb", "house", PGDATABASE="postgres")


class Timescale:
    """TimescaleDB as WebAssembly: one database, postgres, and one connection at a time. It cannot COPY from its client, so the
    older tables are made in place and only the SQL of the import runs here."""

    def __init__(self, port):
        self.where = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": "postgres", "PGDATABASE": "postgres"}

    def attempt(self, *command):
        return subprocess.run(command, env={**os.environ, **self.where}, capture_output=True, text=True, timeout=300)

    def bring(self, older, *arguments):
        self.psql("-f", IMPORT / "older_tables.sql")
        # The import's own columns are double precision, as import_older.sh makes them.
        fill = (HERE / "older_house.sql").read_text()
        tables = re.sub(r"create table (\w+) ", r"drop table older.\1; create table \1 ", fill)
        tables = re.sub(r"\b(integer|smallint)\b", "double precision", tables)
        self.psql("-c", f"set search_path = older; {tables}")
        main_device, meter_id = arguments
        return self.attempt(
            "psql", "-X", "-v", f"main_device={main_device}", "-v", f"meter_id={meter_id}", "-f", IMPORT / "import_older.sql"
        )

    def psql(self, *arguments, name="postgres"):
        done = self.attempt("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def prepare(self):
        scripts = GITOPS / "apps/base/timescaledb"
        done = self.attempt("sh", scripts / "run_migrations.sh", scripts / "migrations")
        assert done.returncode == 0, done.stdout + done.stderr

    def drop(self):
        pass


@pytest.fixture
def older(database):
    """The connection string of a database as the older system left it."""
    if database is None:
        pytest.fail("PostgreSQL is missing: tests/stack/setup.sh test installs it")
    database.run("createdb", "older", PGDATABASE="postgres")
    shutil.copy(HERE / "older_house.sql", database.folder / "base")
    database.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", database.folder / "base/older_house.sql", PGDATABASE="older")
    yield f"postgresql:///older?host={database.folder}&port=5432&user=postgres"
    database.run("dropdb", "older", PGDATABASE="postgres")


@pytest.fixture(params=["plain", "timescale"])
def newer(request, database):
    if request.param == "plain":
        server, node = Plain(database), None
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        node = subprocess.Popen(["node", TIMESCALE / "server.mjs", str(port)], stdout=subprocess.PIPE, cwd=TIMESCALE)
        assert b"listening" in node.stdout.readline()
        server = Timescale(port)
    try:
        server.prepare()
        yield server
    finally:
        server.drop()
        if node is not None:
            node.kill()
            node.wait()


def test_the_older_history_is_imported_once_and_every_sum_is_right(older, newer, database, count):
    newer.psql("-c", NEW)

    done = newer.bring(older, "SE1", "7359")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == 9 and "DIFFERENT" not in done.stdout, done.stdout

    def ask(query):
        return newer.psql("-c", query).strip()

    # 216 of 288 lie before the new system; the one written twice is one, the one without a device none.
    assert ask("select count(*) from energy_consumption where agent = 'import' and id not like 'import/sum/%'") == "216"
    assert ask("select count(*) from temperature_sensors where agent = 'import'") == "12"
    assert ask("select count(*) from heatpump_status where agent = 'import'") == "100"
    assert ask("select round(current_l1_a::numeric, 3), round(power_factor::numeric, 2) from energy_consumption where time = '2026-10-01 00:05+00'") == "4.402|0.98"
    assert ask("select brine_in_c, brine_out_c, compressor_hours from heatpump_status limit 1") == "3|-1|41231"
    assert ask("select external_power, location from temperature_sensors limit 1") == "f|bedroom"
    # All in all: the days, the hours, the raw rows, and the new system's own, one counter without a break.
    total = ask("select round(sum(energy_wh)::numeric, 3) from energy_hourly where device_id = 'SE1'")
    assert float(total) == DAYS_WH + HOURS_WH + RAW_WH, total
    # An hour of the older aggregate is that hour's, and says that it is an estimate.
    hour = ask("select round(energy_wh::numeric, 3), estimated from energy_hourly where device_id = 'SE1' and hour_start = '2026-09-30 05:00+00'")
    assert hour == "550.000|t", hour
    day = ask("select round(sum(energy_wh)::numeric, 3) from energy_hourly where device_id = 'SE1' and hour_start >= '2026-09-26 00:00+00' and hour_start < '2026-09-27 00:00+00'")
    assert day == "12000.000", day
    assert ask("select role from energy_meters where device_id = 'SE1'") == "main"

    # Again: nothing changes. Back: nothing of it is left.
    rows = "select count(*), sum(energy_wh) from energy_consumption"
    before = ask(rows)
    again = newer.bring(older, "SE1", "7359")
    assert again.returncode == 0 and ask(rows) == before, again.stdout + again.stderr
    ask("delete from energy_consumption where agent = 'import'")
    assert ask("select count(*) from energy_consumption") == "72"
    if isinstance(newer, Plain):
        assert newer.bring(older).returncode == 64
        away = newer.bring(f"{older}&dbname=nowhere", "SE1")
        assert away.returncode not in (0, 64) and "nowhere" in away.stderr, away.stdout + away.stderr
    count("older rows imported", 328)
