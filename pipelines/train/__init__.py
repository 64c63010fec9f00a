"""Embeddings and corpora → model directory: Ray Train around the loop of `mats_core.training`.

- `run`: `run_train`, the way in: checks, starts the workers, follows what they report.
- `check`: what is wrong with the settings, found before anything is loaded.
- `mixture`: what a mixture is made of, and its packed form; `pack` makes that, `split` holds records out.
- `batches`: a step's micro-batches out of the packed form, made in a thread.
- `worker`: one worker: model, optimizer, what happens after a step; `parallel`: what workers must agree on.
- `checkpoints`: one file each; a run goes on from the newest.
- `loggers`: where the curves go; `export`: the model directory and its card.

Public: `run.run_train` with its result and progress. `jobs.benchmarks` times what a worker does and may use `batches`,
`mixture` and `pack` too. Imports rooms below `pipelines.archive` alone.
"""
