"""OpenStack Swift with its S3 API, out of the system's packages, on loopback: a real store that is not Amazon's.

`SwiftStore()` for tests; by hand, until Ctrl-C, `python -m tests.swift_server`, which prints what a client needs. No
root: configuration, rings and data lie in one temporary folder.
"""

from __future__ import annotations

import configparser
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = "swift-proxy swift-account swift-container swift-object memcached"
KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
_PROXY = "swift-proxy-server"
_MIDDLEWARE = "catch_errors cache listing_formats s3api tempauth copy slo dlo versioned_writes symlink"
# Servers read /etc/swift/swift.conf, unless told otherwise before anything else of Swift is imported.
_RUN = """
import sys
from swift.common import utils
utils.SWIFT_CONF_FILE = sys.argv[1]
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3]))
"""


def missing() -> str | None:
    """What is to be done before Swift can start, or None."""
    absent = [name for name in (_PROXY, "swift-object-server", "memcached") if shutil.which(name) is None]
    return f"Swift is not installed: apt-get install --no-install-recommends {PACKAGES}" if absent else None


class SwiftStore:
    """An empty store: three servers for accounts, containers and objects, their proxy, and memcached."""

    keys = KEYS

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="swift-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.host = "127.0.0.1"
        try:
            self.port = self._start()
        except BaseException:
            self.close()
            raise
        self.endpoint = f"http://{self.host}:{self.port}"

    def client(self) -> Any:
        """A botocore client of it."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=KEYS["AWS_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def close(self) -> None:
        """End its processes, and remove what it held."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> int:
        (self._folder / "data" / "disk").mkdir(parents=True)
        policy = {"name": "one", "default": "yes"}
        hashes = {"swift_hash_path_prefix": "tests", "swift_hash_path_suffix": "tests"}
        self._write("swift.conf", {"swift-hash": hashes, "storage-policy:0": policy})
        *ports, proxy, memory = free_ports(5)
        self._run("memcached", "-u", "root", "-l", self.host, "-p", str(memory), "-m", "64")
        for name, port in zip(("account", "container", "object"), ports, strict=True):
            self._write_ring(name, port)
            app = {f"app:{name}-server": {"use": f"egg:swift#{name}"}, "pipeline:main": {"pipeline": f"{name}-server"}}
            self._serve(name, port, app)
        filters = {f"filter:{name}": {"use": f"egg:swift#{name}"} for name in _MIDDLEWARE.split()}
        filters["filter:cache"] = {"use": "egg:swift#memcache", "memcache_servers": f"{self.host}:{memory}"}
        filters["filter:s3api"].update(location=KEYS["AWS_REGION"], check_bucket_owner="false")
        user, _, login = KEYS["AWS_ACCESS_KEY_ID"].partition(":")
        filters["filter:tempauth"][f"user_{user}_{login}"] = f"{KEYS['AWS_SECRET_ACCESS_KEY']} .admin"
        app = {"use": "egg:swift#proxy", "allow_account_management": "true", "account_autocreate": "true"}
        line = {"pipeline": f"{_MIDDLEWARE} proxy-server"}
        self._serve("proxy", proxy, {"app:proxy-server": app, "pipeline:main": line, **filters})
        for port in (memory, *ports, proxy):
            self._await(port)
        return proxy

    def _write(self, name: str, sections: dict[str, dict[str, str]]) -> Path:
        parser = configparser.RawConfigParser(default_section="")  # note: Swift's DEFAULT is a section as any here
        parser.read_dict(sections)
        path = self._folder / name
        with path.open("w") as file:
            parser.write(file)
        return path

    def _write_ring(self, name: str, port: int) -> None:
        builder = ["swift-ring-builder", str(self._folder / f"{name}.builder")]
        for what in (["create", "6", "1", "0"], ["add", f"r1z1-{self.host}:{port}/disk", "1"], ["rebalance"]):
            subprocess.run([*builder, *what], check=True, capture_output=True)

    def _serve(self, name: str, port: int, sections: dict[str, dict[str, str]]) -> None:
        common = {
            "bind_ip": self.host,
            "bind_port": str(port),
            "workers": "0",
            "user": subprocess.check_output(["id", "-un"], text=True).strip(),
            "log_level": "ERROR",
            "swift_dir": str(self._folder),
            "devices": str(self._folder / "data"),
            "mount_check": "false",
            "disable_fallocate": "true",
            "fallocate_reserve": "0",
            # On a busy machine an update of a listing would be put off, for a daemon that does not run here.
            **dict.fromkeys(("conn_timeout", "node_timeout", "container_update_timeout"), "60"),
        }
        conf = self._write(f"{name}-server.conf", {"DEFAULT": common, **sections})
        proxy = shutil.which(_PROXY)
        assert proxy is not None, missing()
        python = Path(proxy).read_text().partition("\n")[0].removeprefix("#!").strip()  # the one that has Swift
        self._run(python, "-c", _RUN, str(self._folder / "swift.conf"), str(conf), f"{name}-server")

    def _run(self, *command: str) -> None:
        with (self._folder / "log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder))

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            try:
                socket.create_connection((self.host, port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"Swift does not start: {(self._folder / 'log').read_text()[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    store = SwiftStore()
    shown = {"AWS_ENDPOINT_URL": store.endpoint, **KEYS}
    print("export", *(f"{name}={value}" for name, value in shown.items()), flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        store.close()
