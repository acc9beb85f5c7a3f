"""The scripts and queries of the tree, run: on a real PostgreSQL, and with a stand-in for rpk, as no Redpanda is to be had."""

import gzip
import hashlib
import json
import os
import subprocess

import pytest
import yaml

from tree import GITOPS, KUBECTL, of_kind

FILL = """
insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c)
values ('t', now(), 'p0/1/1', 'p0', 'synced', 'kitchen', 5.5);
insert into energy_consumption (device_id, time, id, agent, clock, power_w)
values ('e', now(), 'p0/1/2', 'p0', 'synced', 100);
insert into heatpump_status (device_id, time, id, agent, clock, outdoor_c, compressor_on)
values ('h', now(), 'p0/1/3', 'p0', 'synced', -3, true);
"""
# What rpk would do with topics and users, kept in files: only the script around it is on trial here.
RPK = r"""#!/bin/bash
echo "$*" >> "$STATE/calls"
case "$1 $2 $3" in
"security user list") echo USERNAME; cat "$STATE/users" 2>/dev/null ;;
"security user create") echo "$4" >> "$STATE/users" ;;
"topic list "*) echo "NAME PARTITIONS REPLICAS"; cat "$STATE/topics" 2>/dev/null ;;
"topic create "*) echo "$3 $5 1" >> "$STATE/topics" ;;
esac
exit 0
"""


def test_the_exporters_queries_run_on_the_migrated_database(database, count):
    if database is None:
        return
    database.run("psql", "-q", "-c", FILL)
    exporter = yaml.safe_load((GITOPS / "apps/base/monitoring/sql_exporter.yml").read_text())
    for metric in exporter["collectors"][0]["metrics"]:
        # As the role of the exporter, which can only select.
        query = f"set role api; {metric['query']}"
        header, *lines = database.run("psql", "-qA", "-F", ",", "-P", "footer=off", "-c", query).splitlines()
        assert set(header.split(",")) == {*metric["key_labels"], *metric["values"]}, metric["metric_name"]
        assert len(lines) == (3 if "last_seen" in metric["metric_name"] else 1), (metric["metric_name"], lines)
        count("queries run")


def test_a_dump_is_whole_and_has_its_checksum(database):
    if database is None:
        return
    backup = database.folder / "backup"
    database.run("mkdir", backup)
    script = database.folder / "base/backup/dump.sh"
    database.run("sh", script, BACKUP_DIR=backup)
    packed = (backup / "dump.sql.gz").read_bytes()
    assert "create table public.energy_consumption" in gzip.decompress(packed).decode().lower()
    assert (backup / "dump.sha256").read_text().strip() == hashlib.sha256(packed).hexdigest()
    # A database that cannot be read leaves no dump, and the script fails.
    database.run("rm", backup / "dump.sql.gz")
    database.run("sh", "-c", f"! sh {script}", BACKUP_DIR=backup, PGDATABASE="nowhere")
    assert not (backup / "dump.sql.gz").exists()


def test_topics_and_users_are_made_once_and_brought_up_to_date(tmp_path):
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/rpk"
    stand_in.write_text(RPK)
    stand_in.chmod(0o755)
    (tmp_path / "users").mkdir()
    (tmp_path / "state").mkdir()
    for agent in ("p0", "p1"):
        (tmp_path / "users" / agent).write_text(f"word-of-{agent}")
    variables = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "STATE": str(tmp_path / "state"),
        "USERS_DIR": str(tmp_path / "users"),
        "BROKERS": "broker:1",
        "ADMIN_HOSTS": "broker:2",
    }

    def provision():
        calls = tmp_path / "state/calls"
        calls.unlink(missing_ok=True)
        script = GITOPS / "apps/base/redpanda/provision.sh"
        done = subprocess.run(["bash", script], env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "word-of" not in done.stdout + done.stderr
        return calls.read_text().splitlines()

    def how_many(calls, start):
        return sum(call.startswith(start) for call in calls)

    first = provision()
    assert how_many(first, "topic create") == 7 and how_many(first, "topic alter-config") == 0
    assert how_many(first, "security user create") == 2
    again = provision()
    assert how_many(again, "topic create") == 0 and how_many(again, "topic alter-config") == 7
    assert how_many(again, "security user create") == 0 and how_many(again, "security user update") == 2
    assert how_many(again, "topic add-partitions") == 0
    assert how_many(first, "security acl create") == how_many(again, "security acl create") > 20

    topics = tmp_path / "state/topics"
    topics.write_text(topics.read_text().replace("homelab.plug 3", "homelab.plug 2"))
    grown = provision()
    assert [call for call in grown if "add-partitions" in call] == [
        "topic add-partitions homelab.plug --num 1 -X brokers=broker:1"
    ]


# What the API server would make of a CronJob; everything else is the real kubectl.
KUBECTL_CREATE = r"""#!/bin/bash
if [ "$3 $4" = "create job" ]; then cat "$STATE/${6#--from=cronjob/}.json"; else exec "$REAL" "$@"; fi
"""


@pytest.mark.parametrize("name", ["telemetry", "homelab-settings", "authentik"])
def test_a_restore_job_is_the_backups_job_the_other_way_round(name, tmp_path):
    (cron,) = [thing for thing in of_kind("CronJob") if thing.name == f"{name}-backup"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-restore", "namespace": "homelab"}}
    (tmp_path / f"{name}-backup.json").write_text(json.dumps({**job, "spec": cron.body["spec"]["jobTemplate"]["spec"]}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").write_text(KUBECTL_CREATE)
    (tmp_path / "bin/kubectl").chmod(0o755)
    variables = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STATE": str(tmp_path), "REAL": str(KUBECTL)}

    def run(*arguments):
        return subprocess.run(
            ["sh", GITOPS / "restore.sh", *arguments], env=variables, capture_output=True, text=True, timeout=300
        )

    done = run(name, "--object", "daily/2026-01-31T020004Z.sql.gz")
    assert done.returncode == 0, done.stderr
    pod = yaml.safe_load(done.stdout)["spec"]["template"]
    was = cron.body["spec"]["jobTemplate"]["spec"]["template"]
    assert pod["metadata"]["labels"] == was["metadata"]["labels"], "the network policy goes by the labels"
    (fetch,), (restore,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    (dump,), (upload,) = was["spec"]["initContainers"], was["spec"]["containers"]
    assert fetch["command"] == ["sh", "/scripts/fetch.sh"] and fetch["image"] == upload["image"]
    assert fetch["env"] == [*upload["env"], {"name": "BACKUP_OBJECT", "value": "daily/2026-01-31T020004Z.sql.gz"}]
    assert restore["command"] == ["sh", "/scripts/restore.sh"] and restore["image"] == dump["image"]
    assert restore["env"] == dump["env"] and restore["volumeMounts"] == dump["volumeMounts"]
    for wrong in ((), ("nowhere",), (name, "--object"), (name, "--object", "a b")):
        assert run(*wrong).returncode == 64, wrong
