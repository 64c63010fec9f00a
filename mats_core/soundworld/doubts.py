"""Questions that a model is known to answer worse than who always gives the usual answer: its card says so."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from mats_core.errors import StorageError
from mats_core.model.directory import resolve
from mats_core.storage.uris import Uri, uri_text

BUILTIN = Path(__file__).parent / "assets" / "MODEL_CARD.md"
CARDS = ("MODEL_CARD.md", "README.md")
_MOST_BYTES = 1 << 20
_ROW = re.compile(r"^\|\s*questions, (\w+)\s*\|\s*([0-9.]+)\s*\|[^|\n]*?prior ([0-9.]+)", re.M)
# note: as people ask, not only as the embedded world does
_PRESENCE = re.compile(
    r"(?i)\s*(is|are|was|were) there\b(?! (one|more|fewer|less|only)\b)"
    r"|\s*(do|can|could|did) (you|i|we|one) (ever )?hear\b"
    r"|\s*(is|are|was|were) .{1,80}\b(present|audible|heard|to be heard|in (it|the (sound|clip|recording|audio)))\b"
    r"|\s*(can|could) .{1,80}\bbe heard\b"
    r"|\s*does .{1,60}\b(contain|include|occur|appear|have)\b"
)


def doubt(model: Uri, question: str) -> str:
    """What there is to say before a question is asked: "" where nothing is known against it."""
    known = worse_than_usual(uri_text(model))
    if "presence" not in known or not _PRESENCE.match(question):
        return ""
    right, usual = known["presence"]
    return (
        f'"{uri_text(model)}" answers whether a sound is there worse than who always says the usual: {right:.0%} right '
        f"beside {usual:.0%}, says its card; ask what is heard instead (--task caption or cla_label)"
    )


@lru_cache(maxsize=8)
def worse_than_usual(model: str) -> dict[str, tuple[float, float]]:
    """Kind of question → (share right, share right of the usual answer), of those answered worse than that."""
    found = {kind: (float(right), float(usual)) for kind, right, usual in _ROW.findall(_card(model))}
    return {kind: (right, usual) for kind, (right, usual) in found.items() if right < usual}


def _card(model: str) -> str:
    if model == "builtin":
        paths = [BUILTIN]
    else:
        try:
            paths = [Path(resolve(model)) / name for name in CARDS]
        except (StorageError, ValueError, OSError):
            return ""
    for path in paths:
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            return path.read_text(encoding="utf-8", errors="replace")
    return ""
