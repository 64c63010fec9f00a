"""The beam loop on a GPU: its step as CUDA graphs, one for each length of the cache that is looked at.

A step of a 7 B LLM is some two thousand kernels, and each costs the CPU more to launch than the GPU to run. A graph
launches all of them at once. It replays the same kernels on the same addresses with the same numbers, so a step may be
captured where it reads and writes only tensors that stay where they are, takes its shapes from a few numbers, transfers
nothing to the host and draws no random number. `BeamSearch._decode` is such a step; the tests hold it to that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

from mats_core.generation.beam_search import BeamSearch
from mats_core.generation.settings import DecodingSettings

log = logging.getLogger(__name__)

BUCKET = 64
"""Columns of the cache by which the lengths of graphs differ: at most that many are looked at in vain."""
Step = Callable[[], None]


class Recorder(Protocol):
    """What captures a step. `CudaRecorder` does it; tests have one for a CPU."""

    def warm(self, step: Step) -> None:
        """Run a step as it is, where it will be captured: kernels are loaded, libraries take their memory."""

    def capture(self, step: Step) -> Step:
        """A step without running it; what runs it as often as one likes."""

    def forget(self) -> None:
        """Nothing captured so far will run again."""


class CudaRecorder:
    """CUDA graphs on a stream of their own. They share memory: no two run at once, nothing in it is read afterwards."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.forget()

    def forget(self) -> None:
        """The graphs to come share memory of their own; that of graphs which are gone is given back with them."""
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, step: Step) -> None:
        """Run `step` on the stream of the captures, in its place among the work of the current stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step()
        current.wait_stream(self.stream)

    def capture(self, step: Step) -> Step:
        """`step` as a graph. What other threads do to the GPU meanwhile (a copy, memory) does not disturb it."""
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                step()
        return graph.replay


class GraphedBeamSearch(BeamSearch):
    """`BeamSearch` whose steps are replayed. All slots take part in every step, so that shapes stay the same.

    The first step of a length runs as it is, the second is captured. Where capturing fails, `eager` says why, once in
    the log too, and steps run as they are from then on. Other arguments are those of `BeamSearch`.
    """

    def __init__(
        self,
        causal_lm: Any,
        settings: DecodingSettings,
        *,
        end: int,
        slots: int,
        keep: int = 1,
        look_every: int | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(causal_lm, settings, end=end, slots=slots, keep=keep, look_every=look_every)
        self.eager: str | None = None
        self._recorder = recorder or CudaRecorder(self.device)
        self._captured: dict[Hashable, Step | None] = {}  # None: it has run as it is
        self._held = 0  # columns of the cache that the graphs were captured with

    @property
    def graphs(self) -> int:
        """How many lengths are captured."""
        return sum(step is not None for step in self._captured.values())

    def _decode(self, rows: int, columns: int, width: int) -> None:
        if self._held != self._cache.columns:  # it has grown: mask, keys and values lie elsewhere now
            self._captured.clear()
            self._recorder.forget()
            self._held = self._cache.columns
        columns = min(columns + -columns % BUCKET, self._cache.columns)
        rows, width = self.slots, self.settings.max_new_tokens

        def step() -> None:
            BeamSearch._decode(self, rows, columns, width)

        if self.eager is not None:
            step()
        elif columns not in self._captured:
            self._recorder.warm(step)
            self._captured[columns] = None
        else:
            self._replayed(columns, step)

    def _replayed(self, columns: int, step: Step) -> None:
        replay = self._captured[columns]
        if replay is None:
            try:
                replay = self._recorder.capture(step)
            except Exception as error:  # of CUDA, of its memory, or of a library that may not be captured
                self.eager = f"{type(error).__name__}: {error}"
                self._captured.clear()
                log.warning("steps are not captured as CUDA graphs, which costs speed alone: %s", self.eager)
                step()
                return
            self._captured[columns] = replay
        replay()


def beam_search(causal_lm: Any, settings: DecodingSettings, *, end: int, slots: int, keep: int = 1) -> BeamSearch:
    """The beam loop as it is fastest on the LLM's device: on a GPU with graphs. See `BeamSearch`."""
    on_gpu = causal_lm.get_input_embeddings().weight.device.type == "cuda"
    return (GraphedBeamSearch if on_gpu else BeamSearch)(causal_lm, settings, end=end, slots=slots, keep=keep)


def compile_body(causal_lm: Any, backend: str = "inductor") -> int:
    """Let torch compile what each decoder layer computes token by token (its norms and its MLP), in place; how many.

    Their many thin kernels become few. Attention and the cache stay as they are. Answers may differ in the last bits
    of half precision, so it is asked for, never chosen.
    """
    parts = [
        module
        for layer in causal_lm.base_model.layers
        for name, module in layer.named_children()
        if name == "mlp" or "norm" in name
    ]
    for part in parts:
        part.compile(backend=backend, dynamic=True)
    return len(parts)
