"""`mats benchmark gpu`: all that only a GPU can show, in one run of at most 8 minutes: a card is at hand seldom.

run        the sections, each in a process of its own with a deadline; every result is a JSON line at once
process    that process
section    what a section measures with: its deadline, its results, sizes, a 7 B LLM of random weights
kernels    ceilings of the card; parity with the recorded runs; CLAP's windows
answers    the LLM: `generate` of transformers beside the engine
training   a training step, eager and compiled
report     the table, and the text for BENCHMARKS.md

It runs without Ray and downloads nothing. A machine made for GPUs often has torch, transformers, peft, typer, rich,
pyarrow, filelock and numba, and no way to a package index. The rest is 23 MB of wheels, carried along in a folder that
git ignores; `device.sh` has the `pip download` line. From the checkout's root:

    sh jobs/benchmarks/gpu/device.sh wheels                                   # where there is an index, once
    sh jobs/benchmarks/gpu/device.sh run results.jsonl                        # there; about seven minutes
    sh jobs/benchmarks/gpu/device.sh run again.jsonl --section engine         # one section

Results so far survive whatever ends the run. Each section ends at its deadline, all of them after 470 seconds; what
fails is told with its traceback, and the next begins. `--size small --device cpu` tries the same way anywhere.
"""
