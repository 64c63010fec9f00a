"""A suite: evaluation sets that belong together, and tables of ours beside what was published, as suites/paper.yaml.

Of a suite is run what is there. A published figure stands beside ours with its source; where none is known, a gap.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import yaml
from pydantic import Field, model_validator

from mats_core import storage
from mats_core.errors import SettingsError, first_line
from mats_core.scoring import METRICS, Metric
from mats_core.storage.uris import Uri, uri_text
from pipelines.evaluate.datasets import load_evaluation_set, load_items
from pipelines.evaluate.scores import Evaluation, SetResult
from pipelines.settings.base import Settings, build
from pipelines.settings.evaluate import EvaluateSettings

FOLDER = Path(__file__).parent / "suites"
TABLES = "tables"
"""Folder in OUT that receives the tables."""
GAP = "–"
PARTIAL = "*"
"""Stands behind a figure that is of a part of its data set alone."""
SHOWN = {
    "cider_d": "CIDEr-D", "spice": "SPICE", "spider": "SPIDEr", "fense": "FENSE", "meteor": "METEOR",
    "rouge_l": "ROUGE-L", **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)}, "map": "mAP", "micro_f1": "micro F1",
    "macro_f1": "macro F1",
}  # fmt: skip
"""Metrics as papers write them."""


class Cited(Settings):
    """Where published figures are from."""

    key: str = Field(description="Of BibTeX.")
    text: str
    url: str
    author: str = Field(
        "", description="As BibTeX wants it, names with `and` between them; else `text` stands for all."
    )
    title: str = ""
    year: int | None = None
    venue: str = Field("", description="Where it appeared.")


class Row(Settings):
    """A data set, the metrics shown of it, and what was published: model → metric → value, a share of one."""

    benchmark: str
    metrics: list[str] = Field(min_length=1)
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    where: str = Field("", description="Table or page that the figures stand in.")

    @model_validator(mode="after")
    def _known(self) -> Row:
        kind = load_evaluation_set(self.benchmark).kind
        unknown = [name for name in self.metrics if name not in METRICS[kind]]
        if unknown:
            raise ValueError(f"{self.benchmark} has no {', '.join(unknown)}; choose of {', '.join(METRICS[kind])}")
        if self.published and not self.where:
            raise ValueError(f"figures of {self.benchmark} have no source; name their table or page (where)")
        return self


class Part(Settings):
    """One table."""

    title: str
    rows: list[Row] = Field(min_length=1)


class Suite(Settings):
    """Tables of data sets, and the models whose published figures stand beside ours."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    title: str
    cite: Cited
    models: list[str]
    cites: dict[str, Cited] = Field(
        default_factory=dict, description="Model → where its figures are from, if elsewhere."
    )
    tables: list[Part] = Field(min_length=1)

    @model_validator(mode="after")
    def _columns(self) -> Suite:
        unknown = sorted({*self.cites, *(model for row in self.rows for model in row.published)} - set(self.models))
        if unknown:
            raise ValueError(f"figures are of {', '.join(unknown)}; name such a model in models")
        return self

    def cited(self, model: str) -> Cited:
        """Where the figures of a model are from."""
        return self.cites.get(model, self.cite)

    @property
    def rows(self) -> list[Row]:
        """The rows of all tables."""
        return [row for part in self.tables for row in part.rows]


def list_suites() -> list[str]:
    """Names of the suites that come with the code."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(name_or_path: Uri) -> Suite:
    """A suite by name, or from a YAML file of one's own. Raises SettingsError."""
    name = uri_text(name_or_path)
    own = Path(name).suffix in (".yaml", ".yml")
    if not own and name not in list_suites():
        remedy = f"choose {', '.join(list_suites())}, or give the path of a .yaml file"
        raise SettingsError("suite", f'"{name}" is no suite that comes with the code', remedy)
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = f"{path} is not a readable YAML file ({first_line(error)})"
        raise SettingsError("suite", problem, "repair the file, or choose another") from None
    if not isinstance(values, dict):
        raise SettingsError("suite", f"{path} holds no `field: value` lines", f"write it as {FOLDER / 'paper.yaml'}")
    try:
        return build(Suite, values)
    except SettingsError as error:
        raise SettingsError(f"suite: {path.name}: {error.setting}", error.problem, error.remedy) from None


def what_is_there(settings: EvaluateSettings) -> tuple[EvaluateSettings, dict[str, str]]:
    """The settings with the benchmarks of their suite whose data is there, and why the others are left out.

    Raises SettingsError where none is there, or benchmarks are named as well.
    """
    if settings.benchmarks:
        raise SettingsError("suite", "benchmarks are named as well", "leave out --suite or --benchmarks")
    names = list(dict.fromkeys(row.benchmark for row in load_suite(settings.suite).rows))
    roots, absent = settings.roots(names), {}
    for name in names:
        try:
            load_items(load_evaluation_set(name), roots[name], settings.limit)
        except SettingsError as error:
            absent[name] = error.problem
    there = [name for name in names if name not in absent]
    if not there:
        where = ", ".join(dict.fromkeys(storage.public_uri(root) for root in roots.values()))
        problem = f"of its {len(names)} data sets none is in {where}"
        raise SettingsError("suite", problem, "name their folder with --data; `mats evaluate --list` says what to get")
    return settings.model_copy(update={"benchmarks": ",".join(there)}), absent


class Tables:
    """The tables of a suite, with what an evaluation came to; `absent`: data set → why it was not run; `origin`: the
    run and model that our figures are of. A figure of a part of its data set has a mark in all of them (PARTIAL)."""

    def __init__(self, suite: Suite, done: Evaluation, absent: dict[str, str], origin: str) -> None:
        self.suite, self.absent, self.origin = suite, absent, origin
        self.partial = {r.data.name: r.data.partial for r in done.cells[0].results if r.data.partial}
        self.ours: dict[str, dict[str, SetResult]] = {}
        for each in done.cells:
            name = each.cell.name if len(done.cells) > 1 else "ours"
            self.ours[name] = {result.data.name: result for result in each.results}

    def _lines(self, part: Part) -> list[tuple[Row, str, list[Metric | None], list[float | None]]]:
        """(row, metric, ours by cell, published by model) of each line of a table."""
        lines = []
        for row in part.rows:
            for metric in row.metrics:
                own = [_metric(results.get(row.benchmark), metric) for results in self.ours.values()]
                lines.append((row, metric, own, [row.published.get(m, {}).get(metric) for m in self.suite.models]))
        return lines

    @property
    def has_gaps(self) -> bool:
        """Whether a published figure is not known."""
        return any(None in known for part in self.suite.tables for *_, known in self._lines(part))

    def markdown(self) -> str:
        """For a page of text."""
        told = [f"# {self.suite.title}"]
        for part in self.suite.tables:
            head = ["data set", "metric", *self.ours, *self.suite.models, "items"]
            rows = [head, ["---"] * len(head)]
            for row, metric, own, known in self._lines(part):
                figures = [_interval(each) + self._mark(row, each) for each in own]
                figures += [_plain(each) for each in known]
                items = str(own[0].n) if own and own[0] is not None else GAP
                rows.append([load_evaluation_set(row.benchmark).title, SHOWN.get(metric, metric), *figures, items])
            told.append(f"## {part.title}\n\n" + "\n".join(f"| {' | '.join(each)} |" for each in rows))
            told += [rf"\{line}" for line in self._notes(part)]
        told.append(f"Ours: {self.origin}.")
        for cite in self._cites():
            told.append(f"Published: {cite.text} {cite.url}")
        if sources := [f"{row.benchmark}: {row.where}" for row in self.suite.rows if row.where]:
            told.append("Where the figures stand: " + "; ".join(sources) + ".")
        if self.has_gaps:
            told.append(f"{GAP} under a published model: no figure is known here; look into its paper.")
        if self.absent:
            told.append("Not run:\n\n" + "\n".join(f"- {name}: {why}" for name, why in self.absent.items()))
        return "\n\n".join(told) + "\n"

    def latex(self) -> str:
        """For a paper; needs `booktabs`, `graphicx`, `url` and what `bib` gives. No table is wider than the text."""
        columns = [*self.ours, *self.suite.models]
        cites = self._cites()
        told = [
            f"% To \\input, not to compile. Packages: booktabs, graphicx, url. \\bibliography: {self.suite.name}.bib"
        ]
        told += [f"% ours: {self.origin}", *(f"% {cite.key}: {_tex(cite.text)} {cite.url}" for cite in cites)]
        for part in self.suite.tables:
            heads = ["Data set", "Metric", *map(_tex, self.ours)]
            heads += [rf"{_tex(model)}~\cite{{{self.suite.cited(model).key}}}" for model in self.suite.models]
            told += [
                r"\begin{table}", r"\centering", rf"\caption{{{_tex(part.title)}}}",
                r"\footnotesize\setlength{\tabcolsep}{4pt}",
                r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}", r"\toprule",
                " & ".join(heads) + r" \\", r"\midrule",
            ]  # fmt: skip
            for row, metric, own, known in self._lines(part):
                figures = [
                    _tex(_plain(None if each is None else each.value) + self._mark(row, each)) + _small_interval(each)
                    for each in own
                ]
                figures += [_tex(_plain(each)) for each in known]
                cells = [_tex(load_evaluation_set(row.benchmark).title), _tex(SHOWN.get(metric, metric)), *figures]
                told.append(" & ".join(cells) + r" \\")
            told += [r"\bottomrule", r"\end{tabular}}"]
            told += [rf"\par{{\footnotesize {_tex(line)}}}" for line in (*self._counts(part), *self._notes(part))]
            told += [r"\end{table}", ""]
        return "\n".join(told)

    def bib(self) -> str:
        """What the tables for a paper cite, for BibTeX: no more of a work than the suite says of it; needs `url`."""
        entries = []
        for cite in {each.key: each for each in self._cites()}.values():
            told = {"title": f"{{{_tex(cite.title)}}}", "author": _tex(cite.author), "year": str(cite.year or "")}
            told["howpublished"] = _tex(cite.venue)
            if not (cite.title and cite.author):
                told = {"key": cite.key, "howpublished": _tex(cite.text)}
            told["note"] = rf"\url{{{cite.url}}}"
            fields = "".join(f"  {name} = {{{value}}},\n" for name, value in told.items() if value.strip("{}"))
            entries.append(f"@misc{{{cite.key},\n{fields}}}\n")
        return "\n".join(entries)

    def _cites(self) -> tuple[Cited, ...]:
        return (self.suite.cite, *self.suite.cites.values())

    def _counts(self, part: Part) -> list[str]:
        """What brackets in a table are, and how many items each data set's figures are of."""
        counts: dict[str, dict[int, list[str]]] = {}
        for row, metric, own, _ in self._lines(part):
            for each in filter(None, own[:1]):
                title = load_evaluation_set(row.benchmark).title
                counts.setdefault(title, {}).setdefault(each.n, []).append(SHOWN.get(metric, metric))
        told = []
        for title, groups in counts.items():
            several = [f"{n:,} ({', '.join(metrics)})" for n, metrics in groups.items()]
            told.append(f"{title} {' and '.join(several) if len(several) > 1 else f'{next(iter(groups)):,}'}")
        brackets = "In brackets: 95 % intervals, by bootstrap over items."
        return [f"{brackets} Items: {'; '.join(told)}."] if told else []

    def csv(self) -> str:
        """For a program: a line a figure, ours and published."""
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["table", "benchmark", "metric", "model", "value", "low", "high", "items", "source"])
        for part in self.suite.tables:
            for row, metric, own, known in self._lines(part):
                begin = [part.title, row.benchmark, metric]
                for name, each in zip(self.ours, own, strict=True):
                    value = ["", "", "", ""] if each is None else [each.value, each.low, each.high, each.n]
                    out.writerow([*begin, name, *value, self._source(row, each)])
                for name, figure in zip(self.suite.models, known, strict=True):
                    source = f"{self.suite.cited(name).key}, {row.where}" if figure is not None else ""
                    out.writerow([*begin, name, "" if figure is None else figure, "", "", "", source])
        return file.getvalue()

    def _mark(self, row: Row, figure: Metric | None) -> str:
        return PARTIAL if figure is not None and row.benchmark in self.partial else ""

    def _notes(self, part: Part) -> list[str]:
        """What the marks of a table mean."""
        names = dict.fromkeys(row.benchmark for row in part.rows if row.benchmark in self.partial)
        return [f"{PARTIAL} {load_evaluation_set(name).title}: {self.partial[name]}." for name in names]

    def _source(self, row: Row, figure: Metric | None) -> str:
        """Where a figure of ours is from, or why there is none."""
        if figure is None:
            return self.absent.get(row.benchmark, "")
        return "; ".join(filter(None, (self.origin, self.partial.get(row.benchmark))))

    def write(self, out: str) -> None:
        """Write them below OUT/tables, with what they cite. Raises StorageError."""
        texts = {"md": self.markdown(), "tex": self.latex(), "bib": self.bib(), "csv": self.csv()}
        for ending, text in texts.items():
            storage.write_bytes(storage.join(out, TABLES, f"{self.suite.name}.{ending}"), text.encode())


def _metric(result: SetResult | None, name: str) -> Metric | None:
    found = None if result is None else result.scores.metrics.get(name)
    return None if found is None or found.value is None else found


def _plain(value: float | None) -> str:
    return GAP if value is None else f"{value:.3f}"


def _interval(metric: Metric | None) -> str:
    if metric is None:
        return GAP
    between = "" if metric.low is None else f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"{metric.value:.3f}{between}"


def _small_interval(metric: Metric | None) -> str:
    """An interval behind a figure in LaTeX."""
    if metric is None or metric.low is None:
        return ""
    return rf" {{\scriptsize [{metric.low:.3f}, {metric.high:.3f}]}}"


def _tex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace(GAP, "--")
