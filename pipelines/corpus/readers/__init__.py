"""Files as their publishers ship them → clips, each with where it comes from.

tables     `reader: table`, a CSV or TSV file, a line a clip, a label, an event or an answer
lists      `reader: records`, JSON files; `names`, labels in names; `macs`, its YAML file
music      `reader: fma` and `mtg_jamendo`, tables of their own kinds
questions  `reader: openaqa` and `musicqa`

Public is READERS; `corpus.reading` imports it. A reader gives the clips of the training part in the order of the files,
and raises SettingsError, naming file and line, for files that are not as their publisher ships them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipelines.corpus.clips import PublishedClip
from pipelines.corpus.readers import lists, music, questions, tables
from pipelines.published.folder import Folder

READERS: dict[str, Callable[[Folder], Iterator[tuple[PublishedClip, dict[str, str]]]]] = {
    "table": tables.read_table,
    "records": lists.read_records,
    "names": lists.read_names,
    "macs": lists.read_macs,
    "fma": music.read_fma,
    "mtg_jamendo": music.read_mtg_jamendo,
    "openaqa": questions.read_openaqa,
    "musicqa": questions.read_musicqa,
}
