"""The end of a training run: the model directory, with a card that says what it was made of and how that went."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mats_core import storage
from pipelines.output.lease import LeaseLost, check_generation
from pipelines.output.record import versions
from pipelines.pages.charts import Line, curve_svg
from pipelines.settings.train import MODEL, TrainSettings
from pipelines.train.checkpoints import TrainState
from pipelines.train.mixture import StoredSet, held_out_notes

if TYPE_CHECKING:
    from mats_core.model.model import MatsModel

CARD = "MODEL_CARD.md"
_RUN = "- run: "


def export_model(
    model: MatsModel, settings: TrainSettings, state: TrainState, sets: list[StoredSet], exported_step: int, run_id: str
) -> None:
    """Write OUTPUT/model whole, in place of an earlier one. Raises StorageError, OSError, and LeaseLost.

    After LeaseLost there is no model, since files of two runs may have met; the newer run's command given again
    writes it.
    """
    target = storage.join(settings.output, MODEL)
    path = storage.local_path(target)
    if path is not None:
        final = Path(path.decode("utf-8", "surrogateescape"))
        draft = final.with_name(f".{MODEL}-{uuid.uuid4().hex[:8]}.partial")
        try:
            _write(model, settings, state, sets, exported_step, run_id, draft)
            check_generation(settings.output, run_id)
            storage.remove_tree(target)
            draft.rename(final)
            _check_put(settings.output, run_id, target)
        finally:
            storage.remove_tree(str(draft))
        return
    with tempfile.TemporaryDirectory(prefix="mats-model-") as place:
        _write(model, settings, state, sets, exported_step, run_id, Path(place))
        files = sorted((f for f in Path(place).rglob("*") if f.is_file()), key=lambda f: f.name == "mats.json")
        for file in files:  # mats.json last: without it, no directory counts as a model
            check_generation(settings.output, run_id)
            storage.write_bytes(storage.join(target, file.relative_to(place).as_posix()), file.read_bytes())
            _check_put(settings.output, run_id, target)


def _check_put(output: str, run_id: str, target: str) -> None:
    try:
        check_generation(output, run_id)
    except LeaseLost:
        storage.remove_tree(target)
        raise


def is_model_of(target: str, run_id: str) -> bool:
    """Whether there is a model, written by this run; by its card, or where that does not say, as older ones do not."""
    if not storage.exists(storage.join(target, "mats.json")):
        return False
    card = storage.join(target, CARD)
    told = storage.read_bytes(card).decode(errors="replace") if storage.exists(card) else ""
    return f"{_RUN}{run_id}" in told or _RUN not in told


def _write(
    model: MatsModel,
    settings: TrainSettings,
    state: TrainState,
    sets: list[StoredSet],
    step: int,
    run_id: str,
    folder: Path,
) -> None:
    model.save(str(folder), include=settings.include, weights=settings.weights)
    pictures = curves(state.history)
    for name, svg in pictures.items():
        (folder / "curves").mkdir(exist_ok=True)
        (folder / "curves" / f"{name}.svg").write_text(svg, encoding="utf-8")
    (folder / CARD).write_text(model_card(model, settings, state, sets, step, run_id, pictures), encoding="utf-8")


def curves(history: list[dict[str, Any]]) -> dict[str, str]:
    """Name → SVG of what a run's history holds."""
    points = [each for each in history if "loss" in each]
    checks = [each for each in history if "validation" in each]

    def column(name: str) -> Line:
        return [(each["step"], each[name]) for each in points]

    def checked(name: str) -> dict[str, Line]:
        sets = list(checks[-1]["validation"]) if checks else []
        return {s: [(c["step"], c["validation"][s][name]) for c in checks if s in c["validation"]] for s in sets}

    wanted: dict[str, tuple[str, dict[str, Line]]] = {
        "loss": ("Training loss a target token", {"training": column("loss")}),
        "validation_loss": ("Validation loss a target token", checked("loss")),
        "validation_accuracy": ("Validation token accuracy", checked("token_accuracy")),
        "learning_rate": ("Learning rate", {"learning rate": column("learning_rate")}),
        "tokens_per_s": ("Tokens a second", {"tokens/s": column("tokens_per_s")}),
    }
    return {name: curve_svg(title, lines) for name, (title, lines) in wanted.items() if any(lines.values())}


def model_card(
    model: MatsModel, settings: TrainSettings, state: TrainState, sets: list[StoredSet], step: int, run_id: str,
    pictures: Iterable[str],
) -> str:  # fmt: skip
    """Markdown: data, settings, curves, metrics."""
    last = next((each for each in reversed(state.history) if "validation" in each and each["step"] <= step), None)
    training, config = settings.training, model.config
    audio = [each.audio is not None for each in settings.data]
    made_of = "audio embeddings" if all(audio) else "text and audio embeddings" if any(audio) else "text alone"
    trained = sum(weight.numel() for weight in model.mapper.parameters())
    adapted = sum(weight.numel() for name, weight in model.llm.named_parameters() if "lora_" in name)
    lines = [
        "# Model card", "",
        f"A MATS audio language model, trained on {made_of}. CLAP and LLM are frozen.", "",
        *(f"- {title}: {_name(getattr(config, title.lower()))}" for title in ("encoder", "LLM", "memory")),
        f"- mapper ({config.mapper.kind}): {trained:,} parameters, {config.mapper.vectors} vectors",
        f"- adapter: {f'LoRA, rank {config.adapter.rank}, {adapted:,} parameters' if config.adapter else 'none'}"
        + (" (not trained in this run)" if config.adapter and training.train == "mapper" else ""),
        f"- continued from: {settings.model or 'nothing, it is new'}",
        f"- {state.step:,} steps, {state.samples:,} samples, {state.tokens:,} tokens, {state.seconds / 60:.1f} min; "
        f"written from step {step:,}",
        f"{_RUN}{run_id}",
        # its last bits are not those of an unbroken run where it was continued with other threads
        *([f"- threads a worker: {', then '.join(map(str, state.threads))}"] if len(state.threads) > 1 else []),
        "", "## Data", "",
        "| set | records | held out | given up | ratio | share of draws | tag | unusable |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    whole = sum(each.ratio for each in settings.data)
    for data, stored in zip(settings.data, sets, strict=True):
        bad = ", ".join(f"{name} {count}" for name, count in stored.facts["problems"].items()) or "0"
        lines.append(
            f"| {data.name} | {len(stored.train):,} | {len(stored.validation):,} | {stored.facts['given_up']:,} | "
            f"{data.ratio:g} | {data.ratio / whole:.1%} | {data.tag or ''} | {bad} |"
        )
    lines += ["", "Given up: records whose caption another set holds out."]
    lines += [f"{text[0].upper()}{text[1:]}." for text in held_out_notes([each.facts for each in sets])]
    lines += ["", "## Metrics", ""]
    if last:
        lines += ["| held-out set | loss a token | token accuracy |", "|---|---|---|"]
        lines += [f"| {n} | {v['loss']:.4f} | {v['token_accuracy']:.4f} |" for n, v in last["validation"].items()]
        lines += ["", f"At step {last['step']:,}, from caption embeddings without noise and without Santa."]
        if state.best_step is not None:
            lines += [f"Lowest mean loss {state.best_loss:.4f}, at step {state.best_step:,}."]
    else:
        lines += ["Nothing was held out."]
    lines += ["", "## Curves", "", *(f"![{name}](curves/{name}.svg)" for name in pictures)]
    values = settings.model_dump(mode="json", exclude_none=True)
    lines += ["", "## Settings", "", "```yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True).strip()]
    lines += ["```", "", "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "."]
    return "\n".join(lines) + "\n"


def _name(part: Any) -> str:
    return f"{storage.public_uri(part.uri)} ({part.fingerprint[:12]})" if part else "none"
