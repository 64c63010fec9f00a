"""Who is let into a cluster: asked of a dashboard, and of a Ray that takes everybody."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs import doctor, submit
from mats_core.errors import SettingsError
from pipelines.cluster.doors import authenticate, takes_anybody
from pipelines.cluster.own_ray import read_authentication

TOKEN = "f" * 64


class _Dashboard(BaseHTTPRequestHandler):
    wanted = TOKEN
    heard: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        token = self.headers.get("Authorization") or self.headers.get("authorization")
        self.heard.append(token)
        status = 200 if not self.wanted or token == f"Bearer {self.wanted}" else 403 if token else 401
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of a dashboard that wants TOKEN; nobody here knows a token."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_Dashboard, "heard", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    monkeypatch.undo()
    read_authentication()


def test_a_cluster_that_wants_a_token_gets_it_from_where_ray_looks(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not takes_anybody(dashboard)
    with pytest.raises(SettingsError, match=r"^address: the cluster at .* wants a token; set RAY_AUTH_TOKEN_PATH"):
        authenticate(dashboard)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(SettingsError, match="wants another token"):
        authenticate(dashboard)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert authenticate(dashboard) is False
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_a_cluster_that_takes_anybody_is_warned_of_and_gets_no_token(
    dashboard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray.job_submission

    monkeypatch.setattr(_Dashboard, "wanted", "")
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", lambda where: where)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert submit.dashboard_client(dashboard) == dashboard
    assert set(_Dashboard.heard) == {None}
    told = capsys.readouterr().err
    assert f"warning: the cluster at {dashboard} takes jobs from anybody who reaches it" in told
    assert "RAY_AUTH_MODE=token" in told and TOKEN not in told
    (found,) = doctor.cluster_findings(dashboard)
    assert (found.state, found.name) == (doctor.MISSING, "closed")


def test_doctor_says_what_it_finds(dashboard: str) -> None:
    (found,) = doctor.cluster_findings(dashboard)
    assert (found.state, found.detail) == (doctor.OK, "it wants a token")
    (found,) = doctor.cluster_findings("http://127.0.0.1:9")
    assert found.state == doctor.MISSING
    assert "no Ray dashboard answers at http://127.0.0.1:9" in found.detail


def test_a_ray_that_takes_everybody_is_told_from_a_closed_one(shared_ray: str) -> None:
    assert takes_anybody(shared_ray)
