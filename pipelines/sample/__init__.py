"""How many answers of a run are right, by a sample that a person judges.

run         `run_sample`: draw clips into a file, or read one that is filled in and estimate
draw        the run's answers in strata by confidence, and how many of each are drawn
judgements  what people write into the column `correct`, in CSV, JSONL, XLSX or Parquet; `mats calibrate` reads it too
estimate    share of a whole by a stratified sample, with its interval

Public: `run_sample`. Imports `export.tables`, `search.where` and what is below them; jobs import it.
"""
