"""The network policies as a whole: what one pod may open, the other lets in; what a pod is told to reach, it may reach.

Only connections inside the namespace homelab are followed both ways; names from outside it stand in policies as they are.
"""

import re

from tree import WORKLOADS, containers, environment, of_kind, pod_template, walk

LABEL = "app.kubernetes.io/name"
# The chart's own Jobs talk to its pod with the same label.
OF_ITSELF = {"redpanda"}


def policies():
    """Each policy of homelab with the pod it is for."""
    for policy in of_kind("NetworkPolicy"):
        name = policy.body["spec"]["podSelector"].get("matchLabels", {}).get(LABEL)
        if policy.namespace == "homelab" and name:
            yield name, policy.body["spec"]


def connections(direction):
    """(from, to, port) of every rule that names a pod of homelab."""
    key = "to" if direction == "egress" else "from"
    for name, spec in policies():
        for rule in spec.get(direction, []):
            for peer in rule.get(key, []):
                other = peer.get("podSelector", {}).get("matchLabels", {}).get(LABEL)
                if not other or "namespaceSelector" in peer:
                    continue
                for port in rule.get("ports", [{"port": "any"}]):
                    yield (name, other, port["port"]) if direction == "egress" else (other, name, port["port"])


def test_what_one_pod_may_open_the_other_lets_in_and_nothing_more(count):
    out, into = set(connections("egress")), set(connections("ingress"))
    out = {line for line in out if line[0] not in OF_ITSELF}
    into = {line for line in into if line[0] not in OF_ITSELF}
    assert out - into == set(), f"may be opened, but is not let in: {sorted(out - into)}"
    assert into - out == set(), f"is let in, but may not be opened: {sorted(into - out)}"
    assert len(out) > 15
    count("connections allowed both ways", len(out))


def pods_of_services():
    """The pod behind a name in the cluster, with its ports by number."""
    found = {"redpanda": ("redpanda", {}), "authentik-server": ("authentik", {80: 9000})}
    for thing in of_kind("Service"):
        if thing.namespace != "homelab":
            continue
        name = thing.body["spec"]["selector"][LABEL]
        named = {
            port["name"]: port["containerPort"]
            for workload in of_kind("Deployment", "StatefulSet")
            if pod_template(workload)["metadata"]["labels"][LABEL] == name
            for container in containers(pod_template(workload))
            for port in container.get("ports", [])
        }
        ports = {port["port"]: named[port["targetPort"]] for port in thing.body["spec"]["ports"]}
        found[thing.name] = (name, ports)
    return found


def test_a_pod_may_reach_what_its_environment_names(count):
    services = pods_of_services()
    allowed = set(connections("egress"))
    for thing in of_kind(*WORKLOADS):
        if thing.namespace != "homelab":
            continue
        template = pod_template(thing)
        name = template["metadata"]["labels"][LABEL]
        for container in containers(template):
            variables = environment(container)
            wanted = set()
            for value in filter(None, variables.values()):
                found = re.findall(r"([\w-]+)\.homelab\.svc\.cluster\.local(?::(\d+))?", value)
                wanted |= {(service, int(port or 80)) for service, port in found}
            if variables.get("PGHOST"):
                wanted.add((variables["PGHOST"], 5432))
            for service, port in wanted:
                pod, ports = services[service]
                assert (name, pod, ports.get(port, port)) in allowed, f"{thing}: may not reach {service}:{port}"
                count("addresses reachable")


def test_every_pod_of_ours_is_closed_in_both_directions():
    both = {}
    for policy in of_kind("NetworkPolicy"):
        name = policy.body["spec"]["podSelector"].get("matchLabels", {}).get(LABEL)
        both.setdefault((policy.namespace, name), set()).update(policy.body["spec"]["policyTypes"])
    for thing in of_kind(*WORKLOADS):
        name = pod_template(thing)["metadata"]["labels"][LABEL]
        closed = both.get((thing.namespace, None), set()) | both.get((thing.namespace, name), set())
        assert closed == {"Ingress", "Egress"}, f"{thing}: only {closed}"


def test_only_backups_and_the_tunnel_leave_the_house():
    """An address block that holds the internet stands nowhere else."""
    leaving = {
        (policy.namespace, policy.body["spec"]["podSelector"].get("matchLabels", {}).get(LABEL))
        for policy in of_kind("NetworkPolicy")
        for _, value in walk(policy.body["spec"].get("egress", []))
        if value.get("cidr") == "0.0.0.0/0"
    }
    assert leaving == {
        ("homelab", "telemetry-backup"),
        ("homelab", "homelab-settings-backup"),
        ("homelab", "authentik-backup"),
        ("cloudflared", "cloudflared"),
    }
    for policy in of_kind("NetworkPolicy"):
        for _, value in walk(policy.body["spec"].get("egress", [])):
            if value.get("cidr") == "0.0.0.0/0":
                assert set(value["except"]) == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, policy
    # A rule without a peer lets everything out to that port: only for what the node translates.
    for policy in of_kind("NetworkPolicy"):
        for rule in policy.body["spec"].get("egress", []):
            if "to" not in rule:
                assert {port["port"] for port in rule["ports"]} == {31092, 9094}, policy
