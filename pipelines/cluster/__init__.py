"""A Ray for a run, and what every run on it shares.

    session    start or join a Ray for the time of a run; RunFailed; errors of actors as a user can read them
    limits     what the user may take (ulimit, temporary files), checked before a Ray is started
    own_ray    the Ray that a run starts for itself, closed to everybody else
               `ray_program`: its workers' program; `rendezvous`: how its training workers meet
    doors      whether a cluster of somebody else's takes anybody, and the token where it wants one
    plan       CPUs, GPUs and memory (Resources) → actors, threads and rows of a batch (Plan)
    stages     a run as a list of stages, declared as data, and checked
    execution  stages run with Ray Data, or here where a few rows are not worth a Ray
    isolation  a stage in a process of its own: a row that ends it costs itself alone
    progress   Progress, which a run tells whoever started it; Meter, its throughput for `_run.json` and Prometheus

All of it is public. The rooms of pipelines/ above (archive, text, train, evaluate) may import it, and jobs; it imports
settings, data and output.
"""
