"""What the documents name is there: paths, keys, variables, metrics, endpoints, topics, commands and their options; and the
commands that need no cluster and no Pi are run as they stand."""

import functools
import json
import os
import re
import shutil
import subprocess

import pytest

from test_contracts import known_metrics, rust
from test_documents import documents
from tree import GITOPS, KUBECTL, PLACE, ROOT

OPERATIONS = ROOT / "docs/OPERATIONS.md"
BINARIES = os.environ.get("STACK_BIN_DIR", str(ROOT / "target/debug"))


def spans(file):
    """Everything in backticks, and the lines of code blocks."""
    text = file.read_text()
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose), [line for block in blocks for line in block.splitlines()]


@functools.cache
def sources():
    """Every text of the repository but the documents and what is installed or built."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    kept = [name for name in listed if name and not name.startswith("docs/") and not name.endswith((".md", ".png", "lock.json"))]
    return "\n".join((ROOT / name).read_text(errors="replace") for name in kept if (ROOT / name).is_file())


def check(problems):
    problems = sorted(set(problems))
    assert not problems, "\n".join(problems)


def test_techdocs_builds_strictly_and_shows_every_document(tmp_path, count):
    done = subprocess.run(
        [PLACE / "venv/bin/mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # mkdocs only mentions these.
    assert "not included in the" not in done.stderr and "unrecognized" not in done.stderr, done.stderr
    count("pages of TechDocs built", len(list((tmp_path / "site").rglob("index.html"))))


def test_links_lead_somewhere(count):
    def problems():
        for file in documents():
            for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", file.read_text()):
                if target and not re.match(r"https?:|mailto:", target):
                    count("links followed")
                    if not (file.parent / target).exists():
                        yield f"{file.relative_to(ROOT)}: {target}"

    check(problems())


def test_paths_that_are_named_exist(count):
    roots = r"(?:edge-agent|cluster|gitops|systemd|tests|docs|\.ci|\.github)/[\w./-]+"

    def problems():
        for file in documents():
            words, lines = spans(file)
            for span in words + lines:
                for path in re.findall(rf"(?<![\w/.-]){roots}", span):
                    # Where a pod, a Pi or a build has it, and not this repository.
                    if re.search(r"(^|\s)/|target/|node_modules", span.split(path)[0][-1:] + path):
                        continue
                    if re.fullmatch(r"edge-agent/(p\d|users\.toml|edge-agent\.toml)", path):
                        continue
                    count("paths named")
                    if not (ROOT / path.rstrip("./")).exists():
                        yield f"{file.relative_to(ROOT)}: {path}"

    check(problems())


def rows_of(heading, columns=1):
    """The first cell (or more) of each row of the table below a heading."""
    text = OPERATIONS.read_text().split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    return [line.split("|")[1 : 1 + columns] for line in text.splitlines() if line.startswith("| `")]


def test_every_key_of_the_agent_is_explained_and_every_explained_key_is_read(count):
    """By the agent itself: each key of the table is put into a file, and edge-agent check must not call it unknown."""
    config = (ROOT / "edge-agent/src/config.rs").read_text()
    pairs = re.findall(r'\("(EDGE_AGENT_\w+)", &\[([^\]]+)\]\)', config)
    by_variable = {name: ".".join(re.findall(r'"(\w+)"', path)) for name, path in pairs}
    assert len(by_variable) > 20
    explained = {}
    for keys, _, variable in rows_of("## Settings of the agent", 3):
        names = re.findall(r"`([\w.]+)`", keys)
        for name in names:
            whole = name if "." in name or names[0] == name else f"{names[0].rsplit('.', 1)[0]}.{name}"
            explained[whole] = re.findall(r"`(EDGE_AGENT_\w+)`", variable)
    check(
        f"{variable} is not beside {key} in docs/OPERATIONS.md"
        for variable, key in by_variable.items()
        if key != "mqtt.users_file" and variable not in explained.get(key, [])
    )
    agent = rust("edge-agent/src")
    check(
        f"docs/OPERATIONS.md explains {key}, which the agent does not read"
        for key in explained
        if not re.search(rf"\b{key.rsplit('.', 1)[-1]}\s*:", agent)
    )
    count("keys of the agent explained", len(explained))


def test_variables_that_are_named_are_read(count):
    def problems():
        for file in documents():
            words, _ = spans(file)
            for span in words:
                for name in re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", span):
                    count("variables and limits named")
                    # X_FILE is the file of any secret X. Fields of devices are in the decoders, in their own case.
                    either = f"{name}|{name.removesuffix('_FILE')}"
                    if not re.search(rf"\b({either})\b", sources(), re.IGNORECASE) and name != "X_FILE":
                        yield f"{file.relative_to(ROOT)}: {name}"

    check(problems())


def test_metrics_that_are_named_are_registered(count):
    known = known_metrics()
    services = "edge_agent|redpanda_sink|homelab_api|homelab_settings_api|energy_ws|house"

    def problems():
        for file in documents():
            words, lines = spans(file)
            for span in words + lines:
                for name in re.findall(rf"\b(?:{services})_\w+\b", span):
                    if f"{name}(" in span or re.search(rf"{name}\.(sql|rs|py|yml)", span):
                        continue
                    count("metrics named")
                    if name not in known and not any(metric.startswith(f"{name}_") for metric in known):
                        yield f"{file.relative_to(ROOT)}: {name}"

    check(problems())


def test_endpoints_that_are_named_are_in_the_openapi_documents(count):
    paths = set()
    for service in ("homelab-api", "homelab-settings-api"):
        document = json.loads((ROOT / f"cluster/{service}/openapi.json").read_text())
        paths |= {re.sub(r"\{\w+\}", "*", path) for path in document["paths"]}

    def problems():
        for file in documents():
            words, lines = spans(file)
            for span in words + lines:
                for path in re.findall(r"/api/v1/[\w/{}.<>-]*[\w}>]", span):
                    wanted = re.sub(r"\{\w+\}|<\w+>", "*", path)
                    count("endpoints named")
                    if not any(known == wanted or known.startswith(f"{wanted}/") for known in paths):
                        if not any(re.fullmatch(known.replace("*", "[^/]+"), path) for known in paths):
                            yield f"{file.relative_to(ROOT)}: {path}"

    check(problems())


def test_topics_that_are_named_exist():
    code = (ROOT / "cluster/telemetry/src/topic.rs").read_text()
    topics = set(re.findall(r'"(homelab\.[\w-]+)"', code))

    def problems():
        for file in documents():
            for span in spans(file)[0]:
                # homelab.v1 is the subprotocol of energy-ws.
                if re.fullmatch(r"homelab\.[\w-]+", span) and span not in topics | {"homelab.v1"}:
                    yield f"{file.relative_to(ROOT)}: {span}"

    check(problems())


def help_of(program, *words):
    done = subprocess.run([f"{BINARIES}/{program}", *words, "--help"], capture_output=True, text=True, timeout=300)
    return done.stdout if done.returncode == 0 else None


def test_commands_of_our_programs_and_their_options_are_in_their_help(count, note):
    if not os.access(f"{BINARIES}/edge-agent", os.X_OK):
        note("commands of edge-agent and redpanda-sink were not asked for their help: they are not built (make build)")
        return

    def problems():
        for file in documents():
            words, lines = spans(file)
            for span in words + lines:
                found = re.match(r"(?:\w+=\S+ )*(edge-agent|redpanda-sink) ([a-z][a-z-]+)((?: .*)?)$", span.strip())
                # `edge-agent check` and the like; a name followed by another name is no command.
                if not found or found[2] in ("homelab-settings", "homelab-settings-api", "and"):
                    continue
                count("commands asked for their help")
                text = help_of(found[1], found[2])
                if text is None:
                    yield f"{file.relative_to(ROOT)}: {found[1]} {found[2]}"
                    continue
                for option in re.findall(r"--[a-z][\w-]*", found[3]):
                    if option not in text:
                        yield f"{file.relative_to(ROOT)}: {found[1]} {found[2]} {option}"

    check(problems())


def blocks(file, heading):
    """The shell blocks below a heading of a document, each as one text."""
    text = file.read_text().split(f"\n{heading}", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def test_the_commands_that_make_the_databases_work_as_they_stand(database, count):
    if database is None:
        pytest.fail("PostgreSQL is missing: tests/stack/setup.sh test installs it")
    (block,) = blocks(OPERATIONS, "## Databases")
    word = database.folder / "word"
    database.run("sh", "-c", f"umask 077; echo password > {word}")
    # The tree's copy that PostgreSQL's user may read.
    block = block.replace("=...", f"={word}").replace("gitops/apps/base", f"{database.folder}/base")
    block = block.replace("telemetry", "documented").replace("homelab_settings", "documented_settings")
    said = database.run("bash", "-euc", block, PGDATABASE="postgres")
    assert said.count(" applied") == 2 and ": 0 applied" not in said, said
    count("blocks of commands run")


def test_the_commands_of_the_secrets_work_as_they_stand(tmp_path, count):
    """With the real kubectl and openssl; only sealing and copying need a cluster."""
    text = (ROOT / "docs/SECRETS.md").read_text()
    stand_ins = 'seal() { cat; echo ---; }\nrandom() { openssl rand -hex 24; }\n'
    given = {name: f"given-{name.lower()}" for name in ("TOKEN", "URL", "HEARTBEAT", "ENDPOINT", "BUCKET", "KEY_ID", "KEY")}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(KUBECTL)
    made = 0
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if "create secret" not in block:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", stand_ins + block],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "KUBECONFIG": "/dev/null", **given},
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout.count("kind: Secret") == block.count("create secret"), done.stdout
        made += block.count("create secret")
    count("secrets made by their documented commands", made)
    # The certificate is one the agents can check the address of.
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", "ca.crt", "-verify_ip", "192.168.1.10", "tls.crt"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_example_of_users_is_one_the_agent_takes(tmp_path, count, note):
    binary = f"{BINARIES}/edge-agent"
    if not os.access(binary, os.X_OK):
        note("the documented users file was not tried: edge-agent is not built (make build)")
        return
    made = subprocess.run([binary, "hash-password"], input="secret\n", capture_output=True, text=True, timeout=300)
    assert made.returncode == 0 and made.stdout.startswith("$argon2id$"), made.stderr
    text = OPERATIONS.read_text()
    (users,) = re.findall(r"```toml\n(\[\[users\]\].*?)```", text, re.DOTALL)
    (smallest,) = re.findall(r"```toml\n(agent = .*?)```", text, re.DOTALL)
    (tmp_path / "users.toml").write_text(re.sub(r'"\$argon2id[^"]*"', json.dumps(made.stdout.strip()), users))
    (tmp_path / "edge-agent.toml").write_text(
        smallest.replace("[kafka]", f'[mqtt]\nusers_file = "{tmp_path}/users.toml"\n\n[kafka]')
    )
    done = subprocess.run(
        [binary, "check", "--config", tmp_path / "edge-agent.toml"], capture_output=True, text=True, timeout=300, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count("blocks of commands run", 2)


def test_programs_that_are_named_in_blocks_of_commands_are_known():
    """A word at the start of a command that nobody knows is a slip of the pen."""
    usual = set("""apt cargo cd cp createdb curl docker done echo editor flux for gh git install journalctl jq kcat kubectl kubeseal make
        mv openssl printf psql random rm rpk seal sed sh shred ssh sudo systemctl systemd-creds tar umask scp edge-agent redpanda-sink
        mosquitto_pub mosquitto_sub ls k3s timedatectl""".split())
    for file in documents():
        text = file.read_text()
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            joined = re.sub(r"\\\n\s*", " ", block)
            # What goes on inside quotes is no command.
            joined = re.sub(r"'[^']*'", "''", joined)
            for line in joined.splitlines():
                words = line.split("#")[0].split()
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if not words or re.match(r"\w+\(\)$", words[0]):
                    continue
                first = words[0]
                known = first in usual or shutil.which(first) or (ROOT / first).exists() or first.startswith("./")
                assert known, f"{file.relative_to(ROOT)}: {line}"
    assert (GITOPS / "restore.sh").exists()
