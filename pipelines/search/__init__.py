"""A run's windows, found by what is said of them, by another sound, or because they are like nothing else.

reading    the windows of a part file: their rows, times and unit vectors
shards     what the workers of a build do: a sample for k-means, one shard of the index
build      brings the index in OUTPUT up to its part files: says what is missing, builds that, lets go of the rest
index      the index once open: nearest windows, their vectors, the rows they belong to
asking     words or a sound → a vector to search with; the ways across CLAP's gap
words      captions searched as text, and two rankings joined
where      --where: a condition over the run's columns, by a DuckDB that reaches nothing else
novel      windows that are far from all others
results    what was found as a table or a file; `page`: to look at and listen to
run        `run_search`: all of it, in order

The index lies in OUTPUT/_state/index and is state as any other: it counts by generation (`data.generations`), and
`_index.json` says which part files each of its shards was made of. Imports `pages`, `output`, `cluster` and below.
"""
