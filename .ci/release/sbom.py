#!/usr/bin/env python3
"""Prints the bill of materials of edge-agent for one target as CycloneDX 1.5.

It holds every crate that ends up in the binary (normal dependencies with the features of the release, for that target), with
the checksum of Cargo.lock, and the C libraries that crates carry along. It never asks the network, and holds no date and no
random number, so the same sources give the same bytes.

usage: sbom.py TARGET
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Crates that carry a C library, whose version stands after the plus.
CARRIED = {"rdkafka-sys": "librdkafka", "openssl-src": "openssl"}


def metadata(target):
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    command += ["--manifest-path", str(ROOT / "edge-agent/Cargo.toml"), "--features", "vendored-openssl"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linked(graph, root):
    """Ids reached from the agent by dependencies that are compiled in, and what each needs."""
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    needs, waiting = {}, [root]
    while waiting:
        here = waiting.pop()
        if here in needs:
            continue
        # Build dependencies run on the builder; OpenSSL's source is one, and what it builds is linked in.
        needs[here] = sorted(
            entry["pkg"]
            for entry in nodes[here]["deps"]
            if any(kind["kind"] is None for kind in entry["dep_kinds"]) or entry["name"] == "openssl_src"
        )
        waiting += needs[here]
    return needs


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 64
    graph = metadata(sys.argv[1])
    packages = {package["id"]: package for package in graph["packages"]}
    (root,) = [key for key, package in packages.items() if package["name"] == "edge-agent"]
    needs = linked(graph, root)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    sums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in locked}

    def reference(key):
        return f"pkg:cargo/{packages[key]['name']}@{packages[key]['version']}"

    def component(key):
        package = packages[key]
        made = {
            "type": "application" if key == root else "library",
            "bom-ref": reference(key),
            "name": package["name"],
            "version": package["version"],
            "purl": reference(key),
        }
        if package.get("license"):
            # Old crates write A/B for what is spelled A OR B.
            made["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
        if checksum := sums.get((package["name"], package["version"])):
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return made

    components = [component(key) for key in sorted(needs, key=reference) if key != root]
    for key in sorted(needs, key=reference):
        package = packages[key]
        if (name := CARRIED.get(package["name"])) and "+" in package["version"]:
            version = package["version"].split("+", 1)[1]
            made = {"type": "library", "name": name, "version": version, "purl": f"pkg:generic/{name}@{version}"}
            components.append({**made, "bom-ref": made["purl"]})
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(root),
            "properties": [{"name": "target", "value": sys.argv[1]}],
        },
        "components": components,
        "dependencies": [
            {"ref": reference(key), "dependsOn": sorted(map(reference, needs[key]))}
            for key in sorted(needs, key=reference)
        ],
    }
    print(json.dumps(bill, indent=1))
    return 0


sys.exit(main())
