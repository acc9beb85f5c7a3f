"""What can be proven of the images without Docker: the words of the Dockerfiles, and that their cargo commands resolve.

Nothing is built here: there is no container engine to be had from a package registry.
"""

import re
import subprocess

import pytest

from tree import ROOT, containers, of_kind, pod_template

SERVICES = ("redpanda-sink", "homelab-api", "homelab-settings-api", "energy-ws")
FILES = {"services": ROOT / "cluster/Dockerfile", "web": ROOT / "cluster/heatpump-web/Dockerfile"}
# Images that hold one program and no shell; another base needs a look at what is in it.
WITHOUT_SHELL = (r"gcr\.io/distroless/cc-debian12:nonroot-(amd64|arm64)", r"ghcr\.io/static-web-server/static-web-server:\d+\.\d+\.\d+")


def stages(file):
    """[(base, name or None, [(instruction, words)])] of a Dockerfile, lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n", " ", text)
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "FROM":
            rest = [word for word in words[1:] if not word.startswith("--")]
            found.append((rest[0], rest[2] if len(rest) > 2 else None, []))
        elif found:
            found[-1][2].append((words[0], line.split(None, 1)[1]))
    return found


def final_bases(file):
    """The bases the last stage can stand on, one an architecture where it chooses."""
    made = stages(file)
    named = {name: base for base, name, _ in made if name}
    base = made[-1][0]
    if "${TARGETARCH}" in base:
        return {arch: named[base.replace("${TARGETARCH}", arch)] for arch in ("arm64", "amd64")}
    return {"both": named.get(base, base)}


@pytest.mark.parametrize("which", FILES)
def test_what_runs_is_no_root_and_has_no_shell(which, count):
    base, _, lines = stages(FILES[which])[-1]
    for found in final_bases(FILES[which]).values():
        assert any(re.fullmatch(known, found) for known in WITHOUT_SHELL), found
    instructions = [name for name, _ in lines]
    assert "RUN" not in instructions, "the last stage has no shell to run it with"
    (user,) = [words for name, words in lines if name == "USER"]
    assert user == "65532:65532", "a number, so that runAsNonRoot can check it"
    for name, words in lines:
        if name in ("ENTRYPOINT", "CMD"):
            assert words.startswith("["), f"{name} {words} wants a shell"
    # What it is given comes from stages before it, never from the context: no source, no key, no cache.
    copies = [words for name, words in lines if name in ("COPY", "ADD")]
    assert copies and all(words.startswith("--from=build ") for words in copies), copies
    count("images looked at")


@pytest.mark.parametrize("which", FILES)
def test_dependencies_are_a_layer_of_their_own(which):
    (lines,) = [lines for _, name, lines in stages(FILES[which]) if name == "build"]
    steps = [f"{name} {words}" for name, words in lines]
    whole = next(number for number, step in enumerate(steps) if step.startswith("COPY . "))
    before = " ".join(steps[:whole])
    assert re.search(r"cargo chef cook|npm ci", before), "dependencies are built after the sources were copied"
    assert "--locked" in before or "npm ci" in before
    ignored = FILES[which].parent / ("Dockerfile.dockerignore" if which == "services" else ".dockerignore")
    assert "node_modules" in ignored.read_text()


def test_both_architectures_are_built_without_emulation():
    for file in FILES.values():
        assert "--platform=$BUILDPLATFORM" in file.read_text()
    text = FILES["services"].read_text()
    for arch, target in (("arm64", "aarch64-unknown-linux-gnu"), ("amd64", "x86_64-unknown-linux-gnu")):
        assert re.search(rf"{arch}\) printf 'TARGET={target}", text), arch
    assert set(final_bases(FILES["services"])) == {"arm64", "amd64"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_features_of_an_image_resolve_with_the_lock_file(service, count):
    """As the Dockerfile names them: OpenSSL is built along where Kafka is linked, and nowhere else."""
    text = FILES["services"].read_text()
    feature = re.search(r'SERVICE" != homelab-api \]; then echo \'FEATURES="(.*?)"\'', text).group(1)
    words = [] if service == "homelab-api" else feature.split()
    done = subprocess.run(
        ["cargo", "tree", "--locked", "--package", service, *words, "--edges", "normal,build", "--prefix", "none"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    linked = {line.split()[0] for line in done.stdout.splitlines() if line}
    assert ("openssl-src" in linked) == ("rdkafka" in linked) == (service != "homelab-api")
    count("feature sets resolved")


def test_every_image_of_ours_runs_with_a_file_system_that_cannot_be_written():
    ours = [
        (thing, container)
        for thing in of_kind("Deployment")
        for container in containers(pod_template(thing))
        if container["image"].startswith("ghcr.io/k12n/homelab/")
    ]
    assert len(ours) == len(SERVICES) + 1
    for thing, container in ours:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, thing
        assert "command" not in container, f"{thing}: the entry point is the image's"
        assert pod_template(thing)["spec"]["securityContext"]["runAsUser"] == 65532, thing
