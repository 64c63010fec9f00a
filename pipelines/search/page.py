"""What was found, as a page to look at and listen to."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mats_core import storage
from mats_core.storage.uris import archive_of, local_path, public_uri, scheme
from pipelines.pages.answers import path_text, printable_path
from pipelines.pages.media import add_media
from pipelines.pages.render import render_page
from pipelines.settings.search import SearchSettings

HEARD = 200
"""Windows with a picture and a player; those beyond have their words."""
MOST_MEDIA_BYTES = 50_000_000


def write_page(out: str, settings: SearchSettings, hits: list[dict[str, Any]]) -> None:
    """Write the page to `out`, with pictures and players of what can still be read."""
    files = []
    for hit in hits:
        name = printable_path(path_text(hit["uri"]))
        folder, _, base = name.rpartition("/")
        part = {"start": hit["start_s"], "length": max(0.1, hit["end_s"] - hit["start_s"])}
        files.append({**hit, "folder": folder, "name": base, "link": _link(hit["uri"]), "parts": [part]})
    heard = files[:HEARD]
    longest = max((each["parts"][0]["length"] for each in heard), default=1.0)
    add_media(heard, longest, MOST_MEDIA_BYTES, 1)
    asked = {**settings.told(), "run": public_uri(settings.run)}
    page = render_page("search.html.j2", asked=asked, files=files, heard=HEARD)
    storage.write_bytes(out, page)


def _link(uri: str) -> str:
    """Where a browser finds the file; "" where it would not."""
    if archive_of(uri) != uri:
        return ""
    path = local_path(uri)
    if path is not None:
        return "file://" + quote(path) if path.startswith(b"/") else ""
    return uri if scheme(uri) in ("http", "https") else ""
