"""Ray graphs: typed settings in, a result object out. No printing, no command line; Ray lives here and nowhere below.

settings                   one pydantic model a job
data                       what INPUT may be, corpora, columns of Parquet
output                     an OUTPUT and its life: identity, lease, part files
cluster                    a Ray for a run, its stages, its counters
archive                    sounds → manifest, audio embeddings, answers; compact: many part files → few
text                       corpora → caption embeddings → memory
train                      embeddings and corpora → model directory
adapt                      sentences and a model → a model that knows their words
evaluate                   data sets and a model → predictions, metrics, history, gate, comparison
pages                      any of these → one HTML page

May import mats_core; jobs imports it. Nothing is imported here, so that `import pipelines.settings.archive` answers at
once: Ray and torch are imported by the functions that need them.
"""
