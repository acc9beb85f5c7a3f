"""Bare machines: a Debian with next to nothing on it, in a folder, entered through namespaces (enter.sh).

A machine has this machine's network and processors, and a file system and processes of its own. Nothing of it outlives its `with`, unless it is kept.
"""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "homelab-k12n/fresh"
WORK = ROOT / "target/fresh"
RELEASES = {"debian-12": "bookworm", "debian-13": "trixie"}
USERS = {"root": "root", "sudo": "owner"}
# What README says must be there; sudo is removed again where the owner is root.
INCLUDED = ["make", "git", "ca-certificates", "sudo"]
# How this machine reaches the network is its own matter, and a fresh machine's too.
NETWORK = ["http_proxy", "https_proxy", "no_proxy", "CARGO_HTTP_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "SSL_CERT_FILE"]
# A set-up takes a minute or two, a cold build five; a machine with much else to do takes several times as long.
COMMAND_SECONDS = 3600
# What a command that is ended may still do.
ENDS_WITHIN_SECONDS = 60


class Failure(Exception):
    """What went wrong on a machine, with its last output."""


def say(text):
    print(f"fresh: {text}", file=sys.stderr, flush=True)


# Without root, we become root of a user namespace, which may mount file systems and own files of several users.
BECOME_ROOT = [] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--map-auto"]
# The first word ends them when run.py is killed.
NAMESPACES = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private"]
# A bare machine has none of these, whatever brought it up.
INSTALLED_BY_SETUP = ["cc", "java", "mvn", "node", "npm", "python3"]


def why_not():
    """Why no machine can be made here, or None."""
    for program in ("unshare", "setpriv", "mmdebstrap"):
        if not shutil.which(program):
            return f"{program} is missing, and tests/fresh/setup.sh knows no package of it here"
    tried = subprocess.run([*BECOME_ROOT, *NAMESPACES, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"this user may not make user and mount namespaces here: {tried.stderr.strip()}; root may: sudo env PATH=\"$PATH\" make test-fresh"
    if toolchain() == "/usr":
        return "the Rust toolchain is the distribution's, in /usr: only one in a folder of its own, as rustup's, can be shown to a bare machine"
    return None


def toolchain():
    """The folder of the Rust toolchain."""
    return subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()


def bare(release):
    """A tar file of the bare root file system, made anew each month, so that the set-ups do not begin with a year of updates."""
    contents = hashlib.sha256(" ".join(INCLUDED).encode()).hexdigest()[:8]
    tar = CACHE / f"{release}-{time.strftime('%Y-%m')}-{contents}.tar"
    if tar.exists():
        return tar
    say(f"making a bare root file system: {release} (a minute, once a month)")
    CACHE.mkdir(parents=True, exist_ok=True)
    for older in CACHE.glob(f"{release}-*.tar"):
        older.unlink()
    partial = tar.with_suffix(f".{os.getpid()}.tar")
    mode = "unshare" if BECOME_ROOT else "root"
    command = ["mmdebstrap", f"--mode={mode}", "--variant=minbase", f"--include={','.join(INCLUDED)}", release, partial]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        partial.unlink(missing_ok=True)
        raise Failure(made.stdout + made.stderr)
    partial.rename(tar)
    return tar


class Machine:
    """A bare Debian with a clone of the commit in its owner's home folder; `keep` keeps its files after a failure."""

    def __init__(self, name, part, bundle, keep):
        release, user = name.rsplit("-", 1)
        self.tar = bare(RELEASES[release])
        self.user = USERS[user]
        self.bundle = bundle
        self.log = WORK / f"{name}-{part}.log"
        self.root = WORK / f"{name}-{part}"
        self.keep = keep

    def __enter__(self):
        self.remove()
        try:
            self._prepare()
        except BaseException:
            self.remove()
            raise
        return self

    def _prepare(self):
        self.root.mkdir(parents=True)
        self.log.write_text("")
        # enter.sh brings the devices, which a user namespace may not make.
        self._outside("tar", "-xf", self.tar, "-C", self.root, "--numeric-owner", "--exclude=./dev/*")
        self._outside("install", "-m", "644", self.bundle, self.root / "homelab.bundle")
        authorities = pathlib.Path("/usr/local/share/ca-certificates")
        if authorities.is_dir():
            self._outside("cp", "-rT", authorities, self.root / "usr/local/share/ca-certificates")
        self.run("echo '127.0.0.1 localhost fresh' >/etc/hosts && update-ca-certificates", user="root")
        if self.user == "root":
            self.run("SUDO_FORCE_REMOVE=yes dpkg --purge sudo", user="root")
        else:
            self.run(f"useradd --create-home {self.user} && echo '{self.user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/owner", user="root")
        self.run(f"for program in {' '.join(INSTALLED_BY_SETUP)}; do ! command -v $program || exit 1; done")
        self.run("git -c advice.detachedHead=false clone --quiet /homelab.bundle homelab")

    def __exit__(self, failure, *_):
        if failure and self.keep:
            say(f"kept: {self.root}")
        else:
            self.remove()

    def remove(self):
        if self.root.exists():
            self._outside("rm", "-rf", self.root)

    def _outside(self, *command):
        """A command on the files of the machine, as their owner."""
        done = subprocess.run([*BECOME_ROOT, *command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(done.stdout + done.stderr)

    def start(self, command, user=None):
        network = [f"{name}={os.environ[name]}" for name in NETWORK if name in os.environ]
        environment = ["env", "-i", "LANG=C.UTF-8", f"PATH={os.environ['PATH']}", *network]
        enter = ["sh", HERE / "enter.sh", self.root, toolchain(), user or self.user, command]
        return subprocess.Popen(
            [*BECOME_ROOT, *environment, *NAMESPACES, *enter],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def run(self, command, user=None):
        """Runs a shell command to its end; the lines it printed. Fails when it fails."""
        output = Output(self.start(command, user), self.log, command)
        try:
            ended = output.ended(COMMAND_SECONDS)
        finally:
            output.kill()
        if not ended:
            raise Failure(f"{command}: not done within {COMMAND_SECONDS} s\n{output.tail()}")
        if output.process.returncode != 0:
            raise Failure(f"{command}: exit code {output.process.returncode}\n{output.tail()}")
        return output.lines

    def make(self, *targets):
        """The lines that make printed, and its seconds."""
        begin = time.monotonic()
        lines = self.run(f"make -C homelab --no-print-directory {' '.join(targets)}")
        return lines, round(time.monotonic() - begin)


class Output:
    """The lines of a running command, each with the time it came; a copy goes to the machine's log."""

    def __init__(self, process, log, command):
        self.process = process
        self.lines = []
        self.times = []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, args=(log, command), daemon=True)
        self.thread.start()

    def _read(self, log, command):
        with log.open("a") as copy:
            copy.write(f"$ {command}\n")
            for line in self.process.stdout:
                copy.write(line)
                copy.flush()
                with self.changed:
                    self.lines.append(line.rstrip("\n"))
                    self.times.append(time.monotonic())
                    self.changed.notify_all()
        self.process.wait()
        with self.changed:
            self.changed.notify_all()

    def ended(self, seconds):
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def wait_for(self, pattern, seconds):
        """The match of the first line that has the pattern."""
        end = time.monotonic() + seconds
        with self.changed:
            seen = 0
            while True:
                for line in self.lines[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self.lines)
                if self.process.poll() is not None and not self.thread.is_alive():
                    raise Failure(f"ended before it printed {pattern!r}\n{self.tail()}")
                if time.monotonic() > end:
                    raise Failure(f"did not print {pattern!r} within {seconds} s\n{self.tail()}")
                self.changed.wait(1)

    def tail(self):
        return "\n".join(self.lines[-60:])

    def kill(self):
        """Ends it and all it started, where it has not ended by itself."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.thread.join()
