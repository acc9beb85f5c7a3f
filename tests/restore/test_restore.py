"""The drill: two databases backed up, their server destroyed, both restored into a new one and compared, table by table."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from postgres import Database, installed
from s3 import BUCKET, S3, Folder
from tree import GITOPS

HERE = pathlib.Path(__file__).parent
# Database, its folder in gitops/apps/base, its prefix in the bucket, what fills it.
DATABASES = [
    ("telemetry", "timescaledb", "telemetry", "fill.sql"),
    ("homelab_settings", "homelab-settings", "homelab_settings", "fill_settings.sql"),
]
# What a summary says must be the same after the restore, not only the rows under it.
VIEWS = ["energy_daily_summary", "energy_monthly_summary", "heatpump_daily_summary", "plug_hourly"]


@pytest.fixture
def place():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="restore-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(place):
    server = (S3 if os.environ.get("WEED") else Folder)(place / "s3")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(place):
    """Makes servers; ends those that still run."""
    made = []

    def start(name):
        programs = installed()
        assert programs is not None, "PostgreSQL is missing: tests/stack/setup.sh test installs it"
        (place / name).mkdir()
        database = Database(place / name, programs)
        made.append(database)
        database.start()
        return database

    yield start
    for database in made:
        database.stop()


def contents(database, name):
    """{table or view: (rows, a checksum of them all)}; the checksum covers every column, in an order of its own."""
    tables = database.run(
        "psql", "-XqAt", "-c", "select tablename from pg_tables where schemaname = 'public' order by 1", PGDATABASE=name
    ).split()
    views = VIEWS if name == "telemetry" else []
    found = {}
    for thing in tables + views:
        query = f"select count(*), md5(coalesce(string_agg(line, E'\\n' order by line), '')) from (select t::text as line from {thing} as t) as lines"
        rows, checksum = database.run("psql", "-XqAt", "-F", " ", "-c", query, PGDATABASE=name).split()
        found[thing] = (int(rows), checksum)
    return found


def rights(database, name):
    """Who may do what: every grant, default and owner in the database, and the attributes of our roles."""
    query = """
        select 'table', relname, relowner::regrole::text, coalesce(relacl::text, '') from pg_class where relnamespace = 'public'::regnamespace
        union all select 'column', attrelid::regclass || '.' || attname, '', attacl::text from pg_attribute where attacl is not null
        union all select 'schema', nspname, nspowner::regrole::text, coalesce(nspacl::text, '') from pg_namespace where nspname = 'public'
        union all select 'database', datname, datdba::regrole::text, coalesce(datacl::text, '') from pg_database where datname = current_database()
        union all select 'default', defaclobjtype::text, defaclrole::regrole::text, defaclacl::text from pg_default_acl
        union all select 'role', rolname, rolcanlogin::text, coalesce(rolconfig::text, '') from pg_roles where rolname in ('sink', 'api', 'settings')
        order by 1, 2, 3, 4"""
    return database.run("psql", "-XqAt", "-c", query, PGDATABASE=name)


def script(s3, name, prefix, folder, database, **more):
    """Runs a script of the backup as its container does: upload.sh and fetch.sh with rclone, the others beside PostgreSQL."""
    path = database.folder / "base/backup" / name
    variables = {"BACKUP_DIR": str(folder), "BACKUP_PREFIX": prefix, "KEEP_DAYS": "30", "KEEP_MONTHLY_DAYS": "400", **s3.variables(), **more}
    return database.attempt("sh", path, **variables)


def succeeded(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def workplace(database, name):
    folder = database.folder / name
    database.run("mkdir", "-p", folder)
    return folder


def test_both_databases_come_back_from_nothing(server, s3, count):
    before = server("before")
    kept = {}
    for name, base, prefix, fill in DATABASES:
        before.migrate(name, base)
        shutil.copy(HERE / fill, before.folder / "base")
        before.run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", before.folder / "base" / fill, PGDATABASE=name)
        kept[name] = contents(before, name)
        empty = [table for table, (rows, _) in kept[name].items() if rows == 0]
        assert empty in ([], ["counter_steps"]), f"{name}: nothing to compare in {empty}"
        folder = workplace(before, f"backup-{prefix}")
        succeeded(script(s3, "dump.sh", prefix, folder, before, PGDATABASE=name))
        succeeded(script(s3, "upload.sh", prefix, folder, before))
        count("bytes backed up", (folder / "dump.sql.gz").stat().st_size)
    # Roles belong to the server, so they are compared as they were when both databases were there.
    allowed = {name: rights(before, name) for name, *_ in DATABASES}
    before.stop()
    shutil.rmtree(before.folder)

    after = server("after")
    began = time.monotonic()
    for name, base, prefix, _ in DATABASES:
        # The container makes an empty database of this name at its first start.
        after.run("createdb", name, PGDATABASE="postgres")
        folder = workplace(after, f"restore-{prefix}")
        succeeded(script(s3, "fetch.sh", prefix, folder, after))
        succeeded(script(s3, "restore.sh", prefix, folder, after, PGDATABASE=name))
        said = after.run_migrations(name, base)
        assert ": 0 applied" in said, f"{name}: the restored database wants migrations: {said}"
    count("seconds to restore", round(time.monotonic() - began, 1))
    for name, *_ in DATABASES:
        found = contents(after, name)
        assert found.keys() == kept[name].keys()
        different = {table: (kept[name][table], found[table]) for table in found if found[table] != kept[name][table]}
        assert not different, f"{name}: {different}"
        assert rights(after, name) == allowed[name]
        count("tables and views compared", len(found))
        count("rows compared", sum(rows for rows, _ in found.values()))

    # The restored database goes on: counters, keys and roles work.
    refused = after.attempt("psql", "-Xqc", "set role api; set transaction read write; delete from energy_consumption")
    assert refused.returncode != 0 and "permission denied" in refused.stderr
    add = """set role sink; insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
        values ('SE1', now(), 'p0/2/1', 'p0', 'synced', 1), ('SE1', now(), 'p0/2/1', 'p0', 'synced', 1) on conflict do nothing"""
    after.run("psql", "-Xqc", add)
    command = """set role settings; insert into outbox (device_id, agent, kind, wanted, asked, requested_by)
        values ('ivt-495', 'p0', 'heatpump_settings', '{"mode": 1}', '{"mode": 1}', 'owner')"""
    after.run("psql", "-Xqc", command, PGDATABASE="homelab_settings")


def test_a_database_with_data_is_not_overwritten(server, s3):
    database = server("only")
    name, base, prefix, fill = DATABASES[1]
    database.migrate(name, base)
    folder = workplace(database, "backup")
    succeeded(script(s3, "dump.sh", prefix, folder, database, PGDATABASE=name))
    shutil.copy(HERE / fill, database.folder / "base")
    database.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", database.folder / "base" / fill, PGDATABASE=name)
    kept = contents(database, name)
    refused = script(s3, "restore.sh", prefix, folder, database, PGDATABASE=name)
    assert refused.returncode == 65 and "keep them first" in refused.stderr, refused.stdout + refused.stderr
    assert contents(database, name) == kept
    other = script(s3, "restore.sh", prefix, folder, database, PGDATABASE="telemetry")
    assert other.returncode == 1 and "not one of the database telemetry" in other.stderr


def test_a_dump_that_was_damaged_in_s3_is_refused(server, s3):
    database = server("only")
    name, base, prefix, _ = DATABASES[1]
    database.migrate(name, base)
    folder = workplace(database, "backup")
    succeeded(script(s3, "dump.sh", prefix, folder, database, PGDATABASE=name))
    succeeded(script(s3, "upload.sh", prefix, folder, database))
    (stored,) = [found for found in s3.names(f"{prefix}/daily") if found.endswith(".gz")]
    damaged = database.folder / "damaged"
    packed = bytearray((folder / "dump.sql.gz").read_bytes())
    packed[len(packed) // 2] ^= 1
    damaged.write_bytes(packed)
    assert s3.rclone("copyto", damaged, f"s3:{BUCKET}/{prefix}/daily/{stored}").returncode == 0
    refused = script(s3, "fetch.sh", prefix, folder, database)
    assert refused.returncode == 1 and "BACKUP_OBJECT" in refused.stderr, refused.stdout + refused.stderr
    assert not (folder / "dump.sql.gz").exists()
    # One whose upload was cut short has no checksum, and is never the newest.
    assert s3.rclone("copyto", damaged, f"s3:{BUCKET}/{prefix}/daily/2999-01-01T000000Z.sql.gz").returncode == 0
    refused = script(s3, "fetch.sh", prefix, folder, database)
    assert f"daily/{stored}" in refused.stderr


def test_an_upload_that_fails_says_so_and_removes_nothing(server, s3):
    database = server("only")
    name, base, prefix, _ = DATABASES[1]
    database.migrate(name, base)
    folder = workplace(database, "backup")
    succeeded(script(s3, "dump.sh", prefix, folder, database, PGDATABASE=name))
    # A dump of long ago, and one of last week.
    for age, when in ((40, "old"), (7, "recent")):
        dump = database.folder / when
        dump.write_text(when)
        stamp = time.time() - age * 86400
        os.utime(dump, (stamp, stamp))
        assert s3.rclone("copyto", dump, f"s3:{BUCKET}/{prefix}/daily/{when}.sql.gz").returncode == 0
    failed = script(s3, "upload.sh", prefix, folder, database, **s3.out_of_reach())
    assert failed.returncode != 0
    assert s3.names(f"{prefix}/daily") == ["old.sql.gz", "recent.sql.gz"]
    # The one that succeeds removes what is older than KEEP_DAYS, and nothing else.
    succeeded(script(s3, "upload.sh", prefix, folder, database))
    left = s3.names(f"{prefix}/daily")
    assert "old.sql.gz" not in left and "recent.sql.gz" in left and len(left) == 3


def test_a_backup_of_every_database_is_scheduled():
    """The prefixes drilled here are those of the CronJobs."""
    for _, base, prefix, _ in DATABASES:
        text = (GITOPS / "apps/base" / base / "backup.yaml").read_text()
        assert f"{{ name: BACKUP_PREFIX, value: {prefix} }}" in text
    assert subprocess.run(["rclone", "version"], capture_output=True).returncode == 0
