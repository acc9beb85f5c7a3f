"""Every alert fires on what it is for, after its time and not before, and is quiet otherwise: Prometheus's own promtool evaluates the
rules of the tree over made-up series.

A case is (alert, series, last quiet minute, first loud minute); series have promtool's notation: `7x10` is a 7 and ten more,
`0+60x10` grows by 60 a minute. Time begins at 0, a sample a minute.
"""

import subprocess

import pytest
import yaml

from test_contracts import expressions
from tree import PLACE, of_kind

PROMTOOL = PLACE / "bin/promtool"
HOUR = 60
PUMP = 'house_device_last_seen_timestamp_seconds{kind="heatpump", device_id="ivt"}'
METER = 'house_device_last_seen_timestamp_seconds{kind="energy", device_id="meter"}'
SENSOR = 'house_device_last_seen_timestamp_seconds{kind="temperature", device_id="attic"}'
AGENT = '{job="edge-agent", agent="p0"}'
BACKUP = '{namespace="homelab", cronjob="timescaledb-backup"}'


def room(location):
    return f'house_room_temperature_celsius{{location="{location}"}}'


def steps_at(minute):
    """A counter that moves once."""
    return f"0x{minute - 1} 1x{3 * HOUR}"


def requests(service, errors):
    """Ten requests a minute, so many of them answered with an error."""
    series = f"{service}_http_requests_total"
    return {
        f'{series}{{status="200"}}': f"0+{10 - errors}x{HOUR}",
        f'{series}{{status="503"}}': f"0+{errors}x{HOUR}",
    }


CASES = [
    ("RoomFreezing", {room("bathroom"): f"9x4 7.9x{HOUR}"}, 14, 15),
    ("HeatPumpSilent", {PUMP: f"0x{HOUR}"}, 20, 21),
    ("MeterSilent", {METER: f"0x{HOUR}"}, 25, 26),
    ("SensorSilent", {SENSOR: f"0x{10 * HOUR}"}, 490, 491),
    ("HouseUnknown", {PUMP: f"_x{HOUR}"}, 14, 15),
    ("AgentDown", {f"up{AGENT}": f"1x4 0x{HOUR}"}, 14, 15),
    ("AgentCannotForward", {f"edge_agent_forward_reachable{AGENT}": f"0x{HOUR}"}, 14, 15),
    ("AgentBufferOld", {f"edge_agent_buffer_oldest_age_seconds{AGENT}": "3540+60x30"}, 11, 12),
    ("AgentBufferNearlyFull", {f"edge_agent_buffer_disk_bytes{AGENT}": f"3500000000x{HOUR}"}, 9, 10),
    ("AgentDiskFails", {f"edge_agent_buffer_failed_commits_total{AGENT}": steps_at(5)}, 4, 6),
    ("AgentBufferDamaged", {f"edge_agent_buffer_salvaged_messages_total{AGENT}": steps_at(5)}, 4, 6),
    ("AgentBufferDamaged", {f"edge_agent_forward_unreadable_messages_total{AGENT}": steps_at(5)}, 4, 6),
    ("ReadingsRefused", {f'edge_agent_intake_refused_messages_total{{reason="full", agent="p0"}}': steps_at(5)}, 4, 6),
    ("AgentClockUnknown", {f"edge_agent_clock_synced{AGENT}": f"0x{HOUR}"}, 14, 15),
    ("UndecodableMessages", {f"edge_agent_forward_dead_letters_total{AGENT}": steps_at(5)}, 4, 6),
    ("CommandsOfDevicesDenied", {f"edge_agent_mqtt_denied_messages_total{AGENT}": steps_at(5)}, 4, 6),
    ("ServiceDown", {'up{namespace="homelab", service="homelab-api"}': f"0x{HOUR}"}, 9, 10),
    ("SinkBehind", {"redpanda_sink_behind_seconds": f"0+60x{HOUR}"}, 25, 26),
    ("SinkDatabaseAway", {"redpanda_sink_database_up": f"0x{HOUR}"}, 9, 10),
    ("SinkBrokerAway", {"redpanda_sink_broker_up": f"0x{HOUR}"}, 9, 10),
    ("LiveBrokerAway", {"energy_ws_broker_up": f"0x{HOUR}"}, 9, 10),
    ("RowsRefused", {'redpanda_sink_dead_letters_total{reason="malformed"}': steps_at(5)}, 4, 6),
    ("ApiErrors", requests("homelab_api", 1), 10, 12),
    ("SettingsApiErrors", requests("homelab_settings_api", 1), 10, 12),
    ("NoKeysOfIssuer", {"homelab_api_issuer_keys_count": f"0x{HOUR}"}, 9, 10),
    ("NoKeysOfIssuer", {"homelab_settings_api_issuer_keys_count": f"0x{HOUR}"}, 9, 10),
    ("NoKeysOfIssuer", {"energy_ws_issuer_keys_count": f"0x{HOUR}"}, 9, 10),
    (
        "BackupFailed",
        {'kube_job_status_failed{namespace="homelab", job_name="authentik-backup-29"}': f"0x4 1x{HOUR}"},
        4,
        5,
    ),
    ("BackupMissing", {f"kube_cronjob_status_last_successful_time{BACKUP}": f"0x{27 * HOUR}"}, 1570, 1571),
    ("BackupNeverMade", {f"kube_cronjob_created{BACKUP}": f"0x{27 * HOUR}"}, 1570, 1571),
    (
        "NodeDiskFills",
        {
            'node_filesystem_avail_bytes{mountpoint="/", instance="p0"}': f"9x{HOUR}",
            'node_filesystem_size_bytes{mountpoint="/", instance="p0"}': f"100x{HOUR}",
        },
        14,
        15,
    ),
    (
        "ReleaseOrTreeNotApplied",
        {'kube_job_status_failed{namespace="homelab", job_name="timescaledb-migrations"}': f"0x4 1x{HOUR}"},
        4,
        5,
    ),
]

# A day on which nothing is wrong, minute for minute.
GOOD_DAY = {
    room("bathroom"): f"21x{24 * HOUR}",
    room("outdoor"): f"-20x{24 * HOUR}",
    room("Freezer in the cellar"): f"-18x{24 * HOUR}",
    METER: f"0+60x{24 * HOUR}",
    SENSOR: f"0+60x{24 * HOUR}",
    f"up{AGENT}": f"1x{24 * HOUR}",
    f"edge_agent_buffer_oldest_age_seconds{AGENT}": f"3x{24 * HOUR}",
    f"edge_agent_buffer_failed_commits_total{AGENT}": f"7x{24 * HOUR}",
    "redpanda_sink_behind_seconds": f"1x{24 * HOUR}",
    'redpanda_sink_dead_letters_total{reason="malformed"}': f"3x{24 * HOUR}",
    **requests("homelab_api", 0),
    f"kube_cronjob_created{BACKUP}": f"0x{24 * HOUR}",
    f"kube_cronjob_status_last_successful_time{BACKUP}": f"0x{24 * HOUR}",
}


def rules():
    return {"groups": [group for thing in of_kind("PrometheusRule") for group in thing.body["spec"]["groups"]]}


def firing(minute, alerts):
    """That these alerts fire then, and no others but the one that always does."""
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing", alertname!="HomelabAlive"})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
    }


def case(name, series, expected):
    """The heat pump is heard in every case that is not about it, or the house would be unknown."""
    series = {PUMP: f"0+60x{27 * HOUR}", **series}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": expected,
    }


def promtool(folder, *arguments):
    done = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path, note):
    if not PROMTOOL.exists():
        note("no alert was fired: promtool is not built")
        pytest.skip("promtool is not built")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    return tmp_path


def test_every_alert_has_a_case():
    alerts = {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}
    assert {name for name, *_ in CASES} | {"HomelabAlive"} == alerts


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(folder, count):
    tests = [
        case(name, series, [firing(quiet, []), firing(loud, [name])]) for name, series, quiet, loud in CASES
    ]
    tests.append(case("a good day", GOOD_DAY, [firing(minute, []) for minute in (1, HOUR, 12 * HOUR, 24 * HOUR)]))
    tests.append(case("the room is warm again", {room("attic"): "7x20 9x20"}, [firing(20, ["RoomFreezing"]), firing(21, [])]))
    tests.append({
        **case("the dead-man's switch", {}, []),
        "alert_rule_test": [{
            "alertname": "HomelabAlive",
            "eval_time": "0m",
            "exp_alerts": [{
                "exp_labels": {"severity": "none"},
                "exp_annotations": {
                    "summary": "the dead-man's switch: always firing; its receiver raises the alarm when it stops"
                },
            }],
        }],
    })
    tests.append({
        **case("what a person reads", {room("bathroom"): f"7x{HOUR}"}, []),
        "alert_rule_test": [{
            "alertname": "RoomFreezing",
            "eval_time": "10m",
            "exp_alerts": [{
                "exp_labels": {"severity": "critical", "location": "bathroom"},
                "exp_annotations": {"summary": "bathroom has 7.0 degrees: pipes freeze"},
            }],
        }],
    })
    (folder / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool(folder, "check", "rules", "rules.yml")
    promtool(folder, "test", "rules", "tests.yml")
    count("alert cases", len(tests))


def test_panels_are_expressions_that_prometheus_takes(folder, count):
    """As rules, because promtool reads those; what Grafana fills in is filled in."""
    panels = [expression.replace("$__rate_interval", "5m").replace("$__interval", "1m") for _, expression in expressions()]
    group = {"name": "panels", "rules": [{"record": f"panel_{n}", "expr": text} for n, text in enumerate(panels)]}
    (folder / "panels.yml").write_text(yaml.safe_dump({"groups": [group]}))
    promtool(folder, "check", "rules", "--lint=none", "panels.yml")
    count("expressions parsed", len(panels))
