"""The functions that every installing script shares (tests/stack/install.sh), with stand-ins for package managers."""

import pathlib
import subprocess
import tempfile
import unittest

INSTALL = pathlib.Path(__file__).resolve().parent.parent / "stack/install.sh"


class Install(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def program(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def bash(self, script):
        """Exit code, standard output and standard error of a script that begins as the installing ones do."""
        begin = f'set -euo pipefail; speaker=setup; source "{INSTALL}"; PATH={self.folder}/new:{self.folder}/old:$PATH; cd {self.folder}\n'
        done = subprocess.run(["bash", "-c", begin + script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def test_a_program_that_was_run_before_a_newer_one_was_installed_is_not_run_again(self):
        self.program("old/npm", "echo 9")
        self.program("later/npm", "echo 10")
        code, printed, said = self.bash("npm; mv later new; npm")
        self.assertEqual((code, printed.split()), (0, ["9", "10"]), said)

    def test_a_command_is_heard_only_when_it_fails(self):
        self.program("old/works", "echo chatter; echo chatter >&2")
        self.program("old/breaks", "echo the reason; exit 7")
        self.assertEqual(self.bash("quietly works"), (0, "", ""))
        code, printed, said = self.bash("quietly breaks now")
        self.assertEqual((code, printed, said), (7, "", "setup: failed: breaks now\nthe reason\n"))

    def test_an_environment_that_failed_half_way_is_made_again(self):
        (self.folder / "requirements.txt").write_text("thing==1\n")
        make = 'python_environment "a thing" venv requirements.txt'
        pip = "mkdir -p venv/bin; printf '#!/bin/sh\\n%s\\n' '{}' >venv/bin/pip; chmod +x venv/bin/pip; ln -sf /bin/true venv/bin/python"
        self.program("old/python3", pip.format("exit 1"))
        for _ in range(2):
            # Also where bash forgets `set -e`, as in the $( ) of go_command.
            code, _, said = self.bash(f"echo $({make} || echo failed)")
            self.assertIn("setup: installing a thing (pip: thing==1)", said)
            self.assertFalse((self.folder / "venv/installed").exists())
        self.program("old/python3", pip.format("exit 0"))
        self.assertEqual(self.bash(make)[0], 0)
        self.assertEqual(self.bash(make), (0, "", ""))
        (self.folder / "requirements.txt").write_text("thing==2\n")
        self.assertIn("thing==2", self.bash(make)[2])

    def test_a_manager_that_is_not_there_is_named(self):
        code, _, said = self.bash('manager=; need "a compiler" gcc gcc gcc gcc')
        self.assertEqual(code, 1)
        self.assertIn("missing: a compiler", said)


if __name__ == "__main__":
    unittest.main()
