"""Prometheus counters of a run, through ray.util.metrics: every node of Ray serves them on its metrics port.

| name | labels | |
|---|---|---|
| mats_clips_total | job | rows that were new, each counted once |
| mats_audio_seconds_total | job | seconds of sound in them |
| mats_errors_total | job, code | rows with an error |
| mats_tokens_total | job | tokens the LLM wrote |
| mats_stage_seconds_total | job, stage | seconds of work in decode, embed, answer, over all processes |
| mats_batch_asked_total | job | questions put to the LLM |
| mats_batch_places_total | job | places in the batches they went in; asked / places is the fill |
| mats_batch_fill | job | that ratio for the newest block |

The driver counts, because it alone knows which rows are new. (Ray puts `ray_` before the names.)
"""

from __future__ import annotations

from typing import Any


class Counters:
    """The counters of one run; made when a Ray is connected."""

    def __init__(self, job: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._job = {"job": job}

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counter(f"mats_{name}_total", text, tag_keys=("job", *labels))

        self._clips = counter("clips", "rows that were new")
        self._audio = counter("audio_seconds", "seconds of sound in new rows")
        self._errors = counter("errors", "new rows with an error, by code", "code")
        self._tokens = counter("tokens", "tokens the LLM wrote")
        self._stages = counter("stage_seconds", "seconds of work, over all processes", "stage")
        self._asked = counter("batch_asked", "questions put to the LLM")
        self._places = counter("batch_places", "places in the batches of the LLM")
        self._fill = Gauge("mats_batch_fill", "share of places that held a question, newest block", tag_keys=("job",))

    def rows(self, count: int, audio_s: float, errors: dict[str, int]) -> None:
        """New rows, their seconds of sound, and how many of them have which error code."""
        self._clips.inc(count, self._job)
        if audio_s > 0:
            self._audio.inc(audio_s, self._job)
        for code, number in errors.items():
            self._errors.inc(number, {**self._job, "code": code})

    def work(self, seconds: dict[str, float], counts: dict[str, float]) -> None:
        """Work on one block: seconds by stage; tokens, asked and places."""
        for stage, spent in seconds.items():
            if spent > 0:
                self._stages.inc(spent, {**self._job, "stage": stage})
        for counter, name in ((self._tokens, "tokens"), (self._asked, "asked"), (self._places, "places")):
            if counts.get(name, 0) > 0:
                counter.inc(counts[name], self._job)
        if counts.get("places", 0) > 0:
            self._fill.set(counts["asked"] / counts["places"], self._job)
