"""The plan of the house: which room may import which, how large rooms and files may grow, which test covers what.

`test_house.py` holds the code to it. `make map` (`python -m tests.house --trace`) prints the figures: what stands in
the rooms, how much one reads to change a command, and through how many modules one sound passes.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mats_core", "pipelines", "jobs")
"""From the ground up: a package may import those before it."""
MOST_MODULES, MOST_LINES = 12, 450

# From the ground up. A room may import the rows below its own and, of its own row, only itself.
LAYERS: dict[str, list[list[str]]] = {
    "mats_core": [
        ["errors", "batches", "child", "variables"],
        ["storage"],
        ["device", "pretrained", "spread"],
        ["weights"],
        ["audio"],
        ["encoders", "memory", "generation", "scoring"],
        ["confidence"],
        ["model"],
        ["training"],
        ["soundworld"],
        ["soundworld.made"],
    ],
    "pipelines": [
        ["settings"],
        ["data"],
        ["output"],
        ["cluster"],
        ["pages"],
        ["published"],
        ["archive", "text", "train", "compact", "search"],
        ["adapt", "export"],
        ["sample", "serve"],
        ["evaluate.datasets"],
        ["corpus.clips", "corpus.definition"],
        ["corpus.writing"],
        ["corpus"],
        ["evaluate"],
        ["calibrate"],
    ],
    "jobs": [["terminal"], ["*"], ["benchmarks"], ["cli"], ["start"], ["__main__"]],
}

# What a package may not import besides the packages above it.
FORBIDDEN = {
    "mats_core": {"ray", "tests"},
    "pipelines": {"typer", "rich", "tests"},
    "jobs": {"tests"},
}

# Modules with logic that have no test file of their name, and the one that covers each.
COVERED_BY = {
    "mats_core.batches": "tests/mats_core/model/test_asking.py",
    "mats_core.child": "tests/mats_core/audio/test_sandbox.py",
    "mats_core.audio.beginnings": "tests/mats_core/audio/test_ends.py",
    "mats_core.audio.file": "tests/mats_core/audio/test_decode.py",
    "mats_core.audio.sandbox_process": "tests/mats_core/audio/test_sandbox.py",
    "mats_core.audio.signatures": "tests/mats_core/audio/test_decode.py",
    "mats_core.encoders.load": "tests/mats_core/encoders/test_clap.py",
    "mats_core.generation.beams": "tests/mats_core/generation/test_beam_search.py",
    "mats_core.generation.tree_cache": "tests/mats_core/generation/test_beam_search.py",
    "mats_core.model.hearing.clips": "tests/mats_core/model/test_asking.py",
    "mats_core.model.places": "tests/mats_core/model/test_hostile_directories.py",
    "mats_core.pretrained": "tests/mats_core/model/test_hostile_directories.py",
    "mats_core.scoring.aac": "tests/mats_core/scoring/test_captions.py",
    "mats_core.scoring.baselines": "tests/mats_core/scoring/test_choices.py",
    "mats_core.scoring.chat": "tests/mats_core/scoring/test_choices.py",
    "mats_core.scoring.items": "tests/mats_core/scoring/test_bootstrap.py",
    "mats_core.scoring.matching": "tests/mats_core/scoring/test_labels.py",
    "mats_core.scoring.metric": "tests/mats_core/scoring/test_captions.py",
    "mats_core.scoring.score": "tests/mats_core/scoring/test_captions.py",
    "mats_core.soundworld.corpus": "tests/mats_core/soundworld/test_language.py",
    "mats_core.soundworld.kinds": "tests/mats_core/soundworld/test_synth.py",
    "mats_core.soundworld.made.ablation": "tests/mats_core/soundworld/made/test_build.py",
    "mats_core.soundworld.made.card": "tests/mats_core/soundworld/made/test_build.py",
    "mats_core.soundworld.made.text_training": "tests/mats_core/soundworld/made/test_build.py",
    "mats_core.storage.archives.rows": "tests/pipelines/data/inputs/test_sounds.py",
    "mats_core.storage.stores.abilities": "tests/mats_core/storage/stores/test_s3.py",
    "mats_core.storage.stores.ranged": "tests/mats_core/storage/stores/test_s3.py",
    "pipelines.archive.caption": "tests/e2e/test_caption.py",
    "pipelines.archive.embed_audio": "tests/e2e/test_caption.py",
    "pipelines.archive.model_spec": "tests/pipelines/archive/test_model_stage.py",
    "pipelines.archive.stages": "tests/pipelines/archive/test_model_stage.py",
    "pipelines.archive.run": "tests/e2e/test_resume.py",
    "pipelines.cluster.ray_program": "tests/pipelines/cluster/test_own_ray.py",
    "pipelines.cluster.rendezvous": "tests/e2e/test_closed.py",
    "pipelines.data.inputs.entries": "tests/pipelines/data/inputs/test_rows.py",
    "pipelines.data.json_stream": "tests/pipelines/data/test_corpus_formats.py",
    "pipelines.corpus.writing.patterns": "tests/pipelines/corpus/writing/test_captions.py",
    "pipelines.corpus.writing.variety": "tests/pipelines/corpus/writing/test_captions.py",
    "pipelines.evaluate.datasets.asked": "tests/pipelines/corpus/test_reading.py",
    "pipelines.evaluate.datasets.corrections_reader": "tests/pipelines/evaluate/datasets/test_loading.py",
    "pipelines.evaluate.datasets.definition": "tests/pipelines/evaluate/datasets/test_readers.py",
    "pipelines.evaluate.datasets.folder": "tests/pipelines/evaluate/datasets/test_loading.py",
    "pipelines.evaluate.datasets.soundworld_reader": "tests/pipelines/evaluate/datasets/test_readers.py",
    "pipelines.evaluate.page": "tests/pipelines/evaluate/test_run.py",
    "pipelines.evaluate.records": "tests/pipelines/evaluate/test_run.py",
    "pipelines.pages.answers": "tests/pipelines/pages/test_report.py",
    "pipelines.pages.everything": "tests/pipelines/pages/test_report.py",
    "pipelines.published.definition": "tests/pipelines/corpus/test_definition.py",
    "pipelines.published.folder": "tests/pipelines/corpus/readers/test_tables.py",
    "pipelines.published.layouts": "tests/pipelines/corpus/readers/test_lists.py",
    "pipelines.published.origins": "tests/pipelines/corpus/readers/test_tables.py",
    "pipelines.published.tables": "tests/pipelines/corpus/readers/test_tables.py",
    "pipelines.export.audio": "tests/pipelines/export/test_datasets.py",
    "pipelines.serve.answering": "tests/pipelines/serve/test_api.py",
    "pipelines.serve.app": "tests/pipelines/serve/test_api.py",
    "pipelines.serve.remembering": "tests/pipelines/serve/test_finding.py",
    "pipelines.serve.runs": "tests/pipelines/serve/test_finding.py",
    "pipelines.search.page": "tests/pipelines/search/test_run.py",
    "pipelines.search.shards": "tests/pipelines/search/test_build.py",
    "pipelines.settings.adapt": "tests/pipelines/adapt/test_run.py",
    "pipelines.settings.archive": "tests/jobs/test_archive.py",
    "pipelines.settings.export": "tests/pipelines/export/test_run.py",
    "pipelines.settings.serve": "tests/pipelines/serve/test_run.py",
    "pipelines.settings.search": "tests/pipelines/search/test_run.py",
    "pipelines.settings.text": "tests/pipelines/text/test_embed_text.py",
    "pipelines.settings.train": "tests/jobs/test_train.py",
    "pipelines.train.export": "tests/pipelines/train/test_worker.py",
    "pipelines.train.mixture": "tests/pipelines/train/test_pack.py",
    "pipelines.train.parallel": "tests/pipelines/train/test_worker.py",
    "jobs.benchmarks.commands": "tests/jobs/test_cli.py",
    "jobs.benchmarks.gpu.process": "tests/jobs/benchmarks/gpu/test_run.py",
    "jobs.evaluate": "tests/pipelines/evaluate/test_run.py",
    "jobs.start": "tests/jobs/test_cli.py",
}

# What the commands start from: its import closure is what a newcomer must read to change it.
CLOSURES = {
    "storage": "mats_core.storage",
    "mats ask": "jobs.ask",
    "mats caption": "pipelines.archive.caption",
    "mats train": "pipelines.train.run",
}

# The modules of the driver that meet a row: they find it and write it. Its other work is a run's, not a row's.
DRIVERS = (
    "pipelines.archive.headers",
    "pipelines.archive.work_list",
    "pipelines.data.inputs.entries",
    "pipelines.data.inputs.files",
    "pipelines.data.inputs.opening",
    "pipelines.output.parts",
)


# -- what the files say ------------------------------------------------------------------------------------------------


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the three packages by its dotted name; a package's `__init__` by the package's."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found[module_name(path.relative_to(root))] = path
    return found


def module_name(path: Path) -> str:
    """`a/b.py` and `a/b/__init__.py` are `a.b`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every absolute import in a file, wherever it stands; the name is empty for `import module`."""
    return _imported_names(path, path.stat().st_mtime_ns)


@cache
def _imported_names(path: Path, changed: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for node in ast.walk(_parsed(path, changed)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [(node.module, alias.name) for alias in node.names]
    return found


def imports_of(path: Path, known: dict[str, Path], exported: dict[str, str]) -> set[str]:
    """Which of the `known` modules a file imports, inside functions and for type checking too.

    `from mats_core import load_model` counts as an import of the module that has it (`exported`).
    """
    found = set()
    for module, name in imported_names(path):
        inside = f"{module}.{name}" if name else module
        if module == "mats_core" and name in exported:
            inside = exported[name]
        found.add(inside if inside in known else module)
    return found & set(known)


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each imports."""
    exported = exports(known)
    return {name: imports_of(path, known, exported) - {name} for name, path in known.items()}


def exports(known: dict[str, Path]) -> dict[str, str]:
    """The names of `mats_core` and the modules they come from, out of its table."""
    if "mats_core" in known:
        for node in parsed(known["mats_core"]).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                return {str(k): str(v) for k, v in ast.literal_eval(node.value).items()}
    return {}


def closure(graph: dict[str, set[str]], start: str) -> set[str]:
    """Every module that `start` imports, directly or by way of others, and itself."""
    seen, waiting = {start}, [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def rooms(known: dict[str, Path], root: Path = ROOT) -> Counter[str]:
    """How many modules lie in each folder, `__init__` and `__main__` not counted."""
    return Counter(
        path.parent.relative_to(root).as_posix()
        for path in known.values()
        if path.name not in ("__init__.py", "__main__.py")
    )


def lines(paths: Iterable[Path]) -> int:
    """Lines of these files together."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


# -- the laws; each yields what breaks it, as a sentence ---------------------------------------------------------------


def room_of(module: str) -> tuple[str, str]:
    """(package, room) of a module: the room with the longest name that it lies in; itself where it lies in none."""
    package, _, rest = module.partition(".")
    named = [room for row in LAYERS[package] for room in row]
    inside = [room for room in named if rest == room or rest.startswith(room + ".")]
    return package, max(inside, key=len, default="*" if "*" in named else rest)


def crossings(graph: dict[str, set[str]]) -> Iterator[str]:
    """Imports that point the wrong way, between packages or between rooms."""
    rank = {(p, room): at for p, rows in LAYERS.items() for at, row in enumerate(rows) for room in row}
    for name in sorted(graph):
        package, room = room_of(name)
        for other in sorted(graph[name]):
            to_package, to_room = room_of(other)
            if PACKAGES.index(to_package) > PACKAGES.index(package):
                yield f"{name} imports {other}"
            elif to_package == package and to_room != room and "." in name and "." in other:
                ours, theirs = rank.get((package, room)), rank.get((to_package, to_room))
                if ours is None or theirs is None or theirs >= ours:
                    yield f"{name} imports {other}"


def forbidden(known: dict[str, Path]) -> Iterator[str]:
    """Imports of libraries that a package must do without (FORBIDDEN)."""
    for name, path in known.items():
        first = {module.partition(".")[0] for module, _ in imported_names(path)}
        for library in sorted(first & FORBIDDEN[name.partition(".")[0]]):
            yield f"{name} imports {library}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or by way of others (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def oversized(known: dict[str, Path], root: Path = ROOT) -> Iterator[str]:
    """Rooms of more than MOST_MODULES modules and files of more than MOST_LINES lines. Tests may be longer."""
    for room, count in sorted(rooms(known, root).items()):
        if count > MOST_MODULES:
            yield f"{room} has {count} modules, more than {MOST_MODULES}"
    for path in known.values():
        if (count := lines([path])) > MOST_LINES:
            yield f"{path.relative_to(root).as_posix()} has {count} lines, more than {MOST_LINES}"


def unlabelled(known: dict[str, Path], root: Path = ROOT) -> Iterator[str]:
    """Rooms without an `__init__` that says what they are for, and public functions and classes without a docstring.

    Methods are not asked: what implements an interface is told there.
    """
    for room in sorted({path.parent for path in known.values()}):
        init = room / "__init__.py"
        if not init.is_file() or not ast.get_docstring(parsed(init)):
            yield f"{room.relative_to(root).as_posix()} has no __init__.py with a docstring"
    for name, path in known.items():
        for node in parsed(path).body:
            public = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if public and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{name}.{node.name} has no docstring"


def unmapped(known: dict[str, Path], root: Path = ROOT) -> Iterator[str]:
    """Modules and rooms that the map of their room, the docstring of its `__init__`, does not name.

    A map names them in backticks, or, alone or with others, at the head of a line that says behind two spaces what they
    are. A word of a sentence that is spelled like a module names none.
    """
    for path in known.values():
        place = path.parent if path.name == "__init__.py" else path
        init = place.parent / "__init__.py"
        if place.stem.startswith("_") or not init.is_file():
            continue
        if place.stem not in _mapped(ast.get_docstring(parsed(init)) or ""):
            yield f"{init.relative_to(root).as_posix()} does not name {place.name}"


def _mapped(text: str) -> set[str]:
    """The names that a map has in backticks (`name`, `name/`, `name.part`) or at the heads of its lines."""
    heads = re.findall(r"^ *((?:\w+/?, )*\w+/?)  ", text, re.MULTILINE)
    listed = {name.strip().rstrip("/") for head in heads for name in head.split(",")}
    return listed | set(re.findall(r"`(\w+)(?:/|\.\w+)?`", text))


def foreign_files(known: dict[str, Path], root: Path = ROOT) -> Iterator[str]:
    """Places where a package reaches for files that lie in another, as far as the text tells.

    `Path(__file__)` that climbs out of the package (jobs, the uppermost, may look at the checkout), `other.__file__`,
    and paths written out: "jobs/…", or "jobs" as a part of a path.
    """
    for name, path in known.items():
        package = name.partition(".")[0]
        others = {*PACKAGES, "tests"} - {package}
        depth = len(path.relative_to(root / package).parts)  # parents[depth] of a file is the folder above the package
        tree = parsed(path)
        paths = [node for node in ast.walk(tree) if isinstance(node, (ast.BinOp, ast.Call))]
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                if node.value.partition("/")[0] in others and "/" in node.value:
                    yield f'{name} line {node.lineno} names the path "{node.value}"'
            elif isinstance(node, ast.Attribute) and node.attr == "__file__":
                owner = ast.unparse(node.value).partition(".")[0]
                if owner in others:
                    yield f"{name} line {node.lineno} looks beside the files of {owner}"
        for node in paths:
            if _joined_parts(node) & others:
                yield f"{name} line {node.lineno} makes a path into {', '.join(sorted(_joined_parts(node) & others))}"
        if package != PACKAGES[-1] and name != "mats_core.packages":  # which says where the packages lie
            for line, climbed in _climbs(tree):
                if climbed >= depth:
                    yield f"{name} line {line} climbs out of {package}"


def _joined_parts(node: ast.AST) -> set[str]:
    """The texts that `a / "b"` or `.joinpath("b")` or `os.path.join(…, "b")` put into a path."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        operands: list[ast.expr] = [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("joinpath", "join"):
        operands = list(node.args)
    else:
        return set()
    texts = [each.value for each in operands if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return {part for text in texts for part in text.split("/")}


def _climbs(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """(line, index into `parents`) of every `Path(__file__)….parents[n]` and `.parent.parent…`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if isinstance(node.value, ast.Attribute) and node.value.attr == "parents" and _of_this_file(node.value):
                yield node.lineno, int(str(node.slice.value))
        elif isinstance(node, ast.Attribute) and node.attr == "parent" and _of_this_file(node):
            steps, inner = 0, node.value
            while isinstance(inner, ast.Attribute) and inner.attr == "parent":
                steps, inner = steps + 1, inner.value
            yield node.lineno, steps


def _of_this_file(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "__file__" for each in ast.walk(node))


def has_logic(tree: ast.Module) -> bool:
    """Whether a module does anything: a function or method with a body besides its docstring, `pass` or `...`."""
    return any(
        not isinstance(statement, ast.Pass)
        and not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for statement in (node.body if isinstance(node.body, list) else [])
    )


def reached_by(test: Path, known: dict[str, Path], graph: dict[str, set[str]]) -> set[str]:
    """The modules that a test file imports, and those that these import themselves (`__init__`s are looked through)."""
    first = imports_of(test, known, exports(known)) | _run_by_name(test, known)
    for _ in range(2):  # a room's __init__ stands for what it hands on
        first |= {inner for name in first if known[name].name == "__init__.py" for inner in graph[name]}
    return first | {inner for name in first for inner in graph[name] | _run_by_name(known[name], known)}


def _run_by_name(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file starts in another process: texts that are a name (`python -m`) or import one (`-c`)."""
    texts = [each.value for each in ast.walk(parsed(path)) if isinstance(each, ast.Constant)]
    found = {text for text in texts if isinstance(text, str) and "." in text}
    found |= {name for text in texts if isinstance(text, str) for name in _IMPORT.findall(text)}
    return found & set(known)


_IMPORT = re.compile(r"^\s*(?:from|import) ([\w.]+)", re.MULTILINE)


def untested(known: dict[str, Path], covered_by: dict[str, str], root: Path = ROOT) -> Iterator[str]:
    """Modules with logic but without a test: `tests/<same path>/test_<name>.py`, or the file that COVERED_BY names.

    The test file must exist and reach the module. Entries of COVERED_BY that nobody needs are told as well.
    """
    graph = imports(known)
    reach = {path: reached_by(path, known, graph) for path in sorted((root / "tests").rglob("test_*.py"))}
    for name in sorted(set(covered_by) - set(known)):
        yield f"COVERED_BY names {name}, which is no module"
    for name, path in known.items():
        if path.name in ("__init__.py", "__main__.py") or not has_logic(parsed(path)):
            continue
        own = root / "tests" / path.relative_to(root).parent / f"test_{path.stem}.py"
        if own.is_file() and name in covered_by:
            yield f"{name} has a test of its own and needs no entry in COVERED_BY"
        test = own if own.is_file() else root / covered_by.get(name, own.relative_to(root).as_posix())
        shown = test.relative_to(root).as_posix()
        if not test.is_file():
            able = sorted((each for each in reach if name in reach[each]), key=lambda each: _apart(own, each))
            nearest = ", ".join(each.relative_to(root).as_posix() for each in able[:3]) or "none"
            yield f"{name} has no {shown}; name the test that covers it in COVERED_BY (reached by {nearest})"
        elif name not in reach[test]:
            yield f"{shown} is to cover {name} and does not import it"


def _apart(one: Path, other: Path) -> int:
    """How many folders lie between two files."""
    return len(set(one.parents) ^ set(other.parents))


# -- figures -----------------------------------------------------------------------------------------------------------


def traced(root: Path = ROOT, drivers: Iterable[str] = DRIVERS) -> set[str]:
    """The modules of ours that one sound passes, from scan to answer: `mats caption` on one file, watched.

    They are those whose functions run in the processes that work on rows (decoding actors, the children that decode
    for them, model actors), and of the driver's those that meet a row, `drivers`. A module whose top level alone
    runs, by an import, does not count.
    """
    with tempfile.TemporaryDirectory(prefix="mats-map-") as folder:
        place = Path(folder)
        (place / "notes").mkdir()
        sound = place / "sound.wav"
        _write_tone(sound)
        environment = {
            **os.environ,
            "MATS_TRACE": str(place / "notes"),
            "MATS_TRACE_ROOT": str(root),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "tracing"), str(root)]),
            "RAY_AUTH_MODE": "disabled",
        }
        command = [sys.executable, "-m", "jobs", "caption", str(sound), str(place / "out"), "--device", "cpu"]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"mats caption ended with {done.returncode}: {done.stderr[-500:]}")
        processes = [set(note.read_text().splitlines()) for note in (place / "notes").iterdir()]
    found: set[str] = set()
    for functions in processes:
        paths = {line.partition(" ")[0] for line in functions}
        ours = {module_name(Path(path)) for path in paths if path.partition("/")[0] in PACKAGES}
        found |= ours & set(drivers) if any(name.startswith("jobs") for name in ours) else ours
    return found


def _write_tone(path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(path, 0.1 * np.sin(np.arange(80_000) / 10), 16_000)


def main(trace: bool) -> None:
    """Print the figures of the house; with `trace` also what one sound passes (a minute)."""
    known = modules()
    graph = imports(known)
    print("package                       modules   lines")
    for package in PACKAGES:
        own = [path for name, path in known.items() if name.partition(".")[0] == package]
        print(f"{package:28} {len(own):8} {lines(own):7}")
    print(f"{'all':28} {len(known):8} {lines(known.values()):7}")
    print(f"\nroom (at most {MOST_MODULES})             modules")
    for room, count in sorted(rooms(known).items()):
        print(f"{room:28} {count:8}")
    print("\nto change                     modules   lines")
    for label, start in CLOSURES.items():
        seen = closure(graph, start)
        print(f"{label:28} {len(seen):8} {lines(known[name] for name in seen):7}")
    if trace:
        passed = traced()
        print(f"{'one sound passes':28} {len(passed):8} {lines(known[name] for name in passed):7}")
    found = circles(graph)
    print(f"\ncircles: {len(found)}", *(" – ".join(group) for group in found), sep="\n  ")
    wrong = list(crossings(graph))
    print(f"imports that point the wrong way: {len(wrong)}", *wrong, sep="\n  ")


if __name__ == "__main__":
    main("--trace" in sys.argv[1:])
