"""The plan of the house: which room may import which, and how large rooms and files may grow.

`test_house.py` holds the code to it; `make map` (`python -m tests.house`) prints what stands.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mats_core", "pipelines", "jobs")
MOST_MODULES, MOST_LINES = 12, 450

# From the ground up. A room may import the rows below its own and, of its own row, only itself.
LAYERS: dict[str, list[list[str]]] = {
    "mats_core": [
        ["errors"],
        ["storage"],
        ["device", "weights"],
        ["audio", "encoders", "memory", "generation", "scoring"],
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
        ["archive", "text", "train", "compact"],
        ["evaluate.datasets"],
        ["evaluate"],
    ],
    "jobs": [["terminal"], ["*"], ["benchmarks"], ["cli", "__main__"]],
}

# What the commands start from: its import closure is what a newcomer must read to change it.
CLOSURES = {
    "storage": "mats_core.storage",
    "mats ask": "jobs.ask",
    "mats caption": "pipelines.archive.caption",
    "mats train": "pipelines.train.run",
}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the three packages by its dotted name; a package's `__init__` by the package's."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each imports, wherever in the file the import stands, type checking included.

    `from mats_core import load_model` counts as an import of the module that has it.
    """
    exported = _exports(known["mats_core"])
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inside = f"{node.module}.{alias.name}"
                    if node.module == "mats_core" and alias.name in exported:
                        inside = exported[alias.name]
                    found.add(inside if inside in known else node.module)
        graph[name] = (found & set(known)) - {name}
    return graph


def _exports(init: Path) -> dict[str, str]:
    """The names of `mats_core` and the modules they come from, out of its table."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {str(k): str(v) for k, v in ast.literal_eval(node.value).items()}
    return {}


def room_of(module: str) -> tuple[str, str]:
    """(package, room) of a module: the room with the longest name that it lies in; itself where it lies in none."""
    package, _, rest = module.partition(".")
    rooms = [room for row in LAYERS[package] for room in row]
    inside = [room for room in rooms if rest == room or rest.startswith(room + ".")]
    return package, max(inside, key=len, default="*" if "*" in rooms else rest)


def crossings(graph: dict[str, set[str]]) -> Iterator[str]:
    """Imports that point the wrong way, as "a imports b"."""
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


def main() -> None:
    """Print the figures of the house."""
    known = modules()
    graph = imports(known)
    for package in PACKAGES:
        own = [path for name, path in known.items() if name.partition(".")[0] == package]
        print(f"{package:28} {len(own):4} modules {lines(own):6} lines")
    print("rooms:", ", ".join(f"{room} {count}" for room, count in sorted(rooms(known).items())))
    print("circles:", circles(graph) or 0)
    print("imports that point the wrong way:", list(crossings(graph)) or 0)
    for label, start in CLOSURES.items():
        seen = closure(graph, start)
        print(f"to change {label:18} {len(seen):4} modules {lines(known[name] for name in seen):6} lines")


if __name__ == "__main__":
    main()
