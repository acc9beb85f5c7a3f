"""The whole tree applied to a real API server, server side and strictly: what it refuses, the cluster would refuse.

There are no nodes and no controllers, so nothing of it runs. Everything is on 127.0.0.1 and gone at the end.
"""

import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time

import pytest
import yaml

from tree import KUBECTL, PLACE, objects

READY_WITHIN_SECONDS = 120


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """An API server with its etcd, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.parts = []

    def start(self):
        etcd, peer = free_port(), free_port()
        self.run(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--log-level=error",
        )
        (self.folder / "tokens.csv").write_text(f"{self.token},test,test,system:masters\n")
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}/certs",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.43.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while self.kubectl("get", "--raw=/readyz").returncode != 0:
            for name, part in self.parts:
                log = (self.folder / f"{name}.log").read_text()
                assert part.poll() is None, f"{name} ended: {log[-2000:]}"
            assert time.monotonic() < deadline, f"no API server after {READY_WITHIN_SECONDS} s"
            time.sleep(0.5)

    def run(self, name, *arguments):
        log = (self.folder / f"{name}.log").open("wb")
        part = subprocess.Popen([PLACE / "bin" / name, *arguments], stdout=log, stderr=log, cwd=self.folder)
        self.parts.append((name, part))

    def kubectl(self, *arguments, text=None):
        authority = self.folder / "certs/apiserver.crt"
        if not authority.exists():
            return subprocess.CompletedProcess(arguments, 1, "", "no certificate yet")
        server = [f"--server=https://127.0.0.1:{self.port}", f"--certificate-authority={authority}"]
        server.append(f"--token={self.token}")
        return subprocess.run(
            [KUBECTL, *server, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            # Never somebody's own cluster.
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": "/dev/null"},
        )

    def stop(self):
        for _, part in reversed(self.parts):
            part.terminate()
            try:
                part.wait(15)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()


@pytest.fixture(scope="module")
def server(note):
    if not all((PLACE / "bin" / name).exists() for name in ("etcd", "kube-apiserver")):
        note("the tree was not applied to an API server: etcd and kube-apiserver are not built (GITOPS_BUILD)")
        yield None
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="gitops-apiserver-"))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def apply(server, bodies):
    text = yaml.safe_dump_all(bodies)
    return server.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", text=text)


def test_the_api_server_takes_the_whole_tree(server, count):
    if server is None:
        return
    crds = [
        crd
        for file in sorted((PLACE / "crds").glob("*.yaml"))
        for crd in yaml.safe_load_all(file.read_text())
        if crd
    ]
    done = apply(server, crds)
    assert done.returncode == 0, done.stderr
    established = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    assert established.returncode == 0, established.stderr

    # Flux's own namespace is made by its bootstrap.
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}]
    namespaces += [thing.body for thing in objects() if thing.kind == "Namespace"]
    done = apply(server, namespaces)
    assert done.returncode == 0, done.stderr

    rest = [thing.body for thing in objects() if thing.kind != "Namespace"]
    done = apply(server, rest)
    assert done.returncode == 0, done.stderr
    applied = done.stdout.count("serverside-applied")
    assert applied == len(rest), done.stdout
    # The namespaces ask for a warning wherever a pod would not pass the restricted standard.
    assert "PodSecurity" not in done.stderr, done.stderr
    count("applied to a real API server", applied + len(namespaces))


def test_the_api_server_refuses_an_unknown_field(server):
    """The test above would prove nothing if it did not."""
    if server is None:
        return
    broken = next(thing.body for thing in objects() if thing.kind == "IngressRoute")
    done = apply(server, [{**broken, "spec": {**broken["spec"], "entrypoints": ["web"]}}])
    assert done.returncode != 0 and "entrypoints" in done.stderr, done.stderr
