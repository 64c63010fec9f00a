"""Another user of the machine, who tries to use a run's Ray: prints as JSON what let him in.

    python -m tests.e2e.intruder JSON    {"ports": [["127.0.0.1", 1234], …], "sockets": […], "pids": […], "gcs": …}

Started by root he becomes the user nobody first; otherwise he is the same user, who has no token.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ray

MARK = "/tmp/mats-intruder-was-here"
JOB = {"entrypoint": f"touch {MARK}", "runtime_env": {}}
PAGES = ("/", "/api/version", "/api/jobs/", "/api/job_agent/jobs/", "/logs", "/metrics", "/api/local_raylet_healthz")
POSTS = ("/api/jobs/", "/api/job_agent/jobs/", "/get_or_create_runtime_env", "/get_runtime_envs_info")
CALLS = (
    "InternalKVGcsService/InternalKVKeys", "NodeInfoGcsService/GetAllNodeInfo", "JobInfoGcsService/AddJob",
    "NodeManagerService/GetNodeStats", "NodeManagerService/ShutdownRaylet", "ObjectManagerService/Pull",
    "CoreWorkerService/PushTask", "CoreWorkerService/GetCoreWorkerStats", "JobAgentService/InitializeJobEnv",
    "LogService/ListLogs", "RayletDriver/Init",
)  # fmt: skip
SHUT = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)
WRONG = "Bearer " + "0" * 64


def over_http(host: str, port: int) -> Iterator[str]:
    """Requests that were answered with anything but a refusal."""
    asked: list[tuple[str, bytes | None]] = [(page, None) for page in PAGES]
    asked += [(page, json.dumps(JOB).encode()) for page in POSTS]
    for page, body in asked:
        for token in ({}, {"Authorization": WRONG}):
            url = f"http://[{host}]:{port}{page}" if ":" in host else f"http://{host}:{port}{page}"
            request = urllib.request.Request(url, body, {"Content-Type": "application/json", **token})
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                    yield f"{url} answered {answer.status}"
            except urllib.error.HTTPError as error:
                if error.code not in (401, 403):
                    yield f"{url} answered {error.code}"
            except (OSError, http.client.HTTPException):
                pass  # no server of HTTP; what gRPC answers is none


def over_grpc(host: str, port: int, unauthenticated: set[str]) -> Iterator[str]:
    """Calls that were answered; those that were refused for want of a token are noted."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)]) as channel:
        for call in CALLS:
            for token in ((), (("authorization", WRONG),)):
                ask = channel.unary_unary(f"/ray.rpc.{call}")
                try:
                    ask(b"", timeout=10, metadata=token)
                    yield f"{place} {call} was answered"
                except grpc.RpcError as error:
                    if error.code() not in SHUT:  # type: ignore[attr-defined]
                        yield f"{place} {call}: {error.code()}"  # type: ignore[attr-defined]
                    if error.code() == grpc.StatusCode.UNAUTHENTICATED:  # type: ignore[attr-defined]
                        unauthenticated.add(call)


def as_driver(gcs: str) -> Iterator[str]:
    """ray.init and a task."""
    for token in (None, "0" * 64):
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        try:
            ray._raylet.Config.initialize("")
            ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
            ray.init(address=gcs, log_to_driver=False, logging_level="CRITICAL")
            yield f"ray.init: {ray.get(ray.remote(os.getuid).remote(), timeout=30)} ran a task"
        except Exception:
            pass


def on_disk(given: dict[str, Any]) -> Iterator[str]:
    """What another user's rights let him read or connect to."""
    for path in given["sockets"]:
        try:
            with socket.socket(socket.AF_UNIX) as plug:
                plug.connect(path)
                yield f"connected to {path}"
        except OSError:
            pass
    for path in {str(Path(each).parents[up]) for each in given["sockets"] for up in range(3)} - {"/tmp"}:
        if os.access(path, os.R_OK) or os.access(path, os.W_OK) or os.access(path, os.X_OK):
            yield f"may enter {path}"
    for pid in given["pids"]:
        try:
            Path(f"/proc/{pid}/environ").read_bytes()
            yield f"reads the environment of {pid}"
        except OSError:
            pass


def main() -> None:
    """Try everything."""
    given = json.loads(sys.argv[1])
    other = os.getuid() == 0
    if other:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    found, refused = list(on_disk(given)) if other else [], set[str]()
    for host, port in given["ports"]:
        found += [*over_http(host, port), *over_grpc(host, port, refused)]
    found += as_driver(given["gcs"])
    print(json.dumps({"in": found, "refused": sorted(refused), "marked": Path(MARK).exists()}))


if __name__ == "__main__":
    main()
