"""Requests of all pods per node, against the table of docs/OPERATIONS.md and the memory of a Pi.

Run as a program it prints the table.
"""

import re

from tree import ROOT, containers, of_kind, pod_template, walk

NODES = ("p0", "p1")
# Of a Pi's 8 GB and 4 cores: the system, k3s and edge-agent keep the rest.
NODE_MEMORY_MIB = 5120
NODE_CPU_MILLI = 3000
# What a chart starts more than once from one setting.
TIMES = {"prometheusConfigReloader": 2, "sidecar": 2}


def milli(text):
    text = str(text)
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def mib(text):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", str(text)).groups()
    return int(number) * (1024 if unit == "Gi" else 1)


def amount(resources):
    return milli(resources["requests"]["cpu"]), mib(resources["requests"]["memory"])


def node_of(selector):
    return (selector or {}).get("kubernetes.io/hostname", "either")


def of_release(release):
    """(node, name, cpu, memory) of what a chart starts, by the values that say so."""
    values = release.body["spec"]["values"]
    for path, value in walk(values):
        resources = value.get("resources", {})
        if "requests" not in resources or "storage" in resources["requests"]:
            continue
        pod = value.get("statefulset", {}).get("podTemplate", {}).get("spec", {})
        node = node_of(value.get("nodeSelector") or pod.get("nodeSelector"))
        if "node-exporter" in "".join(map(str, path)):
            node = "each"
        cpu, memory = amount(resources)
        times = TIMES.get(path[-1], 1) if path else 1
        name = release.name + "".join(f" {part}" for part in path)
        yield node, name, cpu * times, memory * times


def rows():
    """Every row of the table, and the largest of the Jobs, which run one after the other."""
    found, largest = [], (0, 0)
    for thing in of_kind("Deployment", "StatefulSet", "Job", "CronJob"):
        template = pod_template(thing)
        pairs = [amount(container["resources"]) for container in template["spec"]["containers"]]
        cpu, memory = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        for container in containers(template):
            cpu, memory = max(cpu, amount(container["resources"])[0]), max(memory, amount(container["resources"])[1])
        if thing.kind in ("Job", "CronJob"):
            largest = max(largest[0], cpu), max(largest[1], memory)
        else:
            times = thing.body["spec"]["replicas"]
            found.append((node_of(template["spec"].get("nodeSelector")), thing.name, cpu * times, memory * times))
    for release in of_kind("HelmRelease"):
        found += of_release(release)
    return sorted(found) + [("either", "one Job at a time", *largest)]


def sums():
    """What each node would carry if everything that may run on either ran on it: the other one may be gone."""
    return {
        node: tuple(
            sum(row[column] for row in rows() if row[0] in (node, "either", "each")) for column in (2, 3)
        )
        for node in NODES
    }


def table():
    lines = ["| node | what | cpu | memory |", "| --- | --- | --- | --- |"]
    lines += [f"| {node} | {name} | {cpu}m | {memory} MiB |" for node, name, cpu, memory in rows()]
    for node, (cpu, memory) in sums().items():
        room = f"**{cpu}m** of {NODE_CPU_MILLI}m | **{memory} MiB** of {NODE_MEMORY_MIB} MiB"
        lines.append(f"| {node} | **with all of either and each** | {room} |")
    return "\n".join(lines)


def test_requests_fit_on_each_node_even_alone(count):
    for node, (cpu, memory) in sums().items():
        assert cpu <= NODE_CPU_MILLI, f"{node}: {cpu}m"
        assert memory <= NODE_MEMORY_MIB, f"{node}: {memory} MiB"
        count(f"MiB requested on {node}", memory)


def test_the_table_of_operations_is_true():
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    assert table() in text, f"docs/OPERATIONS.md needs this table:\n{table()}"


if __name__ == "__main__":
    print(table())
