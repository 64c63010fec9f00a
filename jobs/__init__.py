"""The command line: `mats <job> …`, the same as `python -m jobs <job> …`.

A job is a module: its options, the call of its pipeline, what it prints, its exit code. `cli` collects them.

archive            caption, embed-audio, scan, compact: sounds in, Parquet out
text               embed-text, build-memory: corpora in, caption embeddings and Santa's memory out
train              embeddings and corpora in, a model directory out
evaluate           report, evaluate, compare, history: how answers look and how good they are
finding            search, serve, export, sample: what an archive holds is found, put right, handed on
ask                a few files, here and now, without Ray
import_reference   the authors' checkpoint as a model directory
soundworld         the embedded world and the model trained on it
demo, doctor       see it work; see what is missing
submit             any of these on a cluster
start              what happens before a command is imported: standard streams, signals
terminal/          options, progress, exit codes
benchmarks/        measures speed, nothing else
configs/           YAML, one file a real use

May import everything below (pipelines, mats_core); nothing imports it but the tests. Importing `cli` loads neither
torch nor Ray: a command imports what it needs when it runs.
"""
