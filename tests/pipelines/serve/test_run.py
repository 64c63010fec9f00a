"""Settings of a server, and one that is started, asked and stopped."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mats_core.errors import SettingsError
from pipelines import run_serve
from pipelines.serve.run import _open_indices, check_packages, open_state
from pipelines.serve.runs import open_served
from pipelines.settings.base import build
from pipelines.settings.serve import TOKEN, ServeSettings
from tests.pipelines.pages.made_up import row, write_run
from tests.pipelines.search.made_up import chunk_rows, unit_vectors, windows_of
from tests.pipelines.search.made_up import write_run as write_heard


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing is to be served"),
        ({"runs": ["x"], "host": "0.0.0.0"}, "can be reached by others"),
        ({"runs": ["x"], "host": "192.168.1.5"}, "can be reached by others"),
        ({"runs": ["x"], "host": "::"}, "can be reached by others"),
        ({"runs": ["x"], "host": "sounds.example"}, "can be reached by others"),
        ({"runs": ["x"], "host": "0.0.0.0", "token": "short"}, "can be guessed"),
        ({"runs": ["x"], "token": "short"}, "can be guessed"),
        ({"runs": ["x"], "port": 70000}, "port"),
        ({"runs": ["x"], "upload_mb": 0}, "upload_mb"),
    ],
)
def test_what_would_not_be_safe_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as error:
        build(ServeSettings, given)
    assert "short" not in str(error.value), "a token is shown nowhere"


def test_a_token_comes_from_the_environment_and_only_this_machine_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(build(ServeSettings, {"demo": True, "host": host}).local for host in ("127.0.0.1", "::1", "localhost"))
    monkeypatch.setenv(TOKEN, "x" * 16)
    assert build(ServeSettings, {"demo": True, "host": "0.0.0.0"}).token == "x" * 16


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(SettingsError, match=r'fastapi is not installed; pip install "mats-audio\[serve\]"'):
        check_packages()


class Running:
    """A server in a thread."""

    def __init__(self, **settings: Any) -> None:
        self.stop, self.told = threading.Event(), threading.Event()
        self.url, self.notes, self.result = "", [""], None
        self.thread = threading.Thread(target=self._run, args=(settings,))
        self.thread.start()
        assert self.told.wait(60), "it never listened"

    def _run(self, settings: dict[str, Any]) -> None:
        def ready(url: str, notes: list[str]) -> None:
            self.url, self.notes = url, notes
            self.told.set()

        self.result = run_serve(port=0, ready=ready, stop=self.stop, **settings)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """(status, body) of a page."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def end(self) -> None:
        """Stop it."""
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.mark.processes
def test_a_server_answers_until_it_is_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", [row(0, "/in/a.wav"), row(1, "/in/b.wav")])
    server = Running(runs=[run], model="none", token="0123456789abcdef", demo=True)
    try:
        assert server.notes == ["nothing can be asked: the server was started with --model none"]
        assert server.get("api/rows")[0] == 401
        status, body = server.get("api/rows", Authorization="Bearer 0123456789abcdef")
        assert status == 200 and json.loads(body)["total"] == 2
        assert server.get("", Host="evil.example")[0] == 400
        with pytest.raises(SettingsError, match="cannot be listened to"):
            run_serve(demo=True, port=int(server.url.rstrip("/").rpartition(":")[2]))
    finally:
        server.end()
    assert server.result is not None and server.result.runs == 1
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", int(server.url.rstrip("/").split(":")[2])), 2):
        pass


@dataclass
class Encoder:
    """As `Asker`, without a model: one named "other" has not made the embeddings."""

    model: str
    device: str
    allow_parts: tuple[str, ...]
    made: ClassVar[list[str]] = []

    def __post_init__(self) -> None:
        self.made.append(self.model)

    def check(self, made_with: str, shown: str) -> None:
        """See `Asker`."""
        if self.model == "other":
            raise SettingsError("run", f"{shown} is of another encoder than /models/other", "name the model")


@pytest.mark.parametrize("model", [None, "builtin", "other", "none"])
def test_sounds_are_searched_with_one_encoder_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None
) -> None:
    """Of an encoder that is not here it is told, and pages are served all the same; without a model none is loaded."""
    monkeypatch.setattr("pipelines.serve.run.Asker", Encoder)
    monkeypatch.setattr(Encoder, "made", [])
    heard = chunk_rows(windows_of(unit_vectors(20)), answers=True)
    runs = [open_served(str(write_heard(tmp_path / name, heard, job="caption"))) for name in ("one", "two")]
    runs.append(open_served(write_run(tmp_path / "words", [row(0, "/in/a.wav")])))
    _open_indices(runs, build(ServeSettings, {"runs": ["x"], "model": model, "device": "cpu"}), None)
    if model in (None, "builtin"):
        assert Encoder.made == ["builtin"] and runs[0].asker is runs[1].asker is not None
        assert [each.opened is not None for each in runs] == [True, True, False] and runs[2].notes == []
    else:
        assert Encoder.made == (["other"] if model == "other" else [])
        assert all(each.opened is None for each in runs)
        told = "its sounds cannot be searched (… is of another encoder than …)"
        assert [each.notes for each in runs] == ([[told], [told], []] if model == "other" else [[], [], []])


def test_catalogs_are_closed_where_the_answerer_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Serve on a cluster that is not there, say: after the catalogs are open."""

    def fails(*_: Any) -> None:
        raise SettingsError("address", "there is no cluster", "start one")

    closed: list[Path] = []
    monkeypatch.setattr("pipelines.serve.run._answerer", fails)
    monkeypatch.setattr("pipelines.serve.catalog.Catalog.close", lambda self: closed.append(self.place))
    runs = [write_run(tmp_path / name, [row(0, "/in/a.wav")]) for name in ("one", "two")]
    with pytest.raises(SettingsError, match="there is no cluster"):
        open_state(build(ServeSettings, {"runs": runs, "model": "none"}))
    assert len(set(closed)) == len(closed) == 2


def test_what_cannot_be_served_is_refused_before_anything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalogs take minutes: a model or a second run that is not there is told of before the first is made."""
    ended = threading.Event()
    ended.set()  # what is served by mistake is no server that goes on
    with pytest.raises(SettingsError, match="holds no answers"):
        run_serve(runs=[str(tmp_path)], port=0, stop=ended)
    with pytest.raises(SettingsError, match="model"):
        run_serve(demo=True, model=str(tmp_path / "none"), port=0, stop=ended)
    run = write_run(tmp_path / "run", [row(0, "/in/a.wav")])
    monkeypatch.setattr("pipelines.serve.run.open_served", lambda *_: pytest.fail("a catalog is made"))
    with pytest.raises(SettingsError, match="model"):
        run_serve(runs=[run], model=str(tmp_path / "none"), port=0, stop=ended)
    with pytest.raises(SettingsError, match="gone is no folder that exists"):
        run_serve(runs=[run, str(tmp_path / "gone")], model="none", port=0, stop=ended)
