"""Where the parts of a model may lie.

`mats.json` is a file, perhaps of somebody else's: what it names is inside the model directory, a name of the hub, or at
a place that the user has named, in `allow_parts` or when making the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from mats_core.encoders.facts import HUB_TOKENIZERS, split_uri
from mats_core.errors import SettingsError
from mats_core.storage import lies_in, public_uri, scheme
from mats_core.storage.fetch import looks_like_hub_name, strip_scheme
from mats_core.storage.fingerprint import hash_settings, note, noted
from mats_core.storage.hosts import is_near, resolves_near
from mats_core.storage.uris import OBJECT_STORES, is_file_url, web_parts


def check_places(folder: Path, parts: dict[str, str], shown: str, allowed: Sequence[str] = ()) -> list[str]:
    """The places outside the model directory `folder` that its parts (name → URI) are at; SettingsError for one that
    neither `allowed` nor a model the user made names, and for a link that leads out of the directory.

    A loopback or link-local address passes only where `allowed` writes it; a name that leads to one never does.
    """
    places: list[str] = []
    for part, uri in parts.items():
        for at, place in enumerate(_named(uri)):
            name = f"{part}.tokenizer" if at else part
            if any(ord(letter) < 32 or letter == "\\" for letter in place) or ("://" in place and not _is_url(place)):
                raise SettingsError(name, f"{shown} names {place!r:.100}, which is no place", "choose another model")
            if scheme(place):
                _check_url(name, place, shown, allowed)
                places.append(place)
            elif (path := _local(folder, place)) is not None and not lies_in(path, str(folder)):
                if not _is_named(path, allowed):
                    raise _outside(name, place, shown, path)
                places.append(path)
    _check_links(folder, parts, shown, [*allowed, *places])
    return places


def remember_places(uris: Iterable[str]) -> None:
    """Keep that the user named these parts, so that a model made with them needs no `allow_parts` on this machine."""
    for place in (place for uri in uris for place in _named(uri)):
        if scheme(place) or os.path.lexists(os.path.expanduser(place)):
            note("places", hash_settings(_plain(place)), _plain(place))


def _is_url(place: str) -> bool:
    return bool(scheme(place)) or is_file_url(place)


def _named(uri: str) -> list[str]:
    """The places in a part's URI: of Microsoft's CLAP the weights, and the tokenizer where one is named."""
    return [place for place in split_uri(uri) if place] if uri.startswith("msclap:") else [uri]


def _plain(place: str) -> str:
    return public_uri(place) if scheme(place) else os.path.realpath(os.path.expanduser(place))


def _local(folder: Path, place: str) -> str | None:
    """The local path that a place is; None for a name of the hub."""
    if is_file_url(place):
        return os.path.abspath(os.path.expanduser(place[len("file://") :]))
    name = strip_scheme(place)
    if not place.startswith("hf:") and os.path.lexists(folder / name):
        return os.path.normpath(folder / name)
    is_hub = place.startswith("hf:") or looks_like_hub_name(name) or name in HUB_TOKENIZERS
    path = os.path.expanduser(name)
    return None if is_hub and not os.path.lexists(path) else os.path.abspath(path if is_hub else folder / path)


def _is_named(place: str, allowed: Sequence[str]) -> bool:
    if any(lies_in(place, os.path.expanduser(each)) for each in allowed):
        return True
    return noted("places", hash_settings(_plain(place))) is not None


def _outside(name: str, place: str, shown: str, full: str) -> SettingsError:
    remedy = f"where you trust it, give --allow-parts {public_uri(full)} (allow_parts in Python), or copy it inside"
    return SettingsError(name, f"{shown} names {public_uri(place)}, which lies outside the model directory", remedy)


def _check_url(name: str, place: str, shown: str, allowed: Sequence[str]) -> None:
    if ".." in unquote(place).split("/"):
        raise SettingsError(name, f'{shown} names {public_uri(place)}, which climbs by ".."', "choose another model")
    named = _is_named(place, allowed)
    if scheme(place) not in OBJECT_STORES:
        host = web_parts(place)[0].rpartition("@")[2]
        host = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if (is_near(host) and not named) or (named and not is_near(host) and resolves_near(host)):
            why = f"{shown} names {public_uri(place)}, which is this machine itself or its network"
            raise SettingsError(name, why, "choose another model, or copy the part into the model directory")
    if not named:
        raise _outside(name, place, shown, place)


def _check_links(folder: Path, parts: dict[str, str], shown: str, allowed: Sequence[str]) -> None:
    root = Path(os.path.realpath(folder))
    # note: the hub's own cache keeps files in "blobs" and links to them from "snapshots/REVISION"
    roots = [str(root), *([str(root.parents[1] / "blobs")] if root.parent.name == "snapshots" else [])]
    inside = [folder, folder / "adapter", *(folder / uri for uri in parts.values() if not scheme(uri))]
    for top in {each for each in inside if lies_in(str(each), str(folder))}:
        for place, folders, files in os.walk(top):
            for each in (os.path.join(place, name) for name in (*folders, *files)):
                if os.path.islink(each) and not any(lies_in(each, home) for home in [*roots, *allowed]):
                    raise _outside("model", os.readlink(each), f"{os.path.relpath(each, folder)} in {shown}", each)
            if top == folder:
                break  # what else lies there is none of a model's
