"""The application: pages, sounds and static files, with the API of `api`, behind `guard`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse

from mats_core import __version__
from mats_core.audio.file import AudioError
from mats_core.errors import SettingsError, StorageError
from pipelines.pages.render import TEMPLATES, template_environment
from pipelines.serve import finding
from pipelines.serve.api import State, described, refused, routes, whole
from pipelines.serve.guard import MOST_JSON, Guard
from pipelines.serve.sounds import PLAYED, byte_range, file_blocks, file_size

OURS = Path(__file__).parent / "templates"
STATIC = {
    "look.css": (TEMPLATES, "text/css"),
    "serve.css": (OURS, "text/css"),
    "serve.js": (OURS, "text/javascript"),
    "demo.js": (OURS, "text/javascript"),
    "icon.svg": (OURS, "image/svg+xml"),
}
KEPT = {"cache-control": "private, max-age=3600"}


def make_app(state: State, token: str | None = None, hosts: Collection[str] = ()) -> Guard:
    """The application for what `state` holds. token, hosts: see `Guard`."""
    app = FastAPI(
        title="MATS", version=__version__, docs_url=None, redoc_url=None,
        description="A captioned archive: find, listen, ask, put right.",
    )  # fmt: skip
    app.include_router(routes(state))
    _add_pages(app, state)
    _add_sounds(app, state)

    async def told(request: Request, error: Exception) -> JSONResponse:
        status, body = refused(error, state)
        return JSONResponse(body, status)

    for kind in (SettingsError, StorageError, AudioError):
        app.add_exception_handler(kind, told)
    return Guard(app, token, hosts, state.upload[0] if state.upload else MOST_JSON)


def _add_pages(app: FastAPI, state: State) -> None:
    templates = template_environment(OURS, TEMPLATES)

    def page(name: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(state=state, **values))

    @app.get("/", include_in_schema=False)
    def browse(query: Annotated[finding.Query, Query()]) -> Response:
        if not state.runs:
            return RedirectResponse("/demo", 307)
        problem, found = "", finding.Found([], "", 0)
        try:
            found = state.finder.page(query)
        except SettingsError as error:
            problem = state.plain(f"{error.problem}; {error.remedy}")
        rows = [described(number, state.runs[number], row, window) for number, row, window in found.rows]
        asked = {name: value for name, value in query.model_dump(exclude_defaults=True).items() if name != "after"}
        following = "/?" + urlencode({**asked, "after": found.next}) if found.next else ""
        return page(
            "browse.html.j2", query=query, rows=rows, total=found.total, following=following, problem=problem,
            first="/?" + urlencode(asked) if query.after else "", values=_values(state, query),
        )  # fmt: skip

    @app.get("/clip/{run}/{row}", include_in_schema=False)
    def details(run: int, row: int) -> HTMLResponse:
        return page("details.html.j2", row=whole(state, run, row))

    @app.get("/api", include_in_schema=False)
    def explain() -> HTMLResponse:
        return page("api.html.j2", api=app.openapi())

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404)
        folder, kind = STATIC[name]
        return Response((folder / name).read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    if state.upload is not None:

        @app.get("/demo", include_in_schema=False)
        def demo() -> HTMLResponse:
            return page("demo.html.j2")


def _values(state: State, query: finding.Query) -> dict[str, dict[str, int]]:
    """What each filter may choose, with how many rows have it, over the runs that are asked."""
    chosen = [each for number, each in enumerate(state.runs) if query.run in (None, number)]
    found: dict[str, dict[str, int]] = {}
    for each in chosen:
        for name, counts in each.catalog.values.items():
            into = found.setdefault(name, {})
            for value, count in counts.items():
                into[value] = into.get(value, 0) + count
    return found


def _add_sounds(app: FastAPI, state: State) -> None:
    @app.get(
        "/audio/{run}/{row}.wav", tags=["sounds"], summary="A row's stretch of sound, mono", response_class=Response
    )
    def audio(run: int, row: int, request: Request) -> Response:
        _, found = state.find(run, row)
        data = state.sounds.wav((run, row), found)
        return _ranged(request, len(data), "audio/wav", lambda first, last: iter([data[first : last + 1]]))

    @app.get("/picture/{run}/{row}.webp", tags=["sounds"], summary="Its spectrogram", response_class=Response)
    def picture(run: int, row: int) -> Response:
        _, found = state.find(run, row)
        return Response(state.sounds.picture((run, row), found), media_type="image/webp", headers=KEPT)

    @app.get("/file/{run}/{row}", tags=["sounds"], summary="The file as it is", response_class=Response)
    def file(run: int, row: int, request: Request) -> Response:
        served, found = state.find(run, row)
        uri = found["uri"]
        if (run, row) not in state.checked:
            state.sounds.check(uri)  # what is no sound is not handed out
            state.checked.add((run, row))
        kind = PLAYED.get(str(found["format"]), "application/octet-stream")
        name = quote(served.name(uri).rpartition("/")[2].replace("\n", " "), safe="")
        how = "inline" if str(found["format"]) in PLAYED else "attachment"
        extra = {"content-disposition": f"{how}; filename*=UTF-8''{name}"}
        return _ranged(request, file_size(uri), kind, lambda first, last: file_blocks(uri, first, last), extra)


def _ranged(request: Request, size: int, kind: str, read: Any, extra: dict[str, str] | None = None) -> Response:
    """All of it, or the range that is asked for. read(first, last) → blocks of bytes."""
    headers = {"accept-ranges": "bytes", **KEPT, **(extra or {})}
    try:
        asked = byte_range(request.headers.get("range"), size)
    except ValueError:
        return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
    first, last = asked or (0, size - 1)
    headers["content-length"] = str(last - first + 1)
    if asked:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(read(first, last), 206 if asked else 200, headers, kind)
