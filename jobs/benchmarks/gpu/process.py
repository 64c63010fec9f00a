"""The process of one section: `python -m jobs.benchmarks.gpu.process SECTION SIZE DEVICE RESULTS FOLDER`.

It imports what it needs, waits for a line on its standard input, the seconds that it has, and makes a file that says
that it began.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from jobs.benchmarks.gpu.section import Section, told, write_line
from jobs.benchmarks.measuring import device_name


def main(name: str, size: str, device: str, results: str, folder: str) -> None:
    """Run the section; what it ends with is told, and nothing is raised."""
    try:
        from mats_core.weights import defer_sklearn

        defer_sklearn()
        import peft  # noqa: F401
        import transformers.models.llama.modeling_llama  # noqa: F401

        from jobs.benchmarks.gpu import answers, kernels, training
        from mats_core.device import pick_device

        sections = {
            "ceilings": kernels.ceilings,
            "parity": kernels.parity,
            "generate": answers.generate,
            "engine": answers.engine,
            "eager": answers.eager,
            "clap": kernels.clap,
            "training": training.training,
        }
        seconds = sys.stdin.readline()
        if not seconds:
            return  # whoever started it is gone
        (Path(folder) / f"{name}.begun").touch()
        deadline = time.monotonic() + float(seconds)
        section = Section(name, size, pick_device(device), Path(results), Path(folder), deadline)
        section.tell("card", **card(section))
        sections[name](section)
    except BaseException as error:
        write_line(Path(results), {"section": name, "what": "section", **told(error)})


def card(section: Section) -> dict[str, Any]:
    """The device, its memory, and the versions of what computes."""
    import torch
    import transformers

    found: dict[str, Any] = {"device": device_name(section.device)}
    if section.device.type == "cuda":
        found["memory_gb"] = torch.cuda.get_device_properties(section.device).total_memory / 1e9
    return {**found, "torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # all is written; what libraries do at exit only costs time
