"""A run as other programs read it: tables, subtitles, label tracks, manifests, data sets with the audio in them.

rows        the rows of a run in order, a chunk or a file each
places      names in the output that no name in an archive can lead astray; files that are put in place whole
tables      csv, xlsx, jsonl, and the authors' records
subtitles   vtt, srt, audacity
manifests   nemo, lhotse
audio       a sound as it lies in its file, or a stretch of it, as bytes
datasets    webdataset, hf: files of so many sounds each; a run that was stopped goes on
run         `run_export`: which of these, and where to

Rows stream: no more than two part files are in memory. Imports `compact` and `search.where`, and what is below them.
"""
