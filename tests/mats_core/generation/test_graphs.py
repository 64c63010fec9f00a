"""Steps as CUDA graphs: what may be captured, and that replays of captured steps write the same answers."""

from __future__ import annotations

import copy
import logging
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import torch
from torch.utils._pytree import tree_flatten

from mats_core.generation import graphs
from mats_core.generation.beam_search import BeamSearch
from mats_core.generation.graphs import GraphedBeamSearch, beam_search, compile_body
from mats_core.generation.settings import DecodingSettings
from tests.mats_core.generation.random_llms import END, random_llm
from tests.mats_core.generation.tape import NotCapturable, Tape, TapeRecorder

LENGTHS = (5, 9, 2, 7, 11, 3, 6, 8, 4, 10)
SETTINGS = DecodingSettings(beams=4, max_new_tokens=12)


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 32, generator=generator) for length in lengths]


def answered(search: BeamSearch, given: list[torch.Tensor], at_once: int = 3) -> dict[int, Any]:
    """Some requests wait before the first step, the others come one a step."""
    found, waiting = {}, list(enumerate(given))
    for key, prompt in waiting[:at_once]:
        search.add(key, prompt)
    waiting = waiting[at_once:]
    while search.busy or waiting:
        if waiting:
            search.add(*waiting.pop(0))
        found.update(search.step())
    return found


def on_tape(llm: Any, settings: DecodingSettings, slots: int, **others: Any) -> tuple[GraphedBeamSearch, TapeRecorder]:
    """A search whose steps are taped."""

    def state() -> list[torch.Tensor]:
        beams = [value for value in vars(search._beams).values() if isinstance(value, torch.Tensor)]
        kept = [each for layer in search._cache.kept for each in layer]
        return [*beams, *kept, search._mask, search._inputs, search._prompts]

    recorder = TapeRecorder(state)
    search = GraphedBeamSearch(llm, settings, end=END, slots=slots, recorder=recorder, **others)
    return search, recorder


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("beams", [1, 4])
def test_replayed_steps_write_the_same_answers(kind: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are refilled, lengths pass from one graph to the next, and the cache grows in between."""
    monkeypatch.setattr(graphs, "BUCKET", 16)
    llm, settings = random_llm(kind, 60, 1), SETTINGS.model_copy(update={"beams": beams})
    given = prompts((*LENGTHS, 60, 30, 5))  # the longer ones need a larger cache
    plain = answered(BeamSearch(llm, settings, end=END, slots=3), given)
    search, recorder = on_tape(llm, settings, 3)
    replayed = answered(search, given)
    assert {key: each.ids for key, each in replayed.items()} == {key: each.ids for key, each in plain.items()}
    for key, each in plain.items():
        assert replayed[key].logprob_sum == pytest.approx(each.logprob_sum, abs=1e-5)
    assert search.eager is None
    assert recorder.captures >= 2 and recorder.replays > recorder.captures
    assert recorder.forgotten == 2  # before the first, and where the cache grew


def test_a_step_is_what_a_graph_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number goes to the host or comes from it, no shape depends on one, nothing is random: the tape raises.

    On the meta device, where no tensor has numbers, that holds for what a CPU reads and writes unnoticed as well.
    """
    search, recorder = on_tape(random_llm("llama", 60, 1), SETTINGS, 3)
    answered(search, prompts())
    assert (search.eager, search.graphs) == (None, recorder.captures)
    assert recorder.operations > 100

    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # knows no meta device
    llm = copy.deepcopy(random_llm("llama", 60, 1)).to("meta")
    shapes = BeamSearch(llm, SETTINGS, end=END, slots=3)
    with torch.inference_mode():
        shapes._reserve(9, torch.zeros(9, 32, device="meta"))
        shapes._decode(3, shapes._cache.columns, SETTINGS.max_new_tokens)  # makes keys and values
        with Tape() as tape:
            shapes._decode(3, shapes._cache.columns, SETTINGS.max_new_tokens)
    assert len(tape.notes) > 100
    tensors = [each for note in tape.notes for each in tree_flatten(note[1])[0] if isinstance(each, torch.Tensor)]
    assert {each.device.type for each in tensors if each.ndim} == {"meta"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: x.repeat_interleave(torch.ones(2, dtype=torch.int64)),
        lambda x: x + torch.rand(2),
    ],
)
def test_the_tape_refuses_what_a_graph_cannot_hold(wrong: Any) -> None:
    x = torch.ones(2)
    with torch.inference_mode(), pytest.raises(NotCapturable):
        TapeRecorder(list).capture(lambda: wrong(x))


def test_the_tape_plays_with_the_tensors_it_saw() -> None:
    """As a graph does: what is computed anew is seen, a Python number or another tensor in its place is not."""
    x, out, factor = torch.ones(2), torch.zeros(2), 2.0
    recorder = TapeRecorder(lambda: [out])
    replay = recorder.capture(lambda: out.copy_(x * factor))
    assert out.tolist() == [0, 0]
    replay()
    assert out.tolist() == [2, 2]
    x.fill_(5)
    factor = 3.0
    replay()
    assert out.tolist() == [10, 10]


def test_where_capturing_fails_steps_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    llm = random_llm("llama", 60, 1)
    search, recorder = on_tape(llm, SETTINGS, 3)

    def fails(step: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    recorder.capture = fails  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        found = answered(search, prompts())
    plain = answered(BeamSearch(llm, SETTINGS, end=END, slots=3), prompts())
    assert {key: each.ids for key, each in found.items()} == {key: each.ids for key, each in plain.items()}
    assert search.eager == "RuntimeError: operation not permitted when stream is capturing"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_cuda_graphs_are_made_as_pytorch_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run on the side stream, between the work before and after it; then a capture there, into one pool."""
    told: list[Any] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

    graph = create_autospec(torch.cuda.graph)  # refuses arguments that the real one does not take
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("current"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(told.append(f"on {stream.name}")))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: told.append("replay")))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    recorder = graphs.CudaRecorder(torch.device("cuda"))
    recorder.warm(lambda: told.append("step"))
    assert told == ["side waits for current", "on side", "step", "current waits for side"]
    replay = recorder.capture(lambda: told.append("captured"))
    assert told[-1] == "captured"
    replay()
    assert told[-1] == "replay"
    assert graph.call_args.kwargs["pool"] == "pool" and graph.call_args.kwargs["stream"].name == "side"
    assert graph.call_args.kwargs["capture_error_mode"] == "thread_local"


def test_a_gpu_gets_graphs_and_a_cpu_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = random_llm("llama", 60, 1)
    assert type(beam_search(llm, SETTINGS, end=END, slots=2)) is BeamSearch
    monkeypatch.setattr(graphs, "GraphedBeamSearch", lambda causal_lm, settings, **others: (causal_lm, others))
    there = SimpleNamespace(weight=SimpleNamespace(device=torch.device("cuda")))
    on_a_gpu = SimpleNamespace(get_input_embeddings=lambda: there)
    assert beam_search(on_a_gpu, SETTINGS, end=END, slots=2) == (on_a_gpu, {"end": END, "slots": 2, "keep": 1})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("beams", [1, 4])
def test_graphs_on_a_gpu_write_what_the_plain_loop_writes(beams: int) -> None:
    llm, settings = copy.deepcopy(random_llm("llama", 60, 1)).cuda(), SETTINGS.model_copy(update={"beams": beams})
    given = [prompt.cuda() for prompt in prompts((*LENGTHS, 60, 30, 5))]
    plain = answered(BeamSearch(llm, settings, end=END, slots=3), given)
    search = beam_search(llm, settings, end=END, slots=3)
    found = answered(search, given)
    assert isinstance(search, GraphedBeamSearch) and search.eager is None and search.graphs > 0
    assert {key: each.ids for key, each in found.items()} == {key: each.ids for key, each in plain.items()}


def test_compiled_norms_and_mlps_write_the_same_answers() -> None:
    """Traced by dynamo, not compiled: that needs a C++ compiler."""
    plain = random_llm("llama", 60, 7)
    random_llm.cache_clear()
    compiled = random_llm("llama", 60, 7)
    assert compile_body(compiled, backend="eager") == 2 * 3  # of each layer two norms and the MLP
    given = prompts()
    expected = answered(BeamSearch(plain, SETTINGS, end=END, slots=3), given)
    found = answered(BeamSearch(compiled, SETTINGS, end=END, slots=3), given)
    assert {key: each.ids for key, each in found.items()} == {key: each.ids for key, each in expected.items()}
