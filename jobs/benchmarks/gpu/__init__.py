"""`mats benchmark gpu`: all that only a GPU can show, in one run of at most 8 minutes: a card is at hand seldom.

run        the sections, each in a process of its own with a deadline; every result is a JSON line at once
process    that process
section    what a section measures with: its deadline, its results, sizes, a 7 B LLM of random weights
kernels    ceilings of the card; parity with the recorded runs; CLAP's windows
answers    the LLM: `generate` of transformers beside the engine
training   a training step, eager and compiled
report     the table, and the text for BENCHMARKS.md

It runs without Ray and downloads nothing. Where torch, transformers, peft, typer, rich, pyarrow, filelock and numba are
installed (a machine made for GPUs) and a package index is out of reach, carry the rest along as wheels: `device.sh`
beside this file says how, and is what to run there. Results so far survive whatever ends the run: they are in --out.
"""
