"""The rules of this house for manifests: what no schema says."""

import re

import yaml

from tree import GITOPS, ROOT, WORKLOADS, containers, objects, of_kind, pod_template, rendered, walk

SERVING = ("Deployment", "StatefulSet", "DaemonSet")
# Pods that charts make: their labels and ports are the charts', so policies and routes may name them.
FROM_CHARTS = {"authentik", "redpanda", "traefik", "grafana", "kube-prometheus-stack-operator", "kube-dns"}


def check(problems):
    problems = list(problems)
    assert not problems, "\n".join(problems)


def workloads(*kinds):
    return [(thing, pod_template(thing)) for thing in of_kind(*(kinds or WORKLOADS))]


def test_every_migration_is_listed():
    def problems():
        for folder in sorted(GITOPS.glob("apps/base/*/migrations")):
            made = yaml.safe_load((folder.parent / "kustomization.yaml").read_text())
            named = [name for maker in made["configMapGenerator"] for name in maker["files"]]
            listed = [name for name in named if name.startswith("migrations/")]
            files = sorted(f"migrations/{file.name}" for file in folder.iterdir())
            if listed != files:
                yield f"{folder.parent.name}: listed {listed}, there are {files}"

    check(problems())


def test_every_migration_job_mounts_what_is_listed():
    names = {thing.name for thing in of_kind("ConfigMap")}
    for job in ("timescaledb-migrations", "homelab-settings-migrations"):
        (template,) = [template for thing, template in workloads("Job") if thing.name == job]
        mounted = {volume["configMap"]["name"] for volume in template["spec"]["volumes"] if "configMap" in volume}
        assert mounted <= names, mounted - names
        assert any(re.fullmatch(rf"{job}-[a-z0-9]+", name) for name in mounted), f"{job}: no hashed name in {mounted}"


def test_images_have_a_version():
    def problems():
        for thing, template in workloads():
            for container in containers(template):
                if not re.search(r":v?\d+\.\d[\w.-]*$", container["image"]):
                    yield f"{thing}: {container['image']}"
        for thing in of_kind("HelmRelease"):
            version = str(thing.body["spec"]["chart"]["spec"]["version"])
            if not re.fullmatch(r"\d+\.\d+\.\d+", version):
                yield f"{thing}: chart version {version}"
            for path, value in walk(thing.body["spec"]["values"]):
                if "tag" in value and not re.fullmatch(r"v?\d+\.\d[\w.-]*", str(value["tag"])):
                    yield f"{thing}: {'.'.join(map(str, path))}.tag {value['tag']}"
        for path, text in rendered().items():
            if re.search(r":latest\b", text):
                yield f"{path}: latest"

    check(problems())


def test_no_secret_is_in_the_tree():
    assert not of_kind("Secret"), [str(thing) for thing in of_kind("Secret")]
    for file in GITOPS.rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert "secretGenerator" not in text, file
            assert "BEGIN PRIVATE KEY" not in text and "BEGIN RSA" not in text, file


def asked_for():
    """(namespace, secret, key) of every secret the manifests name; key is None where all of it is mounted."""
    for thing in objects():
        for path, value in walk(thing.body):
            if "secretKeyRef" in value:
                reference = value["secretKeyRef"]
                yield thing.namespace, reference["name"], reference["key"]
            for key in ("urlSecret",):
                if key in value:
                    yield thing.namespace, value[key]["name"], value[key]["key"]
            if path and path[-1] == "secret" and "secretName" in value:
                keys = [item["key"] for item in value.get("items", [])] or [None]
                yield from ((thing.namespace, value["secretName"], key) for key in keys)
            if path and path[-1] == "secret" and "name" in value:
                # One of several in a projected volume.
                yield from ((thing.namespace, value["name"], item["key"]) for item in value["items"])
            if isinstance(value.get("secretRef"), dict):
                yield thing.namespace, value["secretRef"]["name"], None
            elif isinstance(value.get("secretRef"), str):
                yield thing.namespace, value["secretRef"], None
            if "existingSecret" in value:
                yield from (
                    (thing.namespace, value["existingSecret"], value[key]) for key in ("userKey", "passwordKey")
                )


def documented():
    """Keys of every secret that docs/SECRETS.md has a command for, by namespace and name."""
    text = (ROOT / "docs/SECRETS.md").read_text().replace("\\\n", " ")
    found = {}
    for line in re.findall(r"^kubectl .* create secret .*$", text, re.MULTILINE):
        assert "--dry-run=client -o yaml | seal" in line, line
        namespace, name = re.search(r"-n (\S+) create secret generic (\S+)", line).groups()
        keys = re.findall(r"--from-literal=([\w.-]+)=", line) + re.findall(r"--from-file=([\w.-]+)", line)
        found[namespace, name] = set(keys)
    return found


def test_every_secret_has_its_command_in_the_documentation(count):
    known = documented()
    asked = set(asked_for())
    check(
        f"{namespace}/{name} {key or ''}: no command in docs/SECRETS.md"
        for namespace, name, key in sorted(asked, key=str)
        if (namespace, name) not in known or (key and key not in known[namespace, name])
    )
    unused = set(known) - {(namespace, name) for namespace, name, _ in asked}
    assert not unused, f"docs/SECRETS.md makes secrets nobody reads: {unused}"
    count("secrets documented", len(known))
    # Files of mounted secrets that are named in the environment.
    for thing, template in workloads():
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for container in containers(template):
            for entry in container.get("env", []):
                value = entry.get("value") or ""
                if entry["name"].endswith("_FILE") and value.startswith("/run/secrets/"):
                    _, _, _, volume, key = value.split("/")
                    secret = volumes[volume]["secret"]["secretName"]
                    assert key in known[thing.namespace, secret], f"{thing}: {value}"


def test_pods_may_do_little():
    def problems():
        for thing, template in workloads():
            spec = template["spec"]
            for field in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(field):
                    yield f"{thing}: {field}"
            if spec.get("automountServiceAccountToken") is not False:
                yield f"{thing}: a token of the cluster is mounted"
            pod = spec.get("securityContext", {})
            if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
                yield f"{thing}: may run as root"
            if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{thing}: no seccomp profile"
            for container in containers(template):
                context = container.get("securityContext", {})
                if context.get("allowPrivilegeEscalation") is not False:
                    yield f"{thing} {container['name']}: may gain privileges"
                if context.get("readOnlyRootFilesystem") is not True:
                    yield f"{thing} {container['name']}: may write to its image"
                if context.get("capabilities") != {"drop": ["ALL"]}:
                    yield f"{thing} {container['name']}: keeps capabilities"
            if any("hostPath" in volume for volume in spec.get("volumes", [])):
                yield f"{thing}: mounts a folder of the node"
        for thing in of_kind("HelmRelease"):
            for path, value in walk(thing.body["spec"]["values"]):
                if value.get("hostNetwork"):
                    yield f"{thing}: {'.'.join(map(str, path))}.hostNetwork"

    check(problems())


def test_every_container_has_requests_and_limits():
    def problems():
        for thing, template in workloads():
            for container in containers(template):
                resources = container.get("resources", {})
                for side in ("requests", "limits"):
                    if set(resources.get(side, {})) != {"cpu", "memory"}:
                        yield f"{thing} {container['name']}: {side} of cpu and memory"
            for volume in template["spec"].get("volumes", []):
                if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                    yield f"{thing}: emptyDir {volume['name']} has no limit"
        for thing in of_kind("HelmRelease"):
            found = [value["resources"] for _, value in walk(thing.body["spec"]["values"]) if "resources" in value]
            found = [value for value in found if "storage" not in value.get("requests", {})]
            if not found:
                yield f"{thing}: no resources"
            for value in found:
                for side in ("requests", "limits"):
                    if set(value.get(side, {})) != {"cpu", "memory"}:
                        yield f"{thing}: {value}"

    check(problems())


def test_every_serving_container_has_three_probes():
    check(
        f"{thing} {container['name']}: no {probe}"
        for thing, template in workloads(*SERVING)
        for container in template["spec"]["containers"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        if probe not in container
    )


def test_probes_and_services_name_ports_that_exist():
    def problems():
        ports = {}
        for thing, template in workloads(*SERVING):
            name = template["metadata"]["labels"]["app.kubernetes.io/name"]
            for container in template["spec"]["containers"]:
                own = {port["name"] for port in container.get("ports", [])}
                ports[thing.namespace, name] = own
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    port = container.get(probe, {}).get("httpGet", {}).get("port")
                    if port and port not in own:
                        yield f"{thing}: {probe} asks port {port}"
        for thing in of_kind("Service"):
            chosen = ports.get((thing.namespace, thing.body["spec"]["selector"]["app.kubernetes.io/name"]))
            for port in thing.body["spec"]["ports"]:
                if chosen is None or port["targetPort"] not in chosen:
                    yield f"{thing}: no pod has port {port['targetPort']}"

    check(problems())


def test_every_pod_has_a_network_policy_and_policies_name_pods_that_exist():
    policies = of_kind("NetworkPolicy")
    labels = {
        (thing.namespace, template["metadata"]["labels"]["app.kubernetes.io/name"]) for thing, template in workloads()
    }
    own = {
        (policy.namespace, policy.body["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name"))
        for policy in policies
    }
    closed = {policy.namespace for policy in policies if policy.name == "default-deny"}

    def problems():
        for namespace, name in sorted(labels - own):
            yield f"{namespace}/{name}: no network policy"
        for namespace in {namespace for namespace, _ in labels} - closed:
            yield f"{namespace}: no default-deny"
        known = {name for _, name in labels} | FROM_CHARTS
        for policy in policies:
            for _, value in walk(policy.body["spec"]):
                selector = value.get("podSelector", {}).get("matchLabels", {})
                for name in selector.values():
                    if name not in known:
                        yield f"{policy}: names {name}, which is no pod"

    check(problems())


def test_jobs_are_made_again_when_they_change():
    check(
        f"{thing}: {reason}"
        for thing, template in workloads("Job")
        for reason in (
            []
            if thing.body["metadata"].get("annotations", {}).get("kustomize.toolkit.fluxcd.io/force") == "enabled"
            else ["Flux cannot change it"]
        )
        + (["Flux would make it again once it is removed"] if "ttlSecondsAfterFinished" in thing.body["spec"] else [])
    )


def test_backups_run_at_their_hours_and_are_verified():
    hours = {thing.name: thing.body["spec"]["schedule"] for thing in of_kind("CronJob")}
    assert hours == {
        "telemetry-backup": "0 2 * * *",
        "homelab-settings-backup": "30 2 * * *",
        "authentik-backup": "0 3 * * *",
    }
    dump = (GITOPS / "apps/base/backup/dump.sh").read_text()
    upload = (GITOPS / "apps/base/backup/upload.sh").read_text()
    assert "pg_dump" in dump and "gzip" in dump
    assert upload.index("rclone cat") < upload.index("rclone delete"), "old dumps go only after the new one is read back"


def kustomizations():
    return {thing.name: thing.body["spec"] for thing in of_kind("Kustomization")}


def test_flux_applies_every_path_once_and_in_order():
    specs = kustomizations()
    paths = {name: spec["path"].removeprefix("./gitops/") for name, spec in specs.items()}
    there = {
        path
        for path in rendered()
        if path.startswith(("infrastructure/", "apps/homelab/"))
    }
    assert sorted(paths.values()) == sorted(there)
    done = set()
    while len(done) < len(specs):
        ready = {
            name
            for name, spec in specs.items()
            if name not in done and {entry["name"] for entry in spec.get("dependsOn", [])} <= done
        }
        assert ready, f"these wait for each other or for nothing: {set(specs) - done}"
        done |= ready
    for name, spec in specs.items():
        assert spec["wait"] and spec["prune"] and spec["timeout"], name


def test_health_checks_name_what_is_there():
    there = {(thing.path, thing.kind, thing.name) for thing in objects()}
    for name, spec in kustomizations().items():
        path = spec["path"].removeprefix("./gitops/")
        for check_ in spec.get("healthChecks", []):
            assert (path, check_["kind"], check_["name"]) in there, f"{name}: {check_}"
        slow = {
            (path, thing.kind, thing.name)
            for thing in objects()
            if thing.path == path and thing.kind in {"Deployment", "StatefulSet", "Job", "HelmRelease"}
        }
        checked = {(path, check_["kind"], check_["name"]) for check_ in spec.get("healthChecks", [])}
        assert slow <= checked, f"{name}: not waited for {slow - checked}"


def test_charts_come_from_sources_that_are_there():
    sources = {thing.name for thing in of_kind("HelmRepository")}
    for thing in of_kind("HelmRelease"):
        assert thing.body["spec"]["chart"]["spec"]["sourceRef"]["name"] in sources, thing
