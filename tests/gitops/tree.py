"""The tree in gitops/ as the tests see it: what kubectl kustomize makes of every path that Flux applies.

It only reads; nothing here talks to a cluster.
"""

import functools
import os
import pathlib
import subprocess
import tempfile
from dataclasses import dataclass

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
GITOPS = ROOT / "gitops"
PLACE = ROOT / "target/gitops"
KUBECTL = PLACE / "bin/kubectl"
# YAML 1.1 has a type for a lone "=", which the matchers of Alertmanager are written with; it is meant as text.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}


@dataclass(frozen=True)
class Object:
    """One object, with the path that Flux applies it from."""

    path: str
    body: dict

    @property
    def kind(self):
        return self.body["kind"]

    @property
    def name(self):
        return self.body["metadata"]["name"]

    @property
    def namespace(self):
        return self.body["metadata"].get("namespace")

    @property
    def group(self):
        """The API group, empty for the core."""
        api = self.body["apiVersion"]
        return api.split("/")[0] if "/" in api else ""

    def __str__(self):
        return f"{self.path}: {self.kind} {self.name}"


def kustomize(folder):
    """What kubectl makes of a kustomization, as text."""
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert not done.stderr.strip(), f"{folder}: {done.stderr}"
    return done.stdout


def cluster_text():
    """clusters/homelab, which has no kustomization.yaml: Flux makes one of every file, and so does this."""
    folder = GITOPS / "clusters/homelab"
    with tempfile.TemporaryDirectory() as scratch:
        names = sorted(os.listdir(folder))
        for name in names:
            pathlib.Path(scratch, name).write_text((folder / name).read_text())
        made = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
        pathlib.Path(scratch, "kustomization.yaml").write_text(yaml.safe_dump(made))
        return kustomize(scratch)


@functools.cache
def rendered():
    """Every path and its text: the cluster's own first, then what its Kustomizations apply, then bases by themselves."""
    texts = {"clusters/homelab": cluster_text()}
    for folder in sorted(GITOPS.rglob("kustomization.yaml")):
        path = folder.parent.relative_to(GITOPS).as_posix()
        texts[path] = kustomize(folder.parent)
    return texts


@functools.cache
def objects():
    """Every object that reaches the cluster: of the overlays and the infrastructure, not of the bases by themselves."""
    return [
        Object(path, body)
        for path, text in rendered().items()
        if not path.startswith("apps/base/")
        for body in yaml.safe_load_all(text)
        if body
    ]


def of_kind(*kinds):
    return [thing for thing in objects() if thing.kind in kinds]


def pod_template(thing):
    """The pod template of a workload."""
    spec = thing.body["spec"]
    return (spec["jobTemplate"]["spec"] if thing.kind == "CronJob" else spec)["template"]


def containers(template):
    """Every container of a pod, the ones that run before it included."""
    spec = template["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def environment(container):
    """Names and literal values (None for what comes from elsewhere) of a container's environment."""
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def walk(value, path=()):
    """Every dictionary below a value, with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, below in value.items():
            yield from walk(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from walk(below, (*path, index))
