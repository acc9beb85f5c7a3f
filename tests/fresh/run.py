#!/usr/bin/env python3
"""make test-fresh: the README's commands on machines that have nothing but make, git, certificates and a Rust toolchain.

Each machine clones the commit, so what is not committed is not tried. The last line is JSON: the seconds of each part on each
machine. Where this machine cannot make others, the line says why and the exit code is 0, or 1 with FRESH_REQUIRED=yes.
"""

import argparse
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from browser import Browser
from machine import COMMAND_SECONDS, ENDS_WITHIN_SECONDS, RELEASES, ROOT, USERS, WORK, Failure, Machine, Output, say, why_not

# From mosquitto_pub to homelab-api; a fifth of a second where nothing else runs.
READING_SECONDS = 60
# What holds Debian's services back while packages are installed, and what would be there had it not held.
HELD_BACK = ["/usr/sbin/policy-rc.d", "/etc/postgresql-common/createcluster.d/homelab-setup.conf", "/etc/postgresql/*/main"]
SETUP_LINE = re.compile(r"setup: ")
CARGO_LINE = re.compile(r"\s+(Updating|Locking|Downloading|Downloaded|Compiling|Blocking) ")


def check_quiet(lines):
    """A set-up prints one line for each thing it installs, and nothing of what package managers print."""
    loud = [line for line in lines if not SETUP_LINE.match(line)]
    if loud:
        raise Failure("the set-up printed more than its own lines:\n" + "\n".join(loud[:40]))


def check_nothing_left(machine, purpose):
    """A second set-up has nothing to do and says nothing, and the first has started and left nothing of the system's."""
    lines, _ = machine.make(purpose)
    if lines:
        raise Failure(f"a second {purpose} printed:\n" + "\n".join(lines[:40]))
    machine.run(f"for left in {' '.join(HELD_BACK)}; do [ ! -e $left ] || {{ echo $left is left; exit 1; }}; done")


def readme_command(machine, port):
    """The command below "A reading of your own", with the port that the demo says it took."""
    section = "\n".join(machine.run("cat homelab/README.md")).split("### A reading of your own", 1)[1]
    command = re.search(r"```sh\n(.*?)```", section, re.DOTALL).group(1)
    return re.sub(r"-p 1883\b", f"-p {port}", command)


def follow_reading(machine, output, origin):
    """Publishes README's reading and waits until homelab-api has it; the seconds from one to the other."""
    name, password = output.wait_for(r"log in as +(\S+), password (\S+)", 10).groups()
    port = output.wait_for(r"MQTT +127\.0\.0\.1:(\d+)", 10).group(1)
    browser = Browser(origin)
    token = browser.log_in(name, password)
    begin = time.monotonic()
    machine.run(readme_command(machine, port))
    while True:
        _, body = browser.ask(f"{origin}/api/v1/temperature/all-latest", token=token)
        if any((item["device_id"], item["temperature_c"]) == ("shellyhtg3-of-my-own", 21.5) for item in json.loads(body)["items"]):
            return round(time.monotonic() - begin, 1)
        if time.monotonic() - begin > READING_SECONDS:
            raise Failure(f"README's reading is not in the API after {READING_SECONDS} s: {body[:2000]}")
        time.sleep(0.2)


def demo(machine):
    """make demo until the page answers and a reading is in the API, then Ctrl-C; the seconds of each step."""
    begin = time.monotonic()
    output = Output(machine.start("make -C homelab --no-print-directory demo"), machine.log, "make demo")
    try:
        origin = output.wait_for(r"Homelab is running: (http://127\.0\.0\.1:\d+)", COMMAND_SECONDS).group(1)
        page = Browser(origin).ask(origin)[1]
        if "<title>" not in page:
            raise Failure(f"the page is not one: {page[:2000]}")
        up = time.monotonic()
        reading = follow_reading(machine, output, origin)
        os.killpg(output.process.pid, signal.SIGINT)
        if not output.ended(ENDS_WITHIN_SECONDS) or "stack: stopping" not in output.lines or "is killed" in output.tail():
            raise Failure(f"make demo does not end by itself within {ENDS_WITHIN_SECONDS} s after Ctrl-C\n{output.tail()}")
    finally:
        output.kill()
    build = next(i for i, line in enumerate(output.lines) if CARGO_LINE.match(line))
    built = next(i for i, line in enumerate(output.lines) if re.match(r"\s+Finished ", line))
    check_quiet(output.lines[:build])
    return {
        "demo_setup": round(output.times[build] - begin),
        "demo_build": round(output.times[built] - output.times[build]),
        "demo_start": round(up - output.times[built]),
        "reading": reading,
    }


def set_up(machine, purpose):
    lines, seconds = machine.make(purpose)
    check_quiet(lines)
    check_nothing_left(machine, purpose)
    return seconds


# Each part has a machine of its own, because a command may not rely on what another one has installed.
def part_demo(machine):
    found = demo(machine)
    return {**found, "test_setup_after_demo": set_up(machine, "setup"), "check_after_demo": machine.make("check")[1]}


def part_check(machine):
    return {"check": machine.make("check")[1]}


def part_test(machine):
    return {"test": machine.make("test")[1]}


def check_old_node_is_passed_over(machine):
    """A Node and an npm that the page's packages refuse, as some distributions have them, are not used."""
    old = {"node": "v18.20.4", "npm": "9.2.0"}
    for program, version in old.items():
        machine.run(f"printf '#!/bin/sh\\necho {version}\\n' >/usr/local/bin/{program} && chmod +x /usr/local/bin/{program}", "root")
    found = set_up(machine, "setup-check")
    used = machine.run("cd homelab && echo 'tell: ; @node --version; npm --version' | make -f Makefile -f - tell")
    if any(version in used for version in old.values()):
        raise Failure(f"the old Node is used: {used}")
    return found


def check_failure_is_shown(machine):
    """A set-up that cannot install something says what, and shows what the package manager said."""
    stand_in = "#!/bin/sh\\necho 'E: no packages today' >&2\\nexit 100\\n"
    machine.run(f"mv /usr/bin/apt-get /usr/bin/apt-get.away && printf \"{stand_in}\" >/usr/bin/apt-get && chmod +x /usr/bin/apt-get", "root")
    try:
        machine.make("setup-check")
    except Failure as failure:
        if "E: no packages today" not in str(failure) or "install by hand" not in str(failure):
            raise
    else:
        raise Failure("the set-up succeeded although apt-get failed")
    machine.run("mv /usr/bin/apt-get.away /usr/bin/apt-get", "root")


def part_setup_demo(machine):
    return {"demo_setup": set_up(machine, "setup-demo")}


def part_setup_check(machine):
    check_failure_is_shown(machine)
    return {"check_setup": check_old_node_is_passed_over(machine)}


def part_setup_test(machine):
    return {"test_setup": set_up(machine, "setup")}


PARTS = {
    "demo": part_demo,
    "check": part_check,
    "test": part_test,
    "setup-demo": part_setup_demo,
    "setup-check": part_setup_check,
    "setup-test": part_setup_test,
}
# What is tried without --part. make test, whole, takes as long as everything else together: --part test.
DEFAULT_PARTS = ["demo", "check", "setup-test"]


def arguments():
    machines = [f"{release}-{user}" for release in RELEASES for user in USERS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--machine", action="append", choices=machines, help="only this one; may be given several times")
    parser.add_argument("--part", action="append", choices=PARTS, help=f"only this one; without it {', '.join(DEFAULT_PARTS)}")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a machine on which something failed")
    given = parser.parse_args()
    return given.machine or machines, given.part or DEFAULT_PARTS, given.keep


def main():
    machines, parts, keep = arguments()
    if reason := why_not():
        print(json.dumps({"not_run": reason}))
        sys.exit(1 if os.environ.get("FRESH_REQUIRED") else 0)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    found = {}
    # kill and a closed terminal end it as Ctrl-C does, and the machine with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock, tempfile.TemporaryDirectory() as scratch:
        # A second run in this tree waits for the first, instead of taking its machine away.
        fcntl.flock(lock, fcntl.LOCK_EX)
        bundle = pathlib.Path(scratch) / "homelab.bundle"
        subprocess.run(["git", "bundle", "create", "--quiet", bundle, "HEAD"], cwd=ROOT, check=True)
        for name in machines:
            found[name] = {}
            for part in parts:
                say(f"{name}: {part}")
                try:
                    with Machine(name, part, bundle, keep) as machine:
                        found[name].update(PARTS[part](machine))
                # Whatever fails on a machine is a failure of that machine.
                except Exception as failure:
                    if not isinstance(failure, Failure):
                        traceback.print_exc()
                    print(failure, file=sys.stderr)
                    sys.exit(f"fresh: {name}: {part} failed; everything it printed: {WORK.relative_to(ROOT)}/{name}-{part}.log")
                say(f"{name}: {json.dumps(found[name])}")
    print(json.dumps({"commit": commit, "cores": os.cpu_count(), "seconds": found}))


if __name__ == "__main__":
    main()
