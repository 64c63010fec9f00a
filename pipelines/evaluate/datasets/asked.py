"""Which clips of other sets an evaluation set asks: what no model may be trained on that is evaluated on it."""

from __future__ import annotations

from mats_core.errors import SettingsError
from mats_core.storage.uris import Uri
from pipelines.evaluate.datasets.definition import EvaluationSet
from pipelines.published.folder import columns_of, open_folder
from pipelines.published.layouts import TableLayout
from pipelines.published.origins import has_origins, origin_of, origin_rows
from pipelines.published.tables import table
from pipelines.settings.base import build


def asked_ids(definition: EvaluationSet, root: Uri) -> dict[str, set[str]] | None:
    """Where its clips come from → their ids there, of a set with `origin`; its audio need not be there. None where its
    files are not under ``root``.

    Raises SettingsError for files that are not as their publisher ships them.
    """
    try:
        folder = open_folder(definition, root)
    except SettingsError:
        return None
    if folder.path("table") is None or not has_origins(folder):
        return None
    layout = build(TableLayout, {k: v for k, v in definition.options.items() if k in TableLayout.model_fields})
    named = ["file_name"] if definition.origin_file else [n for t in definition.origin.values() for n in columns_of(t)]
    needed = [*layout.keep, *named]
    rows = table(folder, "table", layout.separator, layout.header, needed, layout.more_columns)
    elsewhere = origin_rows(folder)
    found: dict[str, set[str]] = {}
    for _, row in rows:
        told = elsewhere.get(row["file_name"]) if definition.origin_file else row
        if layout.keeps(row) and told is not None:
            for place, clip_id in origin_of(folder, told).items():
                found.setdefault(place, set()).add(clip_id)
    return found
