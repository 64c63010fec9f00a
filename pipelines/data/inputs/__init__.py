"""What INPUT names: a stream of entries, whatever it is.

    entries     what an entry is, and what a row may name
    opening     `open_input`: which of these INPUT is
    files       folders, globs, tar archives with what stands beside their sounds
    rows        lists: a row is a sound, or a stretch of one
    sounds      Parquet files with the sounds in them, as data sets on the Hub are
    manifests   the manifests of NeMo and lhotse, as rows of a list

Public are `open_input`, `Entry`, `Input`, `entry_key` and `CHANNEL`; the archive's pipelines import them.
"""

# ruff: noqa: F401 (imported here to be used from elsewhere)

from pipelines.data.inputs.entries import CHANNEL, Entry, Input, entry_key
from pipelines.data.inputs.opening import MANIFEST_SIDECAR, open_input
