"""The laws of the house (tests/house.py), each with a small house that breaks it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests import house

KNOWN = house.modules()
GRAPH = house.imports(KNOWN)


def assert_lawful(broken: Iterable[str]) -> None:
    """Fail with every sentence that says what breaks a law."""
    told = "\n".join(broken)
    assert not told, f"\n{told}"


# -- this house --------------------------------------------------------------------------------------------------------


def test_every_import_points_down() -> None:
    """jobs → pipelines → mats_core, and between the rooms of a package as LAYERS has it."""
    assert_lawful(house.crossings(GRAPH))


def test_libraries_stay_where_they_belong() -> None:
    """No Ray in mats_core, no terminal in pipelines, no tests in anything that is shipped."""
    assert_lawful(house.forbidden(KNOWN))


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert house.circles(GRAPH) == []


def test_rooms_and_files_are_small_enough_to_be_read() -> None:
    assert_lawful(house.oversized(KNOWN))


def test_every_room_and_every_public_name_says_what_it_is() -> None:
    assert_lawful(house.unlabelled(KNOWN))


def test_every_map_names_what_is_in_its_room() -> None:
    assert_lawful(house.unmapped(KNOWN))


def test_no_package_reaches_for_files_of_another() -> None:
    assert_lawful(house.foreign_files(KNOWN))


def test_every_module_with_logic_has_its_test() -> None:
    assert_lawful(house.untested(KNOWN, house.COVERED_BY))


def test_every_room_of_the_plan_is_there() -> None:
    """A room that is gone leaves its row too; rooms of one module are files."""
    planned = {f"{package}.{room}" for package, rows in house.LAYERS.items() for row in rows for room in row}
    assert_lawful(f"{room} is no room" for room in sorted(planned - set(KNOWN) - {"jobs.*"}))
    assert set(house.CLOSURES.values()) | set(house.DRIVERS) <= set(KNOWN)


TOP_LEVEL = {
    *(".ci", ".dockerignore", ".gitignore", "BENCHMARKS.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile"),
    *("README.md", "SECURITY.md", "cluster.yaml", "constraints.txt", "docs", "examples", "jobs", "mats_core"),
    *("pipelines", "pyproject.toml", "tests"),
}


@pytest.mark.processes
def test_nothing_has_been_left_lying_at_the_top() -> None:
    if not (house.ROOT / ".git").exists():
        pytest.skip("no checkout: git tells what is kept")
    kept = subprocess.run(["git", "ls-files"], cwd=house.ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in kept.splitlines()} == TOP_LEVEL


@pytest.mark.processes
def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = "[name for name in ('torch', 'ray', 'transformers', 'pyarrow', 'rich') if name in sys.modules]"
    code = f"import sys, jobs.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.processes
def test_a_pipeline_imports_neither_torch_nor_ray() -> None:
    """Wrong settings are found before either is loaded."""
    heavy = "[name for name in ('torch', 'ray', 'transformers') if name in sys.modules]"
    code = f"import sys, pipelines.archive.caption; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- houses that break a law -------------------------------------------------------------------------------------------

Build = Callable[..., dict[str, Path]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write files (path → text) and return the modules among them; every room gets an `__init__`."""

    def written(files: dict[str, str]) -> dict[str, Path]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            for room in path.relative_to(tmp_path).parents:
                init = tmp_path / room / "__init__.py"
                if room.parts and room.parts[0] != "tests" and not init.exists():
                    init.write_text('"""A room."""\n')
        return house.modules(tmp_path)

    return written


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("mats_core/storage/a.py", "def f():\n    from pipelines.data import b", "pipelines.data.b"),
        ("mats_core/storage/a.py", "import jobs.cli", "jobs.cli"),
        ("pipelines/data/b.py", "from pipelines.output.c import f", "pipelines.output.c"),
        ("pipelines/text/d.py", "from pipelines.train import e", "pipelines.train.e"),
        ("mats_core/attic/a.py", "from mats_core.storage import uris", "mats_core.storage.uris"),
    ],
)
def test_an_import_that_points_up_is_found(build: Build, name: str, text: str, other: str) -> None:
    """Inside a function, into another package, into a room above, into one beside it, from a room without a place."""
    known = build(
        {
            "mats_core/storage/uris.py": "",
            "pipelines/data/b.py": "",
            "pipelines/output/c.py": "from pipelines.data import b",
            "pipelines/train/e.py": "",
            "jobs/cli.py": "from pipelines.train import e",
            name: text,
        }
    )
    module = house.module_name(Path(name))
    assert list(house.crossings(house.imports(known))) == [f"{module} imports {other}"]


def test_a_name_of_the_package_stands_for_the_module_that_has_it(build: Build) -> None:
    known = build(
        {
            "mats_core/__init__.py": '"""Core."""\n_PLACES = {"load_model": "mats_core.model.model"}\n',
            "mats_core/model/model.py": "",
            "mats_core/audio/decode.py": "from mats_core import load_model",
        }
    )
    assert list(house.crossings(house.imports(known))) == ["mats_core.audio.decode imports mats_core.model.model"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mats_core/a.py", "def f():\n    import ray.data"),
        ("pipelines/a.py", "import rich"),
        ("jobs/a.py", "import tests"),
    ],
)
def test_a_library_in_the_wrong_place_is_found(build: Build, name: str, text: str) -> None:
    (found,) = house.forbidden(build({name: text}))
    assert found.startswith(name.partition("/")[0])


def test_a_circle_is_found_though_one_import_is_lazy_and_one_is_for_types(build: Build) -> None:
    known = build(
        {
            "mats_core/audio/a.py": "def f():\n    from mats_core.audio import b",
            "mats_core/audio/b.py": "if TYPE_CHECKING:\n    from mats_core.audio.c import C",
            "mats_core/audio/c.py": "import mats_core.audio.a",
            "mats_core/audio/d.py": "import mats_core.audio.a",
        }
    )
    assert house.circles(house.imports(known)) == [["mats_core.audio.a", "mats_core.audio.b", "mats_core.audio.c"]]


def test_a_full_room_and_a_long_file_are_found(build: Build, tmp_path: Path) -> None:
    full = {f"jobs/m{number}.py": "" for number in range(house.MOST_MODULES)}
    known = build({**full, "jobs/__main__.py": "", "pipelines/a.py": "\n" * house.MOST_LINES})
    assert list(house.oversized(known, tmp_path)) == []
    known = build({"jobs/more.py": "", "pipelines/a.py": "\n" * (house.MOST_LINES + 1)})
    assert list(house.oversized(known, tmp_path)) == [
        "jobs has 13 modules, more than 12",
        "pipelines/a.py has 451 lines, more than 450",
    ]


def test_a_room_or_a_function_without_a_docstring_is_found(build: Build, tmp_path: Path) -> None:
    known = build(
        {
            "jobs/__init__.py": "",
            "jobs/a.py": 'def told():\n    """Told."""\n\ndef _inner(): ...\n\ndef untold(): ...\n\nclass Untold: ...',
        }
    )
    assert list(house.unlabelled(known, tmp_path)) == [
        "jobs has no __init__.py with a docstring",
        "jobs.a.untold has no docstring",
        "jobs.a.Untold has no docstring",
    ]


def test_what_a_map_does_not_name_is_found(build: Build, tmp_path: Path) -> None:
    known = build(
        {"jobs/__init__.py": '"""Has `told`."""', "jobs/told.py": "", "jobs/retold.py": "", "jobs/room/__main__.py": ""}
    )
    assert sorted(house.unmapped(known, tmp_path)) == [
        "jobs/__init__.py does not name retold.py",
        "jobs/__init__.py does not name room",
    ]


MAP = """A page for all, with room in it.

first, second  two of them: a page and what is on it; `fourth`
third/         a room; `fifth/` and `sixth.part`, of which one has room
page is a word here, and so is room, page, and the-room.
It runs `mats search`.
"""


def test_a_map_names_modules_at_the_heads_of_lines_and_in_backticks_and_not_in_its_sentences(
    build: Build, tmp_path: Path
) -> None:
    named = ("first", "second", "fourth", "sixth")
    files = {f"jobs/{name}.py": "" for name in (*named, "page", "search", "mats", "part")}
    rooms = {f"jobs/{name}/a.py": "" for name in ("third", "fifth", "room")}
    inits = {f"jobs/{name}/__init__.py": '"""`a`"""' for name in ("third", "fifth", "room")}
    known = build({"jobs/__init__.py": f'"""{MAP}"""', **files, **rooms, **inits})
    assert sorted(house.unmapped(known, tmp_path)) == [
        f"jobs/__init__.py does not name {name}" for name in ("mats.py", "page.py", "part.py", "room", "search.py")
    ]


@pytest.mark.parametrize(
    ("package", "text", "broken"),
    [
        ("pipelines", 'open("jobs/configs/a.yaml")', 'names the path "jobs/configs/a.yaml"'),
        ("pipelines", 'ROOT / "jobs" / "configs"', "makes a path into jobs"),
        ("jobs", 'ROOT.joinpath("tests", "x")', "makes a path into tests"),
        ("pipelines", "Path(__file__).parents[2]", "climbs out of pipelines"),
        ("pipelines", "Path(__file__).resolve().parent.parent.parent", "climbs out of pipelines"),
        ("jobs", "Path(mats_core.__file__).parent", "looks beside the files of mats_core"),
    ],
)
def test_a_file_of_another_package_is_found(build: Build, tmp_path: Path, package: str, text: str, broken: str) -> None:
    known = build({f"{package}/room/a.py": f"from pathlib import Path\n\n{text}\n"})
    found = list(house.foreign_files(known, tmp_path))
    assert found and all(each.endswith(broken) for each in found)
    assert found[0].startswith(f"{package}.room.a line 3 ")


def test_own_files_and_other_words_are_left_alone(build: Build, tmp_path: Path) -> None:
    known = build(
        {
            "pipelines/room/a.py": 'Path(__file__).parents[1] / "x"\nPath(__file__).parent.parent\nword = "jobs"\n',
            "jobs/a.py": "Path(__file__).parents[1]  # the checkout\n",
        }
    )
    assert list(house.foreign_files(known, tmp_path)) == []


LOGIC = "def f():\n    return 1\n"


def untested(known: dict[str, Path], root: Path, **covered_by: str) -> list[str]:
    return list(house.untested(known, {f"mats_core.{name}": test for name, test in covered_by.items()}, root))


def test_a_module_without_a_test_is_found(build: Build, tmp_path: Path) -> None:
    known = build({"mats_core/a.py": LOGIC, "tests/mats_core/test_b.py": "from mats_core import a"})
    (found,) = untested(known, tmp_path)
    assert found.startswith("mats_core.a has no tests/mats_core/test_a.py") and "tests/mats_core/test_b.py" in found
    assert untested(known, tmp_path, a="tests/mats_core/test_b.py") == []
    build({"tests/mats_core/test_a.py": "from mats_core.a import f"})
    assert untested(known, tmp_path) == []
    assert untested(known, tmp_path, a="tests/mats_core/test_b.py") == [
        "mats_core.a has a test of its own and needs no entry in COVERED_BY"
    ]


def test_a_test_that_does_not_import_what_it_covers_is_found(build: Build, tmp_path: Path) -> None:
    """An import of what imports the module will do, two steps will not; nor does a test that is not there."""
    files = {f"mats_core/{a}.py": f"from mats_core import {b}" for a, b in (("x", "y"), ("y", "a"))}
    known = build({**files, "mats_core/a.py": LOGIC, "tests/test_it.py": "import mats_core.x"})
    assert untested(known, tmp_path, a="tests/test_it.py") == [
        "tests/test_it.py is to cover mats_core.a and does not import it"
    ]
    build({"tests/test_it.py": "import mats_core.y"})
    assert untested(known, tmp_path, a="tests/test_it.py") == []
    assert untested(known, tmp_path, a="tests/test_gone.py")[0].startswith("mats_core.a has no tests/test_gone.py")
    assert untested(known, tmp_path, a="tests/test_it.py", gone="tests/test_it.py") == [
        "COVERED_BY names mats_core.gone, which is no module"
    ]


@pytest.mark.parametrize(
    ("text", "logic"),
    [
        ("SIZES = (1, 2)\n", False),
        ("@dataclass\nclass A:\n    x: int = 1\n", False),
        ('class P(Protocol):\n    def f(self) -> int:\n        """What it does."""\n        ...\n', False),
        ("key = sorted(names, key=lambda name: name)\n", False),
        ("class A:\n    @property\n    def x(self):\n        return 1\n", True),
        (LOGIC, True),
    ],
)
def test_what_has_logic(build: Build, text: str, logic: bool) -> None:
    assert house.has_logic(house.parsed(build({"jobs/a.py": text})["jobs.a"])) is logic


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_map_prints_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    house.main(trace=False)
    shown = capsys.readouterr().out
    for line in ("mats_core", "jobs/benchmarks", *house.CLOSURES, "circles: ", "imports that point the wrong way: "):
        assert f"\n{line}" in f"\n{shown}"


@pytest.mark.long
@pytest.mark.e2e
def test_one_sound_passes_decoding_the_encoder_and_the_llm_and_not_the_training() -> None:
    passed = house.traced()
    assert {"mats_core.audio.decode", "mats_core.encoders.clap", "mats_core.model.model", *house.DRIVERS} <= passed
    assert not any(name.startswith(("jobs", "mats_core.training", "pipelines.train")) for name in passed)
