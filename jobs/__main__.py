"""`python -m jobs` is `mats`."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
if __name__ == "__main__" and os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir) != ROOT:
    del sys.path[0]  # the folder one stands in; what lies there is not to be imported

from mats_core.packages import main  # noqa: E402

if __name__ == "__main__":
    main()
