"""Sentences about an archive → a model that knows their words.

- `run`: `run_adapt`, the way in: records, embeddings, memory and training, one after the other, each kept when done.
- `records`: what is trained on: records out of the sentences, and out of the model's own training text.

Public: `run.run_adapt` with its result. It runs the jobs of `pipelines.text` and `pipelines.train`.
"""
