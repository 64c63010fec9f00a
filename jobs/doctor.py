"""`mats doctor`: versions, devices, Ray, and what is missing for what."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import typer

from jobs.terminal.commands import command
from mats_core.errors import first_line

app = typer.Typer()

DISTRIBUTION = "mats-audio"
GIB = 1024**3
OK, NOTE, MISSING = "ok", "note", "missing"

# What the main job cannot do without: (distribution, module that is imported to see that it works).
CORE = (
    ("numpy", "numpy"),
    ("pyarrow", "pyarrow"),
    ("pandas", "pandas"),
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("peft", "peft"),
    ("safetensors", "safetensors"),
    ("faiss-cpu", "faiss"),
    ("soundfile", "soundfile"),
    ("av", "av"),
    ("soxr", "soxr"),
    ("fsspec", "fsspec"),
    ("ray", "ray"),
)

# What only some work needs: (distribution, what for, how to get it).
OPTIONAL = (
    ("msclap", "Microsoft CLAP weights (msclap:…)", 'pip install msclap==1.3.4 "pyarrow<26" (numpy 1)'),
    ("s3fs", "archives at s3://", "pip install s3fs"),
    ("gcsfs", "archives at gs://", "pip install gcsfs"),
    ("adlfs", "archives at abfs:// (Azure)", "pip install adlfs"),
    ("aiohttp-cors", "`ray job submit` and the dashboard", 'pip install "ray[default]"'),
    ("pytest", "make test", 'pip install -e ".[dev]"'),
    ("hypothesis", "make test", 'pip install -e ".[dev]"'),
    ("ruff", "make test", 'pip install -e ".[dev]"'),
    ("mypy", "make test", 'pip install -e ".[dev]"'),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the report; `state` is ok, note (some work is affected) or missing (the main job is)."""

    area: str
    name: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Everything `mats doctor` looks at, in the order it prints it."""
    versions = installed_versions()
    return [
        *_python(),
        *package_findings(versions, _import_error),
        *(Finding("packages", "together", MISSING, text) for text in known_conflicts(versions)),
        *_devices(),
        *_ray(),
        *_model(),
        *_optional(versions),
        *caption_metric_findings(),
    ]


def installed_versions() -> dict[str, str]:
    """Version of every distribution that this page speaks of and that is installed."""
    found = {}
    for name in (DISTRIBUTION, "tokenizers", *(n for n, _ in CORE), *(n for n, _, _ in OPTIONAL)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def release(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "2.13.0+cpu" → (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def known_conflicts(versions: Mapping[str, str]) -> list[str]:
    """Installed versions that are known not to work together, with what to do."""
    at = {name: release(version) for name, version in versions.items()}
    numpy, pyarrow = at.get("numpy", (2,)), at.get("pyarrow", (0,))
    found = []
    if numpy < (2,) and pyarrow >= (26,):
        found.append(
            f"pyarrow {versions['pyarrow']} needs numpy 2 and does not say so; found numpy {versions['numpy']}. "
            'Do: pip install "pyarrow<26", or "numpy>=2" where msclap is not needed'
        )
    if "msclap" in versions and numpy >= (2,):
        found.append(
            f"msclap {versions['msclap']} asks for numpy below 2; found {versions.get('numpy')}. "
            'Do: pip install "numpy<2" "pyarrow<26", or pip uninstall msclap'
        )
    if "msclap" in versions and at.get("transformers", (4,)) >= (5,):
        found.append(
            f"msclap {versions['msclap']} asks for transformers 4; found {versions['transformers']}. "
            'Do: pip install "transformers<5", or pip uninstall msclap'
        )
    return found


def _python() -> list[Finding]:
    version = platform.python_version()
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    detail = f"{version}, {sys.executable}" + ("" if good else "; MATS is made for 3.10 to 3.12")
    return [
        Finding("system", "Python", OK if good else NOTE, detail),
        Finding("system", "machine", OK, platform.platform()),
    ]


def _import_error(module: str) -> str | None:
    """Why a module cannot be imported, in one line; None when it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken build raises anything, and that is what is looked for
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def package_findings(versions: Mapping[str, str], import_error: Callable[[str], str | None]) -> list[Finding]:
    """What is installed of CORE, and whether it can be imported (`import_error`: why a module cannot)."""
    findings = []
    for name, module in CORE:
        error = import_error(module)
        if name not in versions and error is not None:
            findings.append(Finding("packages", name, MISSING, f'not installed. Do: pip install "{name}"'))
        elif error is not None:
            findings.append(Finding("packages", name, MISSING, f"{versions[name]} cannot be imported ({error})"))
        else:
            findings.append(Finding("packages", name, OK, versions.get(name, "of unknown version") + _inside(name)))
    return findings


def _inside(name: str) -> str:
    """The C library that a package brings, where its version matters."""
    if name == "soundfile":
        import soundfile

        library = soundfile.__libsndfile_version__
        return f" (libsndfile {library}{'' if 'MP3' in soundfile.available_formats() else ', without MP3'})"
    if name == "av":
        import av

        return f" (FFmpeg libavcodec {'.'.join(str(n) for n in av.library_versions['libavcodec'])})"
    return ""


def _devices() -> list[Finding]:
    from pipelines.cluster.plan import free_memory, usable_cores

    cores, memory = usable_cores(), free_memory()
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    findings = [
        Finding("devices", "CPU", OK, f"{cores} cores usable"),
        Finding(
            "devices",
            "memory",
            OK if memory > 3 * GIB else NOTE,
            f"{memory / GIB:.1f} GiB free" + ("" if memory > 3 * GIB else "; Ray and one model want about 3"),
        ),
        Finding(
            "devices",
            "temporary disk",
            OK if disk > 2 * GIB else NOTE,
            f"{disk / GIB:.0f} GiB free in {tempfile.gettempdir()}",
        ),
    ]
    shared = Path("/dev/shm")
    if shared.exists():
        size = shutil.disk_usage(shared).free
        detail = f"{size / GIB:.1f} GiB in /dev/shm"
        if size < GIB:
            detail += "; Ray will keep its objects on disk and be slow (in a container: --shm-size=2g)"
        findings.append(Finding("devices", "shared memory", OK if size >= GIB else NOTE, detail))
    return findings + _accelerators()


def _accelerators() -> list[Finding]:
    try:
        import torch
    except Exception:
        return []
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [
            Finding("devices", f"GPU {i}", OK, f"{card.name}, {card.total_memory / GIB:.0f} GiB")
            for i, card in enumerate(cards)
        ]
    if shutil.which("nvidia-smi"):
        built = torch.version.cuda or "CPU only"
        detail = f"torch {torch.__version__} (built for {built}) sees none: install a CUDA build"
        return [Finding("devices", "GPU", NOTE, detail)]
    return [Finding("devices", "GPU", OK, "none; everything runs on the CPU")]


def _ray() -> list[Finding]:
    found = os.environ.get("RAY_ADDRESS")
    pointer = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if found:
        detail = f"RAY_ADDRESS is {found}; jobs start a Ray of their own unless --address is given"
    elif pointer.exists():
        detail = f"a cluster was started here ({pointer.read_text().strip()}); joined only with --address auto"
    else:
        detail = "no cluster on this machine; jobs start a Ray of their own"
    return [Finding("ray", "cluster", OK, detail)]


def _model() -> list[Finding]:
    from mats_core.model.directory import BUILTIN

    if not (BUILTIN / "mats.json").exists():
        detail = f"not in this installation ({BUILTIN}); `mats soundworld` makes it, or give --model DIRECTORY"
        return [Finding("model", "builtin", MISSING, detail)]
    size = sum(file.stat().st_size for file in BUILTIN.rglob("*") if file.is_file())
    return [Finding("model", "builtin", OK, f"{size / 1e6:.1f} MB in {BUILTIN}")]


def _optional(versions: Mapping[str, str]) -> list[Finding]:
    return [
        Finding("only for some work", name, OK, f"{versions[name]}: {purpose}")
        if name in versions
        else Finding("only for some work", name, NOTE, f"not installed; needed for {purpose}. Do: {remedy}")
        for name, purpose, remedy in OPTIONAL
    ]


def caption_metric_findings() -> list[Finding]:
    """Which caption metrics of `mats evaluate` can run here, and what the others want."""
    from mats_core.scoring import METRICS
    from mats_core.scoring.aac import NLTK, STANFORD, stanford_missing
    from mats_core.scoring.captions import needs

    area = "caption metrics (mats evaluate)"
    wants = {name: needs(name) for name in METRICS["caption"]}
    able = [name for name, want in wants.items() if want is None]
    findings = [Finding(area, "run here", OK if able else NOTE, ", ".join(able) or "none")]
    for name, want in wants.items():
        if want is not None:
            findings.append(Finding(area, name, NOTE, f"{want.why}. Do: {want.install}"))
    absent = stanford_missing()
    detail = STANFORD if absent is None else f"{NLTK}, for {STANFORD}: {absent}. Do: aac-metrics-download"
    return [*findings, Finding(area, "tokenizer", OK if absent is None else NOTE, detail)]


@command(app, "doctor")
def doctor() -> int:
    """Print versions, devices, Ray, and what is missing for what."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    findings = examine()
    marks = {OK: ("✓", "green"), NOTE: ("–", "yellow"), MISSING: ("✗", "bold red")}
    console = Console(soft_wrap=False)
    console.print(
        Text(
            f"MATS {installed_versions().get(DISTRIBUTION, '(not installed, run from a checkout)')}",
            style="bold",
        )
    )
    for area in dict.fromkeys(finding.area for finding in findings):
        table = Table(title=area, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
        table.add_column(width=1)
        table.add_column(min_width=15, no_wrap=True)
        table.add_column(overflow="fold")
        for finding in findings:
            if finding.area == area:
                mark, style = marks[finding.state]
                table.add_row(Text(mark, style=style), finding.name, Text(finding.detail))
        console.print()
        console.print(table)
    missing = [finding.name for finding in findings if finding.state == MISSING]
    console.print()
    if missing:
        console.print(Text(f"mats caption cannot run here yet; see ✗ above: {', '.join(missing)}", style="bold red"))
        return 1
    console.print(Text("mats caption can run here.", style="bold green"))
    return 0
