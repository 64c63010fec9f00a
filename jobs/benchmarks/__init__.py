"""`mats benchmark …`: measures speed and memory, nothing else. Nothing but the command line imports it.

commands     the options of each benchmark
measuring    how all measure and show: progress, medians, peak memory, tables of two ways
inputs       what they are fed with: clips, captions, models of random weights
pipeline/    `mats caption` beside plain processes, and `mats evaluate` beside `mats caption`
embed_text   Microsoft CLAP's text tower by its own package and by `mats embed-text`
memory       Santa's memory beside plain PyTorch, and at a million captions
search       the index of a run: build, size, recall against exact search, time a query
finding      which way from words to sounds finds best on the embedded world
core         the model without Ray: parity with the recorded runs (reference/), memory, answers a second
generate     answers by transformers' `generate` beside the beam loop
gpu/         all that only a GPU can show, in one run
train        a step on stored embeddings beside one that runs the text tower
scan         a bucket of a million objects
scale        one to eight nodes, with a model that only waits
"""
