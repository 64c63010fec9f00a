"""What each job is told: one pydantic model a job, shared by Python, YAML and the command line.

base      kinds of values, anchored paths, `build`: plain values → settings, or a SettingsError that names the first
          wrong one
calling   `by_name`: a job's settings as arguments of its function
archive   scan, embed-audio, caption, and the limits of one file
text      embed-text and build-memory
train     train, and what of it decides what is learned
corpus    corpus
adapt     adapt
evaluate  evaluate, and the cells of a grid
compact   compact
search    search
serve     serve
export    export

Everything is public, and any room of pipelines and jobs may import it. Nothing here loads torch, Ray or pyarrow, so
that `--help` and wrong settings are cheap.
"""
