"""The program of every worker of a run's own Ray, and of the agent of its node: Ray's own, with two things otherwise.

`sys.path` is that of an installed program: no file of the folder one stands in, or of this one, shadows a module. And
nothing is opened to others: folders stay as private as they are, and the agent, without which Ray's node ends, serves
nothing.
"""

import os
import sys


def main() -> None:
    """Run Ray's program named first on the command line, or that of its workers where none is."""
    import runpy

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, root)
    import mats_core.packages

    sys.path.remove(root)
    mats_core.packages.import_own()

    import ray._common.utils
    from ray._private import workers

    ray._common.utils.try_make_directory_shared = lambda path: None
    if sys.argv[1].endswith(".py"):
        import ray.dashboard.utils

        ray.dashboard.utils.get_all_modules = lambda kind: []
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_path(os.path.join(os.path.dirname(workers.__file__), "default_worker.py"), run_name="__main__")


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    main()
