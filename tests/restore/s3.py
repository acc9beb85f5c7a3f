"""Where the drill keeps its dumps: a real S3 server on 127.0.0.1 (SeaweedFS), ended with the drill, or a folder in its place."""

import json
import os
import socket
import subprocess
import time

KEY_ID, KEY = "drill", "worth-nothing-outside-this-machine"
BUCKET = "house"
# It starts in two seconds; a machine that is busy with other tests may need many times that.
READY_WITHIN_SECONDS = 90


def free_ports(number):
    """Ports whose gRPC twin, ten thousand higher, is free as well: SeaweedFS takes both."""
    ports = []
    while len(ports) < number:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1] % 20000 + 20000
            try:
                other.bind(("127.0.0.1", port + 10000))
                with socket.socket() as again:
                    again.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in ports:
                ports.append(port)
    return ports


class S3:
    """The server, and how rclone reaches it."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        self.port = None

    def start(self):
        (self.folder / "data").mkdir(parents=True)
        identity = {"name": "drill", "credentials": [{"accessKey": KEY_ID, "secretKey": KEY}], "actions": ["Admin"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, self.port = free_ports(4)
        self.process = subprocess.Popen(
            [
                os.environ["WEED"], f"-logdir={self.folder}", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-dir={self.folder / 'data'}", f"-master.port={master}", f"-volume.port={volume}", "-volume.max=20",
                "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={self.port}", f"-s3.config={self.folder / 's3.json'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "log").open("w"),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            made = self.rclone("mkdir", f"s3:{BUCKET}")
            if made.returncode == 0:
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, made.stderr
            time.sleep(0.3)

    def out_of_reach(self):
        """Variables with which nothing can be written."""
        return {"RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": "wrong"}

    def variables(self):
        """The variables of the backup CronJob's container for this server."""
        return {
            "BACKUP_BUCKET": BUCKET,
            "RCLONE_CONFIG": str(self.folder / "rclone.conf"),
            "RCLONE_CONFIG_S3_TYPE": "s3",
            "RCLONE_CONFIG_S3_PROVIDER": "Other",
            "RCLONE_CONFIG_S3_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "RCLONE_CONFIG_S3_ACCESS_KEY_ID": KEY_ID,
            "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": KEY,
            # One try: the drill wants to see a failure, not to wait for its third repetition.
            "RCLONE_RETRIES": "1",
            "RCLONE_LOW_LEVEL_RETRIES": "1",
            # A certificate bundle for other programs of this machine; the server here speaks plain HTTP.
            "AWS_CA_BUNDLE": "",
        }

    def rclone(self, *arguments, **files):
        """rclone as a person would call it."""
        return subprocess.run(
            ["rclone", *map(str, arguments)],
            env={**os.environ, **self.variables()},
            capture_output=True,
            text=True,
            timeout=300,
            **files,
        )

    def names(self, prefix):
        """What lies under a prefix, sorted."""
        listed = self.rclone("lsf", "-R", "--files-only", f"s3:{BUCKET}/{prefix}")
        return sorted(listed.stdout.split())

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Folder(S3):
    """The same calls of rclone against a folder: what make test has, where the server would first have to be built."""

    def start(self):
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "data").chmod(0o777)
        assert self.rclone("mkdir", f"s3:{BUCKET}").returncode == 0

    def rclone(self, *arguments, **files):
        # The scripts run as PostgreSQL's user, the test as another one.
        return super().rclone(*arguments, umask=0, **files)

    def out_of_reach(self):
        return {"RCLONE_CONFIG_S3_REMOTE": "/proc/nowhere"}

    def variables(self):
        return {
            "BACKUP_BUCKET": BUCKET,
            "RCLONE_CONFIG": str(self.folder / "rclone.conf"),
            "RCLONE_CONFIG_S3_TYPE": "alias",
            "RCLONE_CONFIG_S3_REMOTE": str(self.folder / "data"),
            "RCLONE_RETRIES": "1",
            "RCLONE_LOW_LEVEL_RETRIES": "1",
        }
