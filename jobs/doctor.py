"""`mats doctor`: versions, devices, Ray, what is missing for what, and what a store can."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal.commands import command
from mats_core.errors import SettingsError, first_line
from pipelines.settings.base import ALLOW_PARTS

app = typer.Typer()

DISTRIBUTION = "mats-audio"
GIB = 1024**3
OK, NOTE, MISSING = "ok", "note", "missing"
PIPED = 100

# What the main job cannot do without: distribution → the module that is imported to see that it works.
CORE = {
    "numpy": "numpy", "pyarrow": "pyarrow", "pandas": "pandas", "torch": "torch", "transformers": "transformers",
    "peft": "peft", "safetensors": "safetensors", "faiss-cpu": "faiss", "soundfile": "soundfile", "av": "av",
    "soxr": "soxr", "fsspec": "fsspec", "ray": "ray",
}  # fmt: skip

# What only some work needs: (distribution, what for, how to get it).
OPTIONAL = (
    ("msclap", "Microsoft CLAP weights (msclap:…)", 'pip install msclap==1.3.4 "pyarrow<26" (numpy 1)'),
    ("s3fs", "archives at s3://", "pip install s3fs"),
    ("gcsfs", "archives at gs://", "pip install gcsfs"),
    ("adlfs", "archives at az:// (Azure)", "pip install adlfs"),
    ("torchao", "an LLM in 8 or 4 bits (--llm-dtype int8, int4)", 'pip install "mats-audio[lowbit]"'),
    ("aiohttp-cors", "`ray job submit` and the dashboard", 'pip install "ray[default]"'),
    *((name, "make test", 'pip install -e ".[dev]"') for name in ("pytest", "hypothesis", "ruff", "mypy")),
)


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
        *_system(),
        *package_findings(versions, _import_error),
        *(Finding("packages", "together", MISSING, text) for text in known_conflicts(versions)),
        *_devices(),
        *_accelerators(),
        Finding("ray", "cluster", OK, _cluster()),
        _model(),
        *_optional(versions),
        *caption_metric_findings(),
    ]


def installed_versions() -> dict[str, str]:
    """Version of every distribution that this page speaks of and that is installed."""
    found = {}
    for name in (DISTRIBUTION, *CORE, *(n for n, _, _ in OPTIONAL)):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
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
    if "msclap" not in versions:
        return found
    asks = f"msclap {versions['msclap']} asks for"
    if numpy >= (2,):
        remedy = 'pip install "numpy<2" "pyarrow<26", or pip uninstall msclap'
        found.append(f"{asks} numpy below 2; found {versions.get('numpy')}. Do: {remedy}")
    if at.get("transformers", (4,)) >= (5,):
        remedy = 'pip install "transformers<5", or pip uninstall msclap'
        found.append(f"{asks} transformers 4; found {versions['transformers']}. Do: {remedy}")
    return found


def _fit(area: str, name: str, good: bool, detail: str, otherwise: str = "") -> Finding:
    """A finding that is ok, or a note with what that means."""
    return Finding(area, name, OK if good else NOTE, detail if good else detail + otherwise)


def _system() -> Iterator[Finding]:
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    detail = f"{platform.python_version()}, {sys.executable}"
    yield _fit("system", "Python", good, detail, "; MATS is made for 3.10 to 3.12")
    yield Finding("system", "machine", OK, platform.platform())


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
    for name, module in CORE.items():
        error = import_error(module)
        if error is None:
            detail = versions.get(name, "of unknown version") + _inside(name)
        elif name in versions:
            detail = f"{versions[name]} cannot be imported ({error})"
        else:
            detail = f'not installed. Do: pip install "{name}"'
        findings.append(Finding("packages", name, OK if error is None else MISSING, detail))
    return findings


def _inside(name: str) -> str:
    """The C library that a package brings, where its version matters."""
    if name == "soundfile":
        import soundfile

        lacks = "" if "MP3" in soundfile.available_formats() else ", without MP3"
        return f" (libsndfile {soundfile.__libsndfile_version__}{lacks})"
    if name == "av":
        import av

        return f" (FFmpeg libavcodec {'.'.join(str(n) for n in av.library_versions['libavcodec'])})"
    return ""


def _devices() -> Iterator[Finding]:
    from pipelines.cluster.plan import free_memory, usable_cores

    yield Finding("devices", "CPU", OK, f"{usable_cores()} cores usable")
    memory, place = free_memory() / GIB, tempfile.gettempdir()
    yield _fit("devices", "memory", memory > 3, f"{memory:.1f} GiB free", "; Ray and one model want about 3")
    disk = shutil.disk_usage(place).free / GIB
    yield _fit("devices", "temporary disk", disk > 2, f"{disk:.0f} GiB free in {place}")
    if Path("/dev/shm").exists():
        shared = shutil.disk_usage("/dev/shm").free / GIB
        slow = "; Ray will keep its objects on disk and be slow (in a container: --shm-size=2g)"
        yield _fit("devices", "shared memory", shared >= 1, f"{shared:.1f} GiB in /dev/shm", slow)


def _accelerators() -> Iterator[Finding]:
    try:
        import torch
    except Exception:
        return
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        said = f"{torch.cuda.get_device_name(i)}, {free / GIB:.0f} GiB free of {total / GIB:.0f}"
        yield Finding("devices", f"GPU {i}", OK, said)
    if not torch.cuda.is_available():
        unseen = shutil.which("nvidia-smi") is not None
        detail = (
            f"torch {torch.__version__} (built for {torch.version.cuda or 'CPU only'}) sees none: install a CUDA build"
        )
        yield _fit("devices", "GPU", not unseen, detail if unseen else "none; everything runs on the CPU")


def _cluster() -> str:
    pointer = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    if found := os.environ.get("RAY_ADDRESS"):
        return f"RAY_ADDRESS is {found}; jobs start a Ray of their own unless --address is given"
    if pointer.exists():
        return f"a cluster was started here ({pointer.read_text().strip()}); joined only with --address auto"
    return "no cluster on this machine; jobs start a Ray of their own"


def cluster_findings(address: str) -> Iterator[Finding]:
    """Whether a cluster lets anybody in: at the URL of its dashboard, or host:port."""
    from mats_core.storage.uris import public_uri
    from pipelines.cluster.doors import CLOSE_IT, takes_anybody

    area = f"cluster {public_uri(address)}"
    try:
        anybody = takes_anybody(address)
    except SettingsError as error:
        yield Finding(area, "answers", MISSING, f"{error.problem}. Do: {error.remedy}")
        return
    open_to_all = f"it takes jobs from anybody who reaches it, without a token. Do: {CLOSE_IT}"
    yield Finding(area, "closed", MISSING if anybody else OK, open_to_all if anybody else "it wants a token")


def _model() -> Finding:
    from mats_core.model.directory import BUILTIN

    if not (BUILTIN / "mats.json").exists():
        detail = f"not in this installation ({BUILTIN}); `mats soundworld` makes it, or give --model DIRECTORY"
        return Finding("model", "builtin", MISSING, detail)
    size = sum(file.stat().st_size for file in BUILTIN.rglob("*") if file.is_file())
    return Finding("model", "builtin", OK, f"{size / 1e6:.1f} MB in {BUILTIN}")


def model_findings(uri: str, allow_parts: Sequence[str] = ()) -> Iterator[Finding]:
    """What a model is, how its answers are written, what it needs on a GPU, and whether the GPUs here have it."""
    import torch

    from mats_core.device import card_memory
    from mats_core.model.facts import read_model_facts
    from mats_core.model.needs import read_needs
    from mats_core.storage.uris import public_uri

    area = f"model {public_uri(uri)}"
    try:
        facts = read_model_facts(uri, allow_parts)
        kinds = {kind: read_needs(uri, allow_parts, llm_dtype=kind) for kind in ("bfloat16", "int8", "int4")}
    except SettingsError as error:
        yield Finding(area, error.setting, MISSING, f"{error.problem}. Do: {error.remedy}")
        return
    yield Finding(area, "fingerprint", OK, f"{facts.fingerprint[:12]}, {facts.size / 1e6:.1f} MB of weights")
    yield Finding(area, "answers", OK if facts.fallback is None else NOTE, f"written by {facts.generation}")
    yield from clap_findings(area, uri, allow_parts, facts.encoder_fingerprint)
    yield Finding(area, "GPU memory", OK, "; ".join(map(str, kinds.values())))
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, _ = card_memory(torch.device("cuda", i)) or (0, 0)
        found = {kind: needs.slots(free) for kind, needs in kinds.items()}
        said = ", ".join(f"{kind}: {slots} answers at once" for kind, slots in found.items() if slots)
        yield _fit(area, f"GPU {i}", bool(found["bfloat16"]), said or "too small, even in int4")


def clap_findings(area: str, uri: str, allow_parts: Sequence[str], made_with: str) -> Iterator[Finding]:
    """Whether a model's CLAP is its own and tells texts, and sounds by their texts, apart; the same of its memory."""
    from mats_core.encoders.facts import refuse_other_encoder
    from mats_core.encoders.load import load_encoder
    from mats_core.memory.santa import SantaMemory
    from mats_core.model.directory import check_model_dir, encoder_uri, part_uri, resolve
    from mats_core.soundworld.hearing import LEAST, heard_right
    from mats_core.spread import DOUBTFUL, SENTENCES, mean_cosine, refuse_collapsed, some_rows
    from mats_core.storage.uris import public_uri

    try:
        encoder = load_encoder(encoder_uri(uri, "model", allow_parts), device="cpu")
        remedy = "give the encoder this model was made with"
        refuse_other_encoder("encoder", public_uri(uri), made_with, encoder.fingerprint, remedy, unknown_passes=True)
        cosine = refuse_collapsed(encoder, public_uri(uri))
    except SettingsError as error:
        yield Finding(area, "CLAP's texts", MISSING, f"{error.problem}. Do: {error.remedy}")
        return
    said = f"mean cosine {cosine:.3f} of {len(SENTENCES)} sentences that have nothing in common"
    yield _fit(area, "CLAP's texts", cosine <= DOUBTFUL, said, f"; more than {DOUBTFUL}, hardly told apart")
    right = heard_right(encoder)
    said = f"a sound's own sentence is nearer to it than another's in {right:.0%} of pairs, synthesised"
    yield _fit(area, "CLAP's sounds", right >= LEAST, said, "; hardly better than by guessing: is it the right CLAP?")
    where = part_uri(resolve(uri), check_model_dir(uri, allow_parts).memory)
    try:
        memory = None if where is None else SantaMemory.load(where)
    except SettingsError as error:
        yield Finding(area, error.setting, MISSING, f"{error.problem}. Do: {error.remedy}")
        return
    if memory is not None:
        alike = mean_cosine(memory.vectors(some_rows(memory.count)))
        yield Finding(area, "memory", OK, f"{memory.count:,} captions, mean cosine {alike:.3f}")


def _optional(versions: Mapping[str, str]) -> Iterator[Finding]:
    for name, purpose, remedy in OPTIONAL:
        version = versions.get(name)
        detail = f"{version}: {purpose}" if version else f"not installed; needed for {purpose}. Do: {remedy}"
        yield _fit("only for some work", name, version is not None, detail)


def caption_metric_findings() -> list[Finding]:
    """Which caption metrics of `mats evaluate` can run here, and what the others want."""
    from mats_core.scoring import METRICS
    from mats_core.scoring.aac import NLTK, STANFORD, stanford_missing
    from mats_core.scoring.captions import needs

    area = "caption metrics (mats evaluate)"
    wants = {name: needs(name) for name in METRICS["caption"]}
    able = ", ".join(name for name, want in wants.items() if want is None)
    absent = stanford_missing()
    detail = STANFORD if absent is None else f"{NLTK}, for {STANFORD}: {absent}. Do: aac-metrics-download"
    return [
        _fit(area, "run here", bool(able), able or "none"),
        *(Finding(area, name, NOTE, f"{want.why}. Do: {want.install}") for name, want in wants.items() if want),
        _fit(area, "tokenizer", absent is None, detail),
    ]


def benchmark_findings() -> Iterator[Finding]:
    """What each caption metric needs, how large that is, and what of it is here."""
    from mats_core.scoring import METRICS
    from mats_core.scoring.aac import java_missing
    from mats_core.scoring.captions import downloads, needs

    area, light = "what caption metrics need (mats evaluate)", []
    purposes = {
        "spider": "the mean of SPICE and CIDEr-D",
        "fense": "sentences close in meaning, less for broken ones",
        "spice": "what is said, as a graph",
        "meteor": "words, stems, synonyms and paraphrases",
    }
    for name in METRICS["caption"]:
        want, fetched = needs(name), downloads(name)
        if not fetched and want is None:
            light.append(name)
            continue
        told = [purposes[name]] if name in purposes else []
        if name in ("meteor", "spice", "spider"):
            told.append(java_missing() or "Java is here")
        for each in fetched:
            here = f"{each.there / 1e6:.0f} MB here" if each.there else f"about {each.megabytes} MB to fetch"
            told.append(f"{each.what}: {here} ({each.place})")
        remedy = "" if want is None else f". Do: {want.install}"
        yield Finding(area, name, OK if want is None else NOTE, "; ".join(told) + remedy)
    if light:
        yield Finding(area, "the others", OK, f"{', '.join(light)} need packages alone")


def store_findings(uri: str) -> Iterator[Finding]:
    """What a store can of what runs ask of it, tried in a folder that is removed again."""
    from mats_core.storage.stores.abilities import CREATE, examine_store
    from mats_core.storage.uris import public_uri

    area = f"store {public_uri(uri)}"
    for name, problem in examine_store(uri):
        if name == CREATE:
            yield _fit(area, name, not problem, problem or OK, "; runs that want one OUTPUT agree by claims beside it")
        else:
            yield Finding(area, name, MISSING if problem else OK, problem or OK)


def _piped(text: str) -> str:
    """Text in lines of PIPED letters, as no terminal breaks those of a pipe: between words; paths stay whole."""
    return "\n".join(textwrap.wrap(text, PIPED, break_long_words=False, break_on_hyphens=False))


@command(app, "doctor")
def doctor(
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Try a store as well: list, read, write, delete below this URL.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Look at a model as well: is it whole, how it answers, its memory."),
    ] = None,
    allow_parts: Annotated[list[str] | None, typer.Option(help=ALLOW_PARTS)] = None,
    benchmarks: Annotated[
        bool, typer.Option("--benchmarks", help="Say as well what each caption metric needs, and how large that is.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="Look whether this cluster takes jobs from anybody: host:port, or a dashboard.")
    ] = None,
) -> int:
    """Print versions, devices, Ray, what is missing for what, what a store can, and who may use a cluster."""
    from rich.table import Table
    from rich.text import Text

    from jobs.terminal.display import wide_console

    findings = [*examine(), *(store_findings(store) if store is not None else ())]
    findings += model_findings(model, allow_parts or ()) if model is not None else ()
    findings += benchmark_findings() if benchmarks else ()
    findings += cluster_findings(address) if address is not None else ()
    marks = {OK: ("✓", "green"), NOTE: ("–", "yellow"), MISSING: ("✗", "bold red")}
    console = wide_console()
    version = installed_versions().get(DISTRIBUTION, "(not installed, run from a checkout)")
    console.print(Text(f"MATS {version}", style="bold"))
    for area in dict.fromkeys(finding.area for finding in findings):
        table = Table(title=area, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
        table.add_column(width=1)
        table.add_column(min_width=15, no_wrap=True)
        table.add_column(overflow="fold")
        for finding in findings:
            if finding.area == area:
                mark, style = marks[finding.state]
                detail = finding.detail if sys.stdout.isatty() else _piped(finding.detail)
                table.add_row(Text(mark, style=style), finding.name, Text(detail))
        console.print()
        console.print(table)
    console.print()
    missing = [finding for finding in findings if finding.state == MISSING]
    if missing:
        asked = all(finding.area.startswith("cluster ") for finding in missing)
        said = "not as asked" if asked else "mats caption cannot run here yet"
        names = ", ".join(finding.name for finding in missing)
        console.print(Text(_piped(f"{said}; see ✗ above: {names}"), style="bold red"))
        return 1
    console.print(Text("mats caption can run here.", style="bold green"))
    return 0
