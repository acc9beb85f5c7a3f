#!/usr/bin/env python3
"""Holds the owner's architectural rules against a change: what BASE..HEAD adds, file by file (docs/ARCH_REVIEW.md).

Prints `file:line: rule: text` for each finding, then one summary line; exit code 1 when there is a finding. It reads git
and nothing else, and changes nothing.

usage: review.py [BASE]       default: the variable BASE, or origin/main, or (where there is no such branch) the commit before HEAD
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

EMOJI = re.compile("[\U0001F000-\U0001FAFF\u2600-\u27BF\u2B50\u2B55\uFE0F]")
SUBJECT = re.compile(r"(feat|fix|test|docs|build|chore|refactor|perf|ci|revert)(\([a-z0-9-]+\))?!?: \S.*")
SUBJECT_COLUMNS = 72
# A change here needs a change in a test: the write path, token checks, consumers.
CRITICAL = {
    "write path": r"edge-agent/src/(buffer|broker|forward)/|cluster/redpanda-sink/src/|cluster/homelab-settings-api/src/(outbox|relay)\.rs",
    "token check": r"cluster/service/src/auth/|cluster/energy-ws/src/handshake\.rs",
    "consumer": r"cluster/[\w-]+/src/consume\.rs|edge-agent/src/command\.rs",
    "migration": r"gitops/apps/base/[\w-]+/migrations/",
}
TEST = re.compile(r"(^|/)tests?(/|\.rs$)|\.test\.tsx?$|cases\.rs$")


@dataclass
class Change:
    """What a change does: the files as they are after it, the lines it adds, and the subjects of its commits."""

    files: dict[str, str] = field(default_factory=dict)
    added: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    # Files that were there before and were edited, renamed or removed.
    edited: set[str] = field(default_factory=set)
    subjects: list[tuple[str, str]] = field(default_factory=list)
    # What stands beside the changed files and was not changed itself: read on demand.
    other: dict[str, str] = field(default_factory=dict)


def lines(change, pattern):
    for name, added in change.added.items():
        if re.search(pattern, name):
            yield from ((name, number, text) for number, text in added)


def read_only_api(change):
    """homelab-api never writes: no statement but select in its sources, no write granted to its role, only GET."""
    for name, number, text in lines(change, r"^cluster/homelab-api/src/.*\.rs$"):
        if re.search(r"\b(insert\s+into|update\s+\w+\s+set|delete\s+from|truncate\s+\w|drop\s+\w|alter\s+\w)", text, re.I):
            yield name, number, "a statement that writes"
        if re.search(r"\b(post|put|patch|delete)\(", text) or re.search(r"utoipa::path\((post|put|patch|delete)", text):
            yield name, number, "a method that is not GET"
    for name, number, text in lines(change, r"/migrations/.*\.sql$"):
        if re.search(r"grant\b(?!\s+(select|usage|connect)\b).*\bto\b.*\bapi\b", text, re.I):
            yield name, number, "the role api may only select"


def no_consumer_in_the_api(change):
    """homelab-api does not know Kafka."""
    for name, number, text in lines(change, r"^cluster/homelab-api/(Cargo\.toml|src/)"):
        if "kafka" in text.lower() and not text.lstrip().startswith(("//", "#")):
            yield name, number, "homelab-api never links or reads Kafka"


def migrations(change):
    """A migration is numbered on, listed and recorded, and one that is on the base is never edited."""
    for name, text in change.files.items():
        found = re.fullmatch(r"(gitops/apps/base/[\w-]+)/migrations/([^/]+)", name)
        if not found:
            continue
        if name in change.edited:
            yield name, 1, "an applied migration is never edited; correct it with the next one"
            continue
        number = re.fullmatch(r"(\d{4})_(\w+)\.sql", found[2])
        if not number:
            yield name, 1, "a migration is named NNNN_words.sql"
            continue
        if not re.search(rf"insert into schema_migrations \(version, name\) values \({int(number[1])}, '{number[2]}'\);\s*$", text):
            yield name, text.count("\n") or 1, "does not end with its own insert into schema_migrations"
        listing = f"{found[1]}/kustomization.yaml"
        listed = change.files.get(listing, change.other.get(listing, ""))
        if f"migrations/{found[2]}" not in listed:
            yield name, 1, f"not listed in {listing}"
        if int(number[1]) > 1:
            before = rf"migrations/{int(number[1]) - 1:04}_"
            if not re.search(before, listed):
                yield name, 1, "its number does not follow the last"
    for name in change.edited:
        if "/migrations/" in name and name not in change.files:
            yield name, 1, "an applied migration is never removed"


def layered_images(change):
    """Several stages, dependencies before sources, bases by version, a user that is not root."""
    for name, text in change.files.items():
        if not re.search(r"(^|/)Dockerfile$", name):
            continue
        bases = [(at, line.split()) for at, line in enumerate(text.splitlines(), 1) if line.startswith("FROM ")]
        if len(bases) < 2:
            yield name, 1, "one stage: the build stays in the image"
        stages = {words[-1] for _, words in bases if "AS" in words}
        for at, words in bases:
            base = next(word for word in words[1:] if not word.startswith("--"))
            if base not in stages and "$" not in base and not re.search(r":[\w.-]*\d", base) and ":nonroot" not in base:
                yield name, at, f"{base} has no version"
        if not re.search(r"^USER (?!root|0)", text, re.M):
            yield name, 1, "runs as root"
        whole = re.search(r"^COPY \. ", text, re.M)
        if not whole or not re.search(r"^(COPY .*(recipe\.json|package-lock\.json|Cargo\.lock))", text, re.M):
            yield name, 1, "no layer of dependencies apart from the sources"


def no_plain_secrets(change):
    """No Secret but a sealed one, no private key, no password in a manifest."""
    for name, number, text in lines(change, r"."):
        if re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*$", text):
            yield name, number, "a private key"
        if name.startswith("gitops/") and re.match(r"\s*kind:\s*Secret\s*$", text):
            yield name, number, "a plain Secret; the owner seals them (docs/SECRETS.md)"
        if name.startswith("gitops/") and re.search(r"(password|token|secret)\s*:\s*['\"]?[\w+/=-]{12,}['\"]?\s*$", text, re.I):
            yield name, number, "looks like a secret"


def limits_are_set(change):
    """A workload says what it needs and may take; a queue in the code has a bound."""
    for name, text in change.files.items():
        if re.match(r"gitops/apps/base/.*\.ya?ml$", name) and re.search(r"^\s*- name: .*\n\s*image: |^\s+image: \S+:", text, re.M):
            images = len(re.findall(r"^\s+(?:- )?image: \S+", text, re.M))
            limited = len(re.findall(r"^\s+limits:", text, re.M))
            if limited < images:
                yield name, 1, f"{images} containers, {limited} with limits"
    for name, number, text in lines(change, r"^(edge-agent|cluster)/.*src/.*\.rs$"):
        if re.search(r"\bunbounded(_channel)?(::<[^>]*>)?\(", text):
            yield name, number, "an unbounded queue"


def tests_beside_critical_paths(change):
    """A change of the write path, a token check, a consumer or a migration brings a test."""
    tested = any(TEST.search(name) for name in change.added) or any(
        name.endswith(".rs") and any("#[test]" in text or "#[tokio::test" in text for _, text in added)
        for name, added in change.added.items()
    )
    if tested:
        return
    for what, pattern in CRITICAL.items():
        for name, added in change.added.items():
            code = [number for number, text in added if text.strip() and not text.strip().startswith(("//", "--"))]
            if re.search(pattern, name) and code:
                yield name, code[0], f"{what} changes without a test"


def conventional_commits(change):
    """type(scope): subject, in fewer than 72 columns."""
    for commit, subject in change.subjects:
        if not SUBJECT.fullmatch(subject) and not subject.startswith("Merge "):
            yield f"commit {commit}", 1, f"not conventional: {subject}"
        elif len(subject) >= SUBJECT_COLUMNS:
            yield f"commit {commit}", 1, f"{len(subject)} columns, fewer than {SUBJECT_COLUMNS} are allowed"


def no_emojis(change):
    """None in code, documents or commits."""
    for name, number, text in lines(change, r"."):
        if EMOJI.search(text):
            yield name, number, "an emoji"
    for commit, subject in change.subjects:
        if EMOJI.search(subject):
            yield f"commit {commit}", 1, "an emoji"


RULES = (
    read_only_api,
    no_consumer_in_the_api,
    migrations,
    layered_images,
    no_plain_secrets,
    limits_are_set,
    tests_beside_critical_paths,
    conventional_commits,
    no_emojis,
)


def review(change):
    """(rule, file, line, text) of every finding."""
    return [(rule.__name__, *finding) for rule in RULES for finding in rule(change)]


def git(*words):
    done = subprocess.run(["git", *words], capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def change_since(base):
    """What git says of base..HEAD; files that are not text are left out."""
    since = git("merge-base", base, "HEAD").strip()
    change = Change()
    for row in git("diff", "--name-status", "--no-renames", since, "HEAD").splitlines():
        status, name = row.split("\t", 1)
        if status != "A":
            change.edited.add(name)
        if status != "D":
            change.files[name] = git("show", f"HEAD:{name}")
    name, number = None, 0
    for row in git("diff", "--unified=0", "--no-renames", "--no-color", since, "HEAD").splitlines():
        if row.startswith("+++ "):
            name = row[6:] if row.startswith("+++ b/") else None
        elif found := re.match(r"@@ -\S+ \+(\d+)", row):
            number = int(found[1])
        elif row.startswith("+") and name:
            change.added.setdefault(name, []).append((number, row[1:]))
            number += 1
    for name in change.files:
        if found := re.match(r"(gitops/apps/base/[\w-]+)/migrations/", name):
            listing = f"{found[1]}/kustomization.yaml"
            if listing not in change.files:
                change.other[listing] = git("show", f"HEAD:{listing}")
    for row in git("log", "--no-merges", "--format=%h\t%s", f"{since}..HEAD").splitlines():
        change.subjects.append(tuple(row.split("\t", 1)))
    return change


def default_base():
    """origin/main; in a copy without it the commit before HEAD, or HEAD where that is the only one."""
    for name in ("origin/main", "HEAD~1"):
        if subprocess.run(["git", "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"], capture_output=True).returncode == 0:
            return name
    return "HEAD"


def main():
    if any(word.startswith("-") for word in sys.argv[1:]) or len(sys.argv) > 2:
        print(__doc__.strip())
        return 0 if sys.argv[1:2] in (["--help"], ["-h"]) else 64
    base = sys.argv[1] if len(sys.argv) == 2 else os.environ.get("BASE") or default_base()
    try:
        change = change_since(base)
    except subprocess.CalledProcessError as error:
        print(f"arch-review: git: {error.stderr.decode().strip()}; BASE={base} must be a commit that git has", file=sys.stderr)
        return 64
    findings = review(change)
    for rule, name, line, text in findings:
        print(f"{name}:{line}: {rule.replace('_', ' ')}: {text}")
    print(
        f"arch-review: {len(RULES)} rules checked on {len(change.files)} files and {len(change.subjects)} commits"
        f" since {base}, {len(findings)} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
