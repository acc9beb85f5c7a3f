"""What the tree and the code must agree on: names of topics, variables, metrics, routes, scopes and columns."""

import json
import re
from urllib.parse import urlsplit

import pytest
import yaml

from tree import GITOPS, ROOT, containers, environment, objects, of_kind, pod_template, walk

ORIGINS = ["https://homelab.k12n.com", "http://localhost:5173", "http://localhost:8080"]
SERVICES = ("redpanda-sink", "homelab-api", "homelab-settings-api", "energy-ws")
WITH_KAFKA = ("redpanda-sink", "homelab-settings-api", "energy-ws")
# Ports of Services that charts make, by their charts' own names.
CHART_SERVICES = {
    ("homelab", "authentik-server"): {"http", 80},
    ("monitoring", "kube-prometheus-stack-grafana"): {"http-web", 80},
    ("homelab", "redpanda"): {"kafka", 9093, "admin", 9644},
}


def rust(*folders):
    """The source of a crate without its tests, which make up names."""
    text = ""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.rs")):
            text += file.read_text().split("#[cfg(test)]")[0]
    return text


def rows(file):
    return [line.split() for line in (GITOPS / file).read_text().splitlines() if line and not line.startswith("#")]


# Topics


def test_topics_are_those_of_the_code(count):
    source = (ROOT / "cluster/telemetry/src/topic.rs").read_text()
    names = dict(re.findall(r'pub const (\w+): &str = "([\w.-]+)";', source))
    reading = int(re.search(r"READING_PARTITIONS: i32 = (\d+)", source).group(1))
    listed = re.search(r"ALL: .*?= \[(.*?)\];", source, re.DOTALL).group(1)
    code = {
        names[name]: reading if partitions == "READING_PARTITIONS" else int(partitions)
        for name, partitions in re.findall(r"\((\w+), (\w+)\)", listed)
    }
    tree = {name: int(partitions) for name, partitions, _ in rows("apps/base/redpanda/topics.txt")}
    assert tree == code
    count("topics", len(tree))
    # Together they fit on the volume with room for what is being compacted.
    total = sum(int(partitions) * int(size) for _, partitions, size in rows("apps/base/redpanda/topics.txt"))
    assert total < 11 * 2**30
    script = (GITOPS / "apps/base/redpanda/provision.sh").read_text()
    for setting in ("message.timestamp.type=LogAppendTime", f"retention.ms={30 * 86_400_000}", "write.caching=false"):
        assert setting in script, setting


def test_access_lists_give_no_more_than_is_needed():
    topics = {name for name, _, _ in rows("apps/base/redpanda/topics.txt")}
    access = rows("apps/base/redpanda/access.txt")
    for principal, resource, name, operations in access:
        allowed = set(operations.split(","))
        assert allowed <= {"read", "write", "describe", "idempotent_write"}, (principal, name)
        if resource == "topic":
            assert name in topics, name
            if principal in ("p0", "p1"):
                # An agent reads commands and dead letters (edge-agent dead-letters), and writes everything but commands.
                reads = name in ("homelab.commands", "homelab.dead-letter")
                wanted = {"read"} if reads else set()
                wanted |= set() if name == "homelab.commands" else {"write"}
                assert allowed == wanted | {"describe"}, (principal, name)
    users = {environment(workload(name))["KAFKA_USERNAME"] for name in WITH_KAFKA}
    assert {principal for principal, *_ in access} == {"p0", "p1"} | users, "nobody is anonymous, nobody is forgotten"
    assert {row[0] for row in access if row[2] == "homelab.commands" and "write" in row[3].split(",")} == {
        "homelab-settings-api"
    }
    assert not any(row[0] == "energy-ws" and "write" in row[3].split(",") for row in access)
    # Every user has a password from a secret, and no password is without a user.
    (job,) = [thing for thing in of_kind("Job") if thing.name == "redpanda-topics"]
    (volume,) = [volume for volume in pod_template(job)["spec"]["volumes"] if volume["name"] == "users"]
    paths = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    assert paths == {"p0", "p1"} | users
    for agent in ("p0", "p1"):
        assert {name for who, kind, name, _ in access if who == agent and kind == "topic"} == topics
        assert [agent, "group", f"edge-agent-{agent}", "read,describe"] in access
    assert 'format!("edge-agent-{}", self.agent)' in rust("edge-agent/src")


def test_every_listener_of_redpanda_wants_a_password():
    (release,) = [thing for thing in of_kind("HelmRelease") if thing.name == "redpanda"]
    values = release.body["spec"]["values"]
    outside = values["listeners"]["kafka"]["external"]["default"]
    assert outside["authenticationMethod"] == "sasl" and outside["tls"]["enabled"] is True
    assert values["auth"]["sasl"]["enabled"] is True
    assert values["config"]["cluster"]["kafka_enable_authorization"] is True
    inside = values["listeners"]["kafka"]
    assert inside["authenticationMethod"] == "sasl"
    for name in WITH_KAFKA:
        variables = environment(workload(name))
        assert variables["KAFKA_BOOTSTRAP"].endswith(f":{inside['port']}")
        assert variables["KAFKA_USERNAME"] == name
        # What a service speaks is what the listener inside speaks.
        assert variables.get("KAFKA_SECURITY", "plaintext") == ("tls" if inside["tls"]["enabled"] else "plaintext")
    assert values["statefulset"]["replicas"] == 1
    assert values["config"]["cluster"]["write_caching_default"] == "false"
    assert values["config"]["cluster"]["auto_create_topics_enabled"] is False


# Variables


def workload(name):
    (thing,) = [thing for thing in of_kind("Deployment") if thing.name == name]
    return containers(pod_template(thing))[0]


@pytest.mark.parametrize("name", SERVICES)
def test_variables_are_those_the_binary_reads(name, count):
    own = rust(f"cluster/{name}/src")
    shared = rust("cluster/service/src")
    read = r'\b(required_list|required|optional_secret|optional|parsed|list|secret)\(\s*"([A-Z][A-Z0-9_]+)"'
    calls = re.findall(read, own) + re.findall(read, shared)
    secrets = {f"{variable}_FILE" for how, variable in calls if how.endswith("secret")}
    known = {variable for _, variable in calls} | secrets
    if "KafkaSettings" not in own:
        known = {variable for variable in known if not variable.startswith("KAFKA_")}
    known |= set(re.findall(r'"(LOG_[A-Z]+)"', shared))
    needed = {variable for how, variable in re.findall(read, own) if how in ("required", "required_list", "secret")}
    if "AuthSettings" in own:
        needed |= {"OIDC_ISSUERS", "OIDC_AUDIENCES"}
    if "KafkaSettings" in own:
        # A login is the house's rule; without one the broker would only say no.
        needed |= {"KAFKA_BOOTSTRAP", "KAFKA_USERNAME", "KAFKA_PASSWORD"}
    given = set(environment(workload(name)))
    assert given <= known, f"{name} does not read {given - known}"
    missing = {variable for variable in needed if variable not in given and f"{variable}_FILE" not in given}
    assert not missing, f"{name} needs {missing}"
    count("variables compared", len(given))


def test_the_migration_script_reads_what_its_jobs_set():
    script = (GITOPS / "apps/base/timescaledb/run_migrations.sh").read_text()
    for thing in of_kind("Job"):
        if not thing.name.endswith("-migrations"):
            continue
        for variable in environment(containers(pod_template(thing))[0]):
            assert variable.startswith("PG") or variable.removesuffix("_FILE") in script, f"{thing}: {variable}"


def test_the_page_and_the_services_agree_on_tokens_and_time():
    page = json.loads((GITOPS / "apps/base/heatpump-web/config.json").read_text())
    example = json.loads((ROOT / "cluster/heatpump-web/config.example.json").read_text())
    assert set(page) == set(example)
    scopes = re.search(r"## Scopes\n\n`([^`]+)`", (ROOT / "docs/API.md").read_text()).group(1).split()
    assert set(scopes) <= set(page["scope"].split())
    for name in ("homelab-api", "homelab-settings-api", "energy-ws"):
        variables = environment(workload(name))
        assert variables["OIDC_ISSUERS"] == page["issuer"]
        assert variables["OIDC_AUDIENCES"] == page["client_id"]
    (household,) = [thing for thing in of_kind("ConfigMap") if thing.name == "household"]
    zone = household.body["data"]["HOUSEHOLD_TIME_ZONE"]
    assert page["household_time_zone"] == zone
    assert {thing.body["spec"]["timeZone"] for thing in of_kind("CronJob")} == {zone}


class Blueprint(yaml.SafeLoader):
    """Authentik's own tags, kept as text."""


def tagged(loader, tag, node):
    """A tag and its value, as a pair."""
    return tag, node.value if isinstance(node, yaml.ScalarNode) else loader.construct_sequence(node, deep=True)


Blueprint.add_multi_constructor("!", tagged)


def test_the_blueprint_has_the_client_and_the_scopes():
    text = (GITOPS / "apps/base/authentik/homelab.yaml").read_text()
    entries = yaml.load(text, Blueprint)["entries"]
    scopes = re.search(r"## Scopes\n\n`([^`]+)`", (ROOT / "docs/API.md").read_text()).group(1).split()
    for entry in entries:
        # What an entry is found by is what it is set to; otherwise Authentik would make a second one.
        for key, value in entry["identifiers"].items():
            assert entry["attrs"].get(key, value) == value, f"{entry['model']}: {key} {value}"
    mappings = {
        entry["id"]: entry["attrs"]["scope_name"] for entry in entries if entry["model"].endswith(".scopemapping")
    }
    assert sorted(mappings.values()) == sorted(scopes)
    page = json.loads((GITOPS / "apps/base/heatpump-web/config.json").read_text())
    (client,) = [
        entry
        for entry in entries
        if entry["model"].endswith(".oauth2provider") and entry["attrs"]["client_id"] == page["client_id"]
    ]
    given = {mappings[name] for tag, name in client["attrs"]["property_mappings"] if tag == "KeyOf"}
    assert given == set(scopes)
    assert client["attrs"]["client_type"] == "public" and client["attrs"]["signing_key"]
    redirects = {entry["url"] for entry in client["attrs"]["redirect_uris"]}
    assert redirects == {f"{origin}{path}" for origin in ORIGINS for path in ("/callback", "/")}
    (application,) = [entry for entry in entries if entry["identifiers"].get("slug") == "homelab"]
    assert urlsplit(page["issuer"]).path == f"/application/o/{application['attrs']['slug']}/"
    ids = {entry["id"] for entry in entries if "id" in entry}
    assert {name for tag, name in re.findall(r"!(KeyOf) ([\w-]+)", text)} <= ids
    bound = [entry for entry in entries if entry["model"].endswith(".policybinding")]
    assert {entry["identifiers"]["target"][1] for entry in bound} == {
        entry["id"] for entry in entries if entry["model"].endswith(".application")
    }, "an application without a binding lets everybody in"


# Routes


def routes(host):
    """The rules for a host, the first to be asked first."""
    found = [
        route
        for thing in of_kind("IngressRoute")
        for route in thing.body["spec"]["routes"]
        if f"Host(`{host}`)" in route["match"]
    ]
    return sorted(found, key=lambda route: -route["priority"])


def matches(rule, host, method, path):
    """Whether a rule of Traefik takes a request: the five matchers the tree uses, and nothing else."""
    expression = re.sub(r"(\w+)\(`([^`]*)`\)", lambda found: f"{found[1]}({found[2]!r})", rule)
    expression = expression.replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    matchers = {
        "Host": lambda name: host == name,
        "Method": lambda name: method == name,
        "Path": lambda name: path == name,
        "PathPrefix": lambda prefix: path.startswith(prefix),
        "PathRegexp": lambda pattern: re.search(pattern, path) is not None,
    }
    # The text is a file of this repository, and no name but the matchers is known in it.
    return eval(expression, {"__builtins__": {}}, matchers)


def answered_by(method, path, host="homelab.k12n.com"):
    return next(route for route in routes(host) if matches(route["match"], host, method, path))


def test_each_path_goes_to_its_service_as_on_a_developers_machine(count):
    gateway = (ROOT / "tests/stack/src/gateway.rs").read_text()
    ports = {"1": "homelab-api", "2": "homelab-settings-api", "3": "energy-ws"}
    cases = re.findall(r'\("(/(?:api|ws)[^"]*)", ([123])\)', gateway)
    assert len(cases) >= 10
    for path, port in cases:
        for method in ("GET", "PATCH", "POST", "DELETE"):
            route = answered_by(method, path)
            assert route["services"][0]["name"] == ports[port], f"{method} {path}"
            count("routes followed")
    for path in ("/", "/callback", "/assets/app-1.js", "/config.json", "/apiary", "/wsx"):
        assert answered_by("GET", path)["services"][0]["name"] == "heatpump-web", path


def test_a_browsers_question_is_answered_before_anything_wants_a_token():
    first = routes("homelab.k12n.com")[0]
    assert first["priority"] == 210
    assert first["middlewares"] == [{"name": "cors"}]
    for path in ("/api/v1/energy/latest", "/api/v1/heatpump/settings/ivt-495", "/api/v1/plugs/plug-1"):
        assert answered_by("OPTIONS", path) is first
        assert answered_by("GET", path)["priority"] < 210
    for route in routes("homelab.k12n.com")[1:]:
        assert route["priority"] < 210
        if "/api" in route["match"]:
            assert {"name": "cors"} in route["middlewares"], route["match"]


def test_cors_lets_the_three_origins_in():
    (cors,) = yaml.safe_load_all((GITOPS / "apps/base/traefik-middlewares/cors.yaml").read_text())
    headers = cors["spec"]["headers"]
    assert headers["accessControlAllowOriginList"] == ORIGINS
    assert set(headers["accessControlAllowMethods"]) == {"GET", "PATCH", "POST", "DELETE", "OPTIONS"}
    assert "Authorization" in headers["accessControlAllowHeaders"]
    assert headers["accessControlAllowCredentials"] is False
    assert environment(workload("energy-ws"))["ALLOWED_ORIGINS"].split(",") == ORIGINS


def test_the_page_has_its_security_headers():
    (headers,) = [thing for thing in of_kind("Middleware") if thing.name == "page-headers"]
    page = json.loads((GITOPS / "apps/base/heatpump-web/config.json").read_text())
    issuer = urlsplit(page["issuer"])
    want = json.loads((ROOT / "cluster/heatpump-web/security-headers.json").read_text())
    origin = f"{issuer.scheme}://{issuer.netloc}"
    want = {name: value.replace("{connect_origins}", origin) for name, value in want.items()}
    assert headers.body["spec"]["headers"]["customResponseHeaders"] == want
    assert answered_by("GET", "/")["middlewares"] == [{"name": "page-headers"}]


def test_names_and_ports_of_routes_are_those_of_services():
    services = dict(CHART_SERVICES)
    for thing in of_kind("Service"):
        ports = thing.body["spec"]["ports"]
        services[thing.namespace, thing.name] = {entry for port in ports for entry in (port["name"], port["port"])}
    middlewares = {(thing.namespace, thing.name) for thing in of_kind("Middleware")}
    for thing in of_kind("IngressRoute"):
        for route in thing.body["spec"]["routes"]:
            for service in route["services"]:
                ports = services.get((service.get("namespace", thing.namespace), service["name"]), set())
                assert service["port"] in ports, f"{thing}: {service}"
            for middleware in route.get("middlewares", []):
                assert (thing.namespace, middleware["name"]) in middlewares, f"{thing}: {middleware}"
    # No route reaches an admin port.
    text = yaml.safe_dump([thing.body for thing in of_kind("IngressRoute")])
    assert "metrics" not in text and "9090" not in text
    # Every address inside the cluster that a variable or a middleware names.
    for thing in objects():
        for name, port in re.findall(r"([\w-]+)\.homelab\.svc\.cluster\.local(?::(\d+))?", yaml.safe_dump(thing.body)):
            assert int(port or 80) in services[("homelab", name)], f"{thing}: {name}:{port}"
        if thing.kind == "ServiceMonitor":
            for value in thing.body["spec"]["selector"].get("matchExpressions", [{}])[0].get("values", []):
                assert "metrics" in services[("homelab", value)], value


# Metrics


def known_metrics():
    """Every metric the code registers or the exporter's configuration defines."""
    agent = re.findall(r'metrics\.(?:labelled_)?(?:counter|gauge|rate)\(\s*"(\w+)"', rust("edge-agent/src"))
    names = {f"edge_agent_{name}" for name in agent}
    made = r'\.(counter|gauge|histogram)s?\(\s*"(\w+)"'
    shared = re.findall(made, rust("cluster/service/src"))
    for service in SERVICES:
        prefix = service.replace("-", "_")
        source = rust(f"cluster/{service}/src")
        assert f'Metrics::new("{prefix}")' in source
        own = re.findall(made, source)
        # The sink has neither an API nor tokens.
        for kind, name in own + (shared if "AuthSettings" in source else []):
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            names |= {f"{prefix}_{name}{end}" for end in ends}
    exporter = yaml.safe_load((GITOPS / "apps/base/monitoring/sql_exporter.yml").read_text())
    return names | {metric["metric_name"] for metric in exporter["collectors"][0]["metrics"]}


def metrics_in(expression):
    """Names of metrics in a PromQL expression."""
    text = re.sub(r"\{[^}]*\}", "", expression)
    text = re.sub(r'"[^"]*"', "", text)
    text = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\[[^\]]*\]", "", text)
    words = re.findall(r"(?<![\w.])([a-zA-Z_]\w*)\b(?!\s*\()", text)
    return {word for word in words if word not in {"or", "and", "unless", "by", "on", "le"}}


def expressions():
    """(where, expression) of every alert and every panel."""
    for thing in of_kind("PrometheusRule"):
        for group in thing.body["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"]
    for file in sorted((GITOPS / "apps/base/monitoring/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]


def test_alerts_and_dashboards_name_metrics_that_exist(count):
    known = known_metrics()
    found = list(expressions())
    for where, expression in found:
        for name in metrics_in(expression):
            # What every scrape has, and what kube-state-metrics and the node exporter bring.
            assert name in known or name == "up" or name.startswith(("kube_", "node_")), f"{where}: {name}"
    count("expressions", len(found))


def test_the_alerts_a_house_needs_are_there():
    rules = {
        rule["alert"]: rule
        for thing in of_kind("PrometheusRule")
        for group in thing.body["spec"]["groups"]
        for rule in group["rules"]
    }
    assert {"RoomFreezing", "HeatPumpSilent", "BackupFailed", "BackupMissing", "AgentDown", "SinkBehind"} <= set(rules)
    assert all(rule["labels"]["severity"] and rule["annotations"]["summary"] for rule in rules.values())
    assert rules["HomelabAlive"]["expr"] == "vector(1)"
    (config,) = of_kind("AlertmanagerConfig")
    spec = config.body["spec"]
    receivers = {receiver["name"]: receiver for receiver in spec["receivers"]}
    (switch,) = [route for route in spec["route"]["routes"] if route["matchers"][0]["value"] == "HomelabAlive"]
    assert receivers[switch["receiver"]]["webhookConfigs"][0]["urlSecret"]["key"] == "heartbeat-url"
    assert spec["route"]["receiver"] in receivers
    shown = {
        file
        for thing in of_kind("ConfigMap")
        if thing.body["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for file in thing.body["data"]
    }
    assert shown == {file.name for file in (GITOPS / "apps/base/monitoring/dashboards").glob("*.json")}


def test_both_agents_are_scraped_at_one_address_with_redpanda():
    (scrape,) = of_kind("ScrapeConfig")
    targets = {entry["labels"]["agent"]: entry["targets"][0] for entry in scrape.body["spec"]["staticConfigs"]}
    assert set(targets) == {"p0", "p1"} and all(target.endswith(":9180") for target in targets.values())
    (release,) = [thing for thing in of_kind("HelmRelease") if thing.name == "redpanda"]
    external = release.body["spec"]["values"]["external"]["addresses"]
    (job,) = [thing for thing in of_kind("Job") if thing.name == "redpanda-topics"]
    brokers = environment(containers(pod_template(job))[0])["BROKERS"]
    port = release.body["spec"]["values"]["listeners"]["kafka"]["external"]["default"]["advertisedPorts"][0]
    assert [targets["p0"].split(":")[0]] == external and brokers == f"{external[0]}:{port}"
