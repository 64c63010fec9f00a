"""`mats serve`: what is served is opened and checked, then uvicorn answers until it is told to stop."""

from __future__ import annotations

import getpass
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.model.directory import check_model_dir
from pipelines.cluster.progress import Progress
from pipelines.search.asking import Asker
from pipelines.search.reading import vectors_folder
from pipelines.search.run import open_run
from pipelines.serve.answering import Answerer, Here
from pipelines.serve.catalog import parts_of
from pipelines.serve.runs import Served, open_served, plain_message
from pipelines.settings.base import anchored
from pipelines.settings.calling import by_name
from pipelines.settings.serve import ServeSettings

if TYPE_CHECKING:
    from pipelines.serve.api import State

NONE = "none"
GRACE_S, END_S = 3, 30
"""How long requests may go on when the server is stopped, and what is still loading."""


@dataclass
class ServeResult:
    """Where the server was, and how many runs it served."""

    url: str
    runs: int


@by_name(ServeSettings)
def run_serve(
    settings: ServeSettings,
    progress: Callable[[Progress], None] | None = None,
    ready: Callable[[str, list[str]], None] | None = None,
    stop: threading.Event | None = None,
) -> ServeResult:
    """Serve until Ctrl-C, SIGTERM, or `stop`. ready: told the address once it is listened to, and what to know.

    Raises SettingsError before anything is served.
    """
    check_packages()
    listening = listen(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listening.getsockname()[1]}/"
    with listening:
        state = open_state(settings, progress)
        try:
            _serve(state, settings, listening, lambda: ready(url, notes_of(state)) if ready else None, stop)
        finally:
            close_state(state)
    return ServeResult(url, len(state.runs))


def check_packages() -> None:
    """SettingsError where the extra `serve` is not installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        problem = f"{error.name} is not installed"
        raise SettingsError("serve", problem, 'pip install "mats-audio[serve]"') from None


def listen(settings: ServeSettings) -> socket.socket:
    """A socket where the settings say. Raises SettingsError."""
    try:
        family, _, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        return made
    except OSError as error:
        problem = f"{settings.host}:{settings.port} cannot be listened to ({error.strerror or error})"
        raise SettingsError("port", problem, "choose another one; --port 0 takes a free one") from None


def open_state(settings: ServeSettings, progress: Callable[[Progress], None] | None = None) -> State:
    """All that is served, opened; the model and the indices go on loading behind it. Raises SettingsError."""
    from pipelines.serve.api import State
    from pipelines.serve.finding import Finder
    from pipelines.serve.sounds import Sounds

    def tell(done: int, of: int) -> None:
        if progress is not None:
            progress(Progress("run", done, of))

    check_model_and_runs(settings)
    runs: list[Served] = []
    upload = (settings.upload_mb * 10**6, settings.upload_s) if settings.demo else None
    with ExitStack() as opened:
        for run in settings.runs:
            runs.append(open_served(run, tell))
            opened.callback(runs[-1].catalog.close)
        state = State(runs, Finder(runs), Sounds(), upload=upload, user=_user() if settings.local else "")
        opened.callback(state.sounds.close)
        state.answerer, state.silent_why = _answerer(settings, runs)  # may fail, as Ray Serve may
        opened.pop_all()  # from here on `close_state` closes them
    state.loading = threading.Thread(target=_open_indices, args=(runs, settings, state.answerer), daemon=True)
    state.loading.start()
    return state


def check_model_and_runs(settings: ServeSettings) -> None:
    """SettingsError where the model or a run that was named is not there, or Ray Serve is not installed.

    It takes a moment, so it comes first: to make the catalogs of the runs takes minutes.
    """
    if settings.model is not None and settings.model != NONE:
        check_hears(settings.model, settings)
    if settings.address is not None:
        from pipelines.serve.replicas import ray_serve

        ray_serve()
    for run in settings.runs[1:]:  # of the first, the catalog is made next
        parts_of(anchored(run))


def check_hears(model: str, settings: ServeSettings) -> None:
    """SettingsError for a model that is not there, or has no encoder."""
    config = check_model_dir(model, settings.allow_parts)
    if config.encoder is None:
        problem = f'"{storage.public_uri(model)}" has no encoder'
        raise SettingsError("model", problem, "choose one with an encoder, or say --model none")


def close_state(state: State) -> None:
    """Let go of the model, the decoders and the catalogs."""
    if state.answerer is not None:
        state.answerer.close()
    if state.loading is not None:
        state.loading.join(END_S)  # note: a thread in a native library when the interpreter ends makes that a crash
    state.sounds.close()
    for served in state.runs:
        served.catalog.close()


def notes_of(state: State) -> list[str]:
    """What whoever starts the server should know."""
    return [f"nothing can be asked: {state.silent_why}"] if state.silent_why else []


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _answerer(settings: ServeSettings, runs: list[Served]) -> tuple[Answerer | None, str]:
    """Who answers; or None, and why. A model that was named is there, that of a run need not be."""
    model = settings.model or (runs[0].model if runs else "builtin")
    if model == NONE:
        return None, "the server was started with --model none"
    if settings.model is None:
        try:
            check_hears(model, settings)
        except SettingsError:
            if not runs:
                raise
            return None, "the model of the run is not here; name one with --model"
    if settings.address is not None:
        from pipelines.serve.replicas import Replicas

        return Replicas(model, settings.address, settings.replicas, settings.device, settings.allow_parts), ""
    return Here(model, settings.device, settings.allow_parts), ""


def _open_indices(runs: list[Served], settings: ServeSettings, answerer: Answerer | None) -> None:
    """Open the runs' indices, building them first where need be; until then their sounds cannot be searched, nor where
    no model is to be loaded."""
    if settings.model == NONE:
        return
    if answerer is not None:
        answerer.ready.exception()  # transformers is not to be imported by two threads at once
    askers: dict[str, Asker] = {}
    for served in runs:
        try:
            vectors_folder(served.run)
        except SettingsError:
            continue
        try:
            opened = open_run(served.run)
            model = settings.model or opened.model
            if model not in askers:
                askers[model] = Asker(model, settings.device, tuple(settings.allow_parts))
            asker = askers[model]
            asker.check(opened.encoder, storage.public_uri(served.run))
        except Exception as error:
            why = error.problem if isinstance(error, SettingsError) else first_line(error)
            served.notes.append(f"its sounds cannot be searched ({plain_message(why, served.folders)})")
            continue
        served.notes += [plain_message(note, served.folders) for note in opened.notes]
        served.asker, served.opened = asker, opened


def _serve(
    state: State, settings: ServeSettings, listening: socket.socket, ready: Callable[[], Any],
    stop: threading.Event | None,
) -> None:  # fmt: skip
    import uvicorn

    from pipelines.serve.app import make_app

    class Server(uvicorn.Server):
        """Tells when it listens, and stops when it is told."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or (stop is not None and stop.is_set())

    hosts = [settings.host, *settings.allow_host]
    config = uvicorn.Config(
        make_app(state, settings.token, hosts), log_level="warning", access_log=False, server_header=False,
        loop="asyncio", http="h11", ws="none", lifespan="off", timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    Server(config).run(sockets=[listening])
