"""The documents and the workflows name what is there."""

import re
import subprocess

import yaml

from tree import PLACE, ROOT, containers, of_kind, pod_template

IMAGES = {"redpanda-sink", "homelab-api", "homelab-settings-api", "energy-ws", "heatpump-web"}


def documents():
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_alert_is_explained_and_no_other(count):
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    section = text.split("## What each alert means", 1)[1].split("\n## ", 1)[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`(\w+)`", " ".join(first)))
    alerts = {
        rule["alert"]
        for thing in of_kind("PrometheusRule")
        for group in thing.body["spec"]["groups"]
        for rule in group["rules"]
    }
    assert explained == alerts, explained ^ alerts
    count("alerts explained", len(alerts))


def test_every_make_target_in_a_document_or_workflow_is_there(count):
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "systemd/release.mk").read_text()
    targets = {name for line in re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE) for name in line.split()}
    workflows = sorted((ROOT / ".github/workflows").glob("*.yaml"))
    for file in [*documents(), *workflows, ROOT / ".ci/run"]:
        for words in re.findall(r"(?:`|run: |step |^)make ((?:--silent )?[a-z][a-z -]*)", file.read_text(), re.MULTILINE):
            for target in words.replace("--silent", "").split():
                # A name that ends with a dash stands for several: make bench-*.
                assert target in targets or target.endswith("-"), f"{file.relative_to(ROOT)}: make {target}"
                count("make targets named")


def test_the_table_of_contents_names_documents_that_exist():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    for entry in nav:
        (place,) = entry.values()
        for path in [place] if isinstance(place, str) else [path for below in place for path in below.values()]:
            assert (ROOT / "docs" / path).is_file(), path
    decisions = {file.name for file in (ROOT / "docs/adr").glob("0*.md")}
    index = (ROOT / "docs/adr/README.md").read_text()
    assert all(name in index for name in decisions), "docs/adr/README.md does not list every decision"
    for words in ("sled", "rumqttd", "exactly-one", "quarter-hour", "plain-postgresql", "local-processes"):
        assert any(words in name for name in decisions), words


def test_images_built_are_those_the_tree_runs():
    script = (ROOT / ".ci/images.sh").read_text()
    built = set(re.search(r"^services=\((.*)\)", script, re.MULTILINE).group(1).split()) | {"heatpump-web"}
    run = {
        found[1]
        for thing in of_kind("Deployment", "StatefulSet", "Job", "CronJob")
        for container in containers(pod_template(thing))
        if (found := re.match(r"ghcr\.io/k12n/homelab/([\w-]+):", container["image"]))
    }
    assert built == run == IMAGES


def lint(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfiles_are_clean(count):
    files = sorted(file for file in ROOT.glob("cluster/**/Dockerfile") if "node_modules" not in file.parts)
    assert len(files) == 2
    lint(PLACE / "venv/bin/hadolint", *files)
    count("Dockerfiles linted", len(files))


def test_workflows_are_clean(count):
    files = sorted((ROOT / ".github/workflows").glob("*.yaml"))
    lint(PLACE / "bin/actionlint", "-no-color", *files)
    count("workflows linted", len(files))
    for file in files:
        for action in re.findall(r"uses: (.+)", file.read_text()):
            # A tag can be moved, a commit cannot; the version beside it is for the reader.
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), f"{file.name}: {action}"
        made = yaml.safe_load(file.read_text())
        assert made["permissions"] == {"contents": "read"} and made["concurrency"], file.name


def job(file, name):
    return yaml.safe_load((ROOT / ".github/workflows" / file).read_text())["jobs"][name]


def test_workflows_may_write_only_where_they_publish():
    writing = {
        (file.name, name, what)
        for file in (ROOT / ".github/workflows").glob("*.yaml")
        for name, body in yaml.safe_load(file.read_text())["jobs"].items()
        for what, how in body.get("permissions", {}).items()
        if how == "write"
    }
    assert writing == {
        ("check.yaml", "review", "pull-requests"),
        ("images.yaml", "build", "packages"),
        ("images.yaml", "build", "id-token"),
        ("images.yaml", "build", "attestations"),
        ("release.yaml", "tarballs", "contents"),
        ("release.yaml", "tarballs", "id-token"),
        ("release.yaml", "tarballs", "attestations"),
    }
    # A token that stays in the checkout would be there for every program the tests run.
    for file in sorted((ROOT / ".github/workflows").glob("*.yaml")):
        for name, body in yaml.safe_load(file.read_text())["jobs"].items():
            assert body["timeout-minutes"] <= 120, f"{file.name}: {name}"
            for step in body["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False, f"{file.name}: {name}"


def test_nothing_is_published_untested_and_without_provenance():
    runs = [step.get("run") for step in job("images.yaml", "test")["steps"]]
    assert ".ci/run" in runs
    build = job("images.yaml", "build")
    assert "test" in build["needs"]
    (push,) = [step["with"] for step in build["steps"] if step.get("with", {}).get("push")]
    assert push["platforms"] == "linux/arm64,linux/amd64" and push["provenance"] == "mode=max" and push["sbom"] is True
    steps = job("release.yaml", "tarballs")["steps"]
    place = {step["run"] if "run" in step else step["uses"].split("@")[0]: number for number, step in enumerate(steps)}
    published = next(number for text, number in place.items() if text.startswith("gh release create"))
    assert place[".ci/run"] < place["make release test-release"] < place["actions/attest-build-provenance"] < published


def changed_by(folder, paths):
    """What .ci/images.sh would build after a commit that touches these paths."""

    def git(*words):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout

    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"{len(list((folder / path).parent.iterdir()))} {paths}")
    git("add", "--all")
    before = git("rev-parse", "HEAD").strip()
    git("commit", "--quiet", "--allow-empty", "--message", "change")
    script = ROOT / ".ci/images.sh"
    done = subprocess.run(["bash", script, "branch", before], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r'"([\w-]+)"', done.stdout.removeprefix("images=")))


def test_a_change_builds_the_images_it_touches(tmp_path, count):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(
        ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "--quiet"]
        + ["--allow-empty", "--message", "begin"],
        check=True,
    )
    services = IMAGES - {"heatpump-web"}
    for paths, images in [
        (["docs/API.md", "edge-agent/src/main.rs", "gitops/x.yaml"], set()),
        (["cluster/energy-ws/src/main.rs"], {"energy-ws"}),
        (["cluster/heatpump-web/src/main.tsx"], {"heatpump-web"}),
        (["cluster/service/src/lib.rs"], services),
        (["Cargo.lock", "cluster/heatpump-web/package.json"], IMAGES),
        (["cluster/Dockerfile"], services),
    ]:
        assert changed_by(tmp_path, paths) == images, paths
        count("changes built by path")
    done = subprocess.run(["bash", ROOT / ".ci/images.sh", "tag"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert set(re.findall(r'"([\w-]+)"', done.stdout)) == IMAGES
