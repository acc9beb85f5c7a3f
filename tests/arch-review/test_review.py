"""Each rule of review.py finds what it is for, and lets a good change pass. Run by `make arch-review` first."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from review import RULES, Change, review

MIGRATION = "insert into schema_migrations (version, name) values (2, 'words');\n"
FOLDER = "gitops/apps/base/timescaledb"
LISTING = "files:\n  - migrations/0001_tables.sql\n  - migrations/0002_words.sql\n"
KEY = "-----BEGIN " + "PRIVATE KEY-----"
IMAGE = "FROM rust:1.95.0 AS build\nCOPY Cargo.lock .\nCOPY . .\nFROM scratch:1\nUSER 65532\n"


def file(name, text, edited=False, **more):
    added = list(enumerate(text.splitlines(), 1))
    return Change(files={name: text}, added={name: added}, edited={name} if edited else set(), **more)


def migration(name="0002_words.sql", text=MIGRATION, listing=LISTING, edited=False):
    change = file(f"{FOLDER}/migrations/{name}", text, edited, other={f"{FOLDER}/kustomization.yaml": listing})
    change.added["tests/e2e/tests/migrations.rs"] = [(1, "// looks at it")]
    return change


# (rule, what it must say, the change)
BAD = [
    ("read_only_api", "writes", file("cluster/homelab-api/src/a.rs", 'query("insert into energy values (1)")')),
    ("read_only_api", "not GET", file("cluster/homelab-api/src/a.rs", ".route(path, post(handler))")),
    ("read_only_api", "only select", migration(text="grant insert on energy_consumption to api;\n" + MIGRATION)),
    ("no_consumer_in_the_api", "Kafka", file("cluster/homelab-api/Cargo.toml", "rdkafka.workspace = true")),
    ("migrations", "never edited", migration(edited=True)),
    ("migrations", "NNNN_words", migration(name="words.sql")),
    ("migrations", "its own insert", migration(text="create table a ();\n")),
    ("migrations", "not listed", migration(listing="files:\n  - migrations/0001_tables.sql\n")),
    ("migrations", "does not follow", migration(listing="files:\n  - migrations/0002_words.sql\n")),
    ("migrations", "never removed", Change(edited={f"{FOLDER}/migrations/0001_tables.sql"})),
    ("layered_images", "one stage", file("a/Dockerfile", "FROM debian:12.1\nCOPY Cargo.lock .\nCOPY . .\nUSER 1\n")),
    ("layered_images", "no version", file("a/Dockerfile", IMAGE.replace("rust:1.95.0", "rust:latest"))),
    ("layered_images", "root", file("a/Dockerfile", IMAGE.replace("USER 65532\n", ""))),
    ("layered_images", "no layer", file("a/Dockerfile", IMAGE.replace("COPY Cargo.lock .\n", ""))),
    ("no_plain_secrets", "private key", file("a.txt", KEY)),
    ("no_plain_secrets", "plain Secret", file("gitops/a.yaml", "kind: Secret")),
    ("no_plain_secrets", "looks like", file("gitops/a.yaml", "password: abcdefgh12345678")),
    ("limits_are_set", "0 with limits", file("gitops/apps/base/a/d.yaml", "  - name: a\n    image: a:1.0\n")),
    ("limits_are_set", "unbounded", file("cluster/energy-ws/src/a.rs", "let (a, b) = mpsc::unbounded_channel();")),
    ("tests_beside_critical_paths", "write path", file("edge-agent/src/buffer/mod.rs", "let a = 1;")),
    ("tests_beside_critical_paths", "token check", file("cluster/service/src/auth/keys.rs", "let a = 1;")),
    ("tests_beside_critical_paths", "consumer", file("edge-agent/src/command.rs", "let a = 1;")),
    (
        "tests_beside_critical_paths",
        "migration",
        file(f"{FOLDER}/migrations/0002_words.sql", MIGRATION, other={f"{FOLDER}/kustomization.yaml": LISTING}),
    ),
    ("conventional_commits", "not conventional", Change(subjects=[("abc", "Fixed things")])),
    ("conventional_commits", "columns", Change(subjects=[("abc", "fix(api): " + "x" * 70)])),
    ("no_emojis", "emoji", file("README.md", "done \U0001F389")),
    ("no_emojis", "emoji", Change(subjects=[("abc", "fix(api): done \u2728")])),
]
GOOD = [
    Change(),
    migration(),
    file("a/Dockerfile", IMAGE),
    file("cluster/homelab-api/src/a.rs", '// never reads Kafka\nquery("select 1")'),
    file("cluster/homelab-api/src/a.rs", "json.truncate(length);\ndrop(raw);"),
    file("gitops/apps/base/a/d.yaml", "  - name: a\n    image: a:1.0\n    resources:\n      limits: {}\n"),
    file("edge-agent/src/buffer/mod.rs", "#[test]\nfn it_holds() {}"),
    Change(subjects=[("abc", "feat(edge-agent)!: a thing")]),
]


class Rules(unittest.TestCase):
    def test_each_bad_change_is_found_by_its_rule_alone(self):
        for rule, said, change in BAD:
            with self.subTest(rule=rule, said=said):
                found = review(change)
                self.assertEqual({finding[0] for finding in found}, {rule}, found)
                self.assertTrue(any(said in finding[3] for finding in found), found)
                self.assertTrue(all(finding[2] >= 1 for finding in found))

    def test_each_rule_has_a_bad_change(self):
        self.assertEqual({rule.__name__ for rule in RULES}, {rule for rule, _, _ in BAD})

    def test_good_changes_pass(self):
        for change in GOOD:
            self.assertEqual(review(change), [])

    def test_a_change_in_git_ends_with_its_file_and_line(self):
        with tempfile.TemporaryDirectory() as folder:

            def git(*words):
                subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], cwd=folder, check=True, capture_output=True)

            git("init", "-b", "main")
            Path(folder, "a.txt").write_text("one\n")
            git("add", "a.txt")
            git("commit", "-m", "feat: a file")
            git("branch", "base")
            Path(folder, "a.txt").write_text("one\ntwo \U0001F389\n")
            git("commit", "-am", "feat: another line")
            script = Path(__file__).with_name("review.py")
            ran = subprocess.run([sys.executable, script, "base"], cwd=folder, capture_output=True, text=True)
            self.assertEqual(ran.returncode, 1, ran.stderr)
            self.assertIn("a.txt:2: no emojis: an emoji", ran.stdout)
            self.assertIn("9 rules checked on 1 files and 1 commits since base, 1 findings", ran.stdout)


if __name__ == "__main__":
    unittest.main()
