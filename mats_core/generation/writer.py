"""Whoever has prompts gets their answers: callers in any number of threads share the slots of one beam search."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from mats_core.device import free_bytes
from mats_core.generation.beam_search import BeamSearch, Written
from mats_core.generation.fits import fits
from mats_core.generation.generate import generate_by_transformers
from mats_core.generation.graphs import beam_search
from mats_core.generation.settings import DecodingSettings
from mats_core.generation.slots import BESIDE, MOST_SLOTS, PROMPT_TOKENS, choose_slots, llm_sizes

CPU_SLOTS = 64


class Writer:
    """An LLM that answers prompts.

        writer = Writer(causal_lm, bos=1, end=2)
        answers = writer.write(prompts, settings)

    causal_lm: of `transformers`; where the beam loop does not fit it, its own `generate` is used. bos, end: ids of its
    first and last token. Call `write` from several threads, and the slots stay full from one call to the next: each
    caller runs the steps while it waits, for all.
    """

    def __init__(self, causal_lm: Any, *, bos: int | None, end: int) -> None:
        self.causal_lm, self.bos, self.end = causal_lm, bos, end
        self._lock = threading.Lock()
        self._searches: dict[str, _Shared] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but what runs: a copy begins with nothing."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_searches")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _searches={})

    def write(
        self,
        prompts: Sequence[torch.Tensor],
        settings: DecodingSettings,
        *,
        slots: int | None = None,
        keep: int = 1,
    ) -> list[Written]:
        """What the LLM writes after each prompt, at most `max_new_tokens`: a function of the prompt alone.

        prompts: the LLM's input vectors [T, H] of each. slots: prompts answered at once, at most as many as a GPU's
        memory has room for (default: those, or on a CPU 32). keep: how many of a prompt's best answers are given.
        """
        if not prompts:
            return []
        longest = max(len(prompt) for prompt in prompts)
        slots = slots or (CPU_SLOTS if self.causal_lm.device.type == "cpu" else MOST_SLOTS)
        if fits(self.causal_lm, longest + settings.max_new_tokens) is not None:
            found = []
            for at in range(0, len(prompts), slots):
                batch = prompts[at : at + slots]
                found += generate_by_transformers(
                    self.causal_lm, batch, settings, bos=self.bos, end=self.end, keep=keep
                )
            return found
        return self._search(longest, settings, slots, keep).write(prompts)

    def _search(self, longest: int, settings: DecodingSettings, slots: int, keep: int) -> _Shared:
        """The search for these settings: the one that runs, or a new one in place of those that are idle."""
        name = f"{settings.model_dump_json()} {slots} {keep}"
        with self._lock:
            if name not in self._searches:
                self._searches = {key: search for key, search in self._searches.items() if search.busy}
                slots = min(slots, self._room(longest, settings))
                search = beam_search(self.causal_lm, settings, end=self.end, slots=slots, keep=keep)
                self._searches[name] = _Shared(search)
            return self._searches[name]

    def _room(self, longest: int, settings: DecodingSettings) -> int:
        """Slots that the device's memory has room for, beside what else works there."""
        free, sizes = free_bytes(self.causal_lm.device), llm_sizes(self.causal_lm.config.to_dict())
        if free is None or sizes is None:
            return MOST_SLOTS
        answer = (max(longest, PROMPT_TOKENS), settings.max_new_tokens, settings.beams, self.causal_lm.dtype.itemsize)
        return max(1, choose_slots(free - BESIDE, sizes, *answer))


class _Shared:
    """A beam search that any number of threads use at once: one of those that wait makes the next step."""

    def __init__(self, search: BeamSearch) -> None:
        self.search = search
        self._answers: dict[object, Written | BaseException] = {}
        self._changed = threading.Condition()
        self._stepping = False

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return self.search.busy

    def write(self, prompts: Sequence[torch.Tensor]) -> list[Written]:
        """The answers to these prompts; raises what the LLM raised while they were written."""
        keys = [object() for _ in prompts]
        for key, prompt in zip(keys, prompts, strict=True):
            self.search.add(key, prompt)
        with self._changed:
            while not all(key in self._answers for key in keys):
                if self._stepping:
                    self._changed.wait()
                else:
                    self._step()
            found = [self._answers.pop(key) for key in keys]
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, Written)]

    def _step(self) -> None:
        """One step of the search, while the others may look for their answers and bring new prompts."""
        self._stepping = True
        self._changed.release()
        made: list[tuple[Any, Written | BaseException]] = []
        try:
            made += self.search.step()
        except BaseException as error:  # note: whose request it was is not known; all are told
            made += [(key, error) for key in self.search.clear()]
        finally:
            self._changed.acquire()
            self._stepping = False
            self._answers.update(made)
            self._changed.notify_all()
