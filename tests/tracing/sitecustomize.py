"""Notes which functions of ours run, in this process and all that it starts; `tests.house --trace` reads the notes.

Python imports a `sitecustomize` that lies on PYTHONPATH when it starts. With MATS_TRACE (a folder) and
MATS_TRACE_ROOT (the checkout) set, every process writes a file of its own: a line a function, "path name".
"""

import os
import sys
import threading

_folder = os.environ.get("MATS_TRACE")
if _folder:
    _root = os.environ["MATS_TRACE_ROOT"] + os.sep
    _seen = set()
    _file = None  # (process id, open file): a fork starts a file of its own
    _IS_FUNCTION = 1  # CO_OPTIMIZED: neither the body of a module nor that of a class

    def _note(frame, event, argument):
        global _file
        code = frame.f_code
        if event != "call" or code in _seen:
            return
        _seen.add(code)
        if code.co_flags & _IS_FUNCTION and code.co_filename.startswith(_root):
            if _file is None or _file[0] != os.getpid():
                _file = os.getpid(), open(os.path.join(_folder, str(os.getpid())), "a", buffering=1)  # noqa: SIM115
            _file[1].write(f"{code.co_filename[len(_root) :]} {code.co_name}\n")

    sys.setprofile(_note)
    threading.setprofile(_note)
