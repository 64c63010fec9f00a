"""A request that ends the process of the model costs its own row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.caption import run_caption
from pipelines.settings.archive import CaptionSettings
from tests.e2e.conftest import read_answers, without, write_tones
from tests.tiny import make_tiny_encoder, make_tiny_llm

DEADLY = "siren"
CODE = """
import os

from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_lm"


class OwnLM(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        deadly = config.deadly

        def read(module, given):
            if given[0].shape[-1] > 2 and (given[0] == deadly).any():  # of a prompt, not of what is being written
                os._exit(9)

        self.model.embed_tokens.register_forward_pre_hook(read)
"""


@pytest.fixture(scope="module")
def deadly_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose LLM ends its process when it reads the word DEADLY."""
    from mats_core.model.config import AdapterConfig, DecodingSettings, MapperConfig
    from mats_core.model.model import MatsModel

    folder = tmp_path_factory.mktemp("deadly")
    llm = make_tiny_llm(folder / "llm")
    words = json.loads((llm / "tokenizer.json").read_text())["model"]["vocab"]
    config = json.loads((llm / "config.json").read_text())
    config |= {"model_type": "own_lm", "architectures": ["OwnLM"], "deadly": words[DEADLY]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnLM"}
    (llm / "config.json").write_text(json.dumps(config))
    (llm / "own.py").write_text(CODE)
    made = MatsModel.new(
        str(llm),
        encoder=str(make_tiny_encoder(folder / "encoder")),
        mapper=MapperConfig(vectors=4, clip_tokens=2, width=32, layers=1, heads=4),
        adapter=AdapterConfig(rank=2, target_modules=["q_proj"]),
        decoding=DecodingSettings(max_new_tokens=6),
        device="cpu",
        trust_remote_code=True,
    )
    made.save(str(folder / "model"), include=("encoder", "llm"))
    return str(folder / "model")


@pytest.mark.long  # each death costs the imports of a new process
@pytest.mark.parametrize("where", ["here", "ray"])
def test_a_request_that_ends_the_model_costs_its_own_row(
    request: pytest.FixtureRequest, where: str, tmp_path: Path, deadly_model: str
) -> None:
    write_tones(tmp_path / "in", 6, 1.0)
    asked = [f"Is there {word} ?" for word in ("rain", DEADLY, "bell", "wind", DEADLY, "dog")]
    lines = [{"uri": str(tmp_path / "in" / f"{at:04d}.wav"), "question": text} for at, text in enumerate(asked)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    more: dict[str, Any] = {}
    if where == "ray":
        more["address"] = request.getfixturevalue("shared_ray")
    settings = CaptionSettings(
        input=str(tmp_path / "list.jsonl"), output=str(tmp_path / "out"), task="QA", model=deadly_model,
        trust_remote_code=True, device="cpu", **more,
    )  # fmt: skip
    result = run_caption(settings)
    assert (result.status, result.errors) == ("complete", {"model_error": 2})
    rows = read_answers(tmp_path / "out")
    for row, question in zip(rows, asked, strict=True):
        assert row["question"] == question
        if DEADLY in question:
            assert row["text"] is None
            reason = "it ended the model's process (exit code 9)"
            assert row["error_message"] == f"the model failed on this row: {reason}"
        else:
            assert row["error_code"] is None and row["text"] is not None
    assert (result.run["ray"] is None) == (where == "here")
    alone = CaptionSettings(**{**settings.model_dump(), "output": str(tmp_path / "alone")})
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines if DEADLY not in x["question"]))
    run_caption(alone)
    names = ("row_id", "entry_id", "run_id")
    well = [row for row in rows if row["error_code"] is None]
    assert without(read_answers(tmp_path / "alone"), *names) == without(well, *names)
