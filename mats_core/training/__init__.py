"""Training the mapper and the adapter on one machine: what a step draws, what it computes, and the loop over steps.

- `schedule`: settings; rows, wordings, learning rate and micro-batches of a step as pure functions of seed and step.
- `step`: one step: noise, loss, gradient, update.
- `loop`: the loop over steps, which a worker of `mats train` and the embedded world drive alike.
- `compiled`: the LLM's decoder layers compiled, where a machine can.
- `muon`: the Muon optimizer.

Knows nothing of clusters: several workers come in as a function that sums gradients. Public: all of it, to
`mats_core.soundworld`, `pipelines.settings`, `pipelines.train` and `jobs.benchmarks`.
"""
