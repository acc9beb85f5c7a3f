"""What model.py sends, prints and survives, against an endpoint on this machine."""

import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

PROGRAM = pathlib.Path(__file__).with_name("model.py")
KEY = "a-key-of-the-test"


@contextlib.contextmanager
def endpoint(status, body):
    """A server that answers so, and what it was sent."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions", got
    finally:
        server.shutdown()


class Model(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("a.rs", "fn old() {}\n")
        self.commit("a.rs", "fn new() {}\n")

    def git(self, *words):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=self.folder.name, check=True, capture_output=True)

    def commit(self, name, text):
        pathlib.Path(self.folder.name, name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "feat: words")

    def run_with(self, **variables):
        names = {f"REVIEW_MODEL_{name}": value for name, value in variables.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REVIEW_MODEL") and name != "BASE"}
        return subprocess.run(
            [sys.executable, PROGRAM], cwd=self.folder.name, env={**clean, **names}, capture_output=True, text=True, timeout=300
        )

    def test_without_a_key_nothing_is_sent(self):
        done = self.run_with(URL="http://127.0.0.1:1/", NAME="m")
        self.assertEqual((done.returncode, done.stdout), (0, "No reviewer model is configured.\n"))

    def test_the_change_and_the_rules_are_sent_and_the_remarks_printed(self):
        answer = json.dumps({"choices": [{"message": {"content": "- a.rs:1: a remark"}}]})
        with endpoint(200, answer) as (url, got):
            done = self.run_with(URL=url, KEY=KEY, NAME="some-model")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("- a.rs:1: a remark", done.stdout)
        ((authorization, sent),) = got
        self.assertEqual(authorization, f"Bearer {KEY}")
        self.assertEqual(sent["model"], "some-model")
        self.assertIn("read only api", sent["messages"][0]["content"])
        self.assertIn("+fn new() {}", sent["messages"][1]["content"])
        self.assertNotIn(KEY, done.stdout + done.stderr + json.dumps(sent))

    def test_a_model_that_is_away_or_talks_nonsense_holds_nothing_up(self):
        for status, body in ((500, "{}"), (200, "no JSON"), (200, '{"choices": []}')):
            with endpoint(status, body) as (url, _):
                done = self.run_with(URL=url, KEY=KEY, NAME="m")
            self.assertEqual(done.returncode, 0, (body, done.stderr))
            self.assertIn("did not answer", done.stdout)
            self.assertNotIn(KEY, done.stdout + done.stderr)

    def test_a_key_is_never_sent_in_the_clear(self):
        done = self.run_with(URL="http://model.example/v1", KEY=KEY, NAME="m")
        self.assertEqual(done.returncode, 64)


if __name__ == "__main__":
    unittest.main()
