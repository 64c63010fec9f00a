"""Published questions: OpenAQA and MusicQA."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from pipelines.corpus.clips import Asked, PublishedClip
from pipelines.published.folder import Folder
from pipelines.published.origins import origin_of
from pipelines.published.tables import objects
from pipelines.settings.base import Settings

Found = Iterator[tuple[PublishedClip, dict[str, str]]]
OPEN = "open-ended question"
_VIDEO = re.compile(r"Y?[\w-]{11}(_[\d.]+)*")
_CAPTION = re.compile(r"^\s*audio caption:\s*", re.IGNORECASE)


def read_openaqa(folder: Folder) -> Found:
    """A clip for every open-ended question, with the caption that the file has of its sound, where it has one."""
    definition, path = folder.definition, folder.needed("records")
    captions = {
        record["audio_id"]: _CAPTION.sub("", str(record["output"])).strip()
        for _, record in _asked(folder, path)
        if "caption" in str(record.get("task", ""))
    }
    for index, record in _asked(folder, path):
        if str(record.get("task", OPEN)) != OPEN:
            continue
        audio, question = str(record["audio_id"]), str(record["instruction"]).strip()
        answer = str(record["output"]).strip()
        caption = captions.get(record["audio_id"], "")
        asked = (Asked(question, answer, definition.task),) if question and answer else ()
        told = (caption,) if caption else ()
        yield (
            PublishedClip(str(index), definition.name, definition.split, captions=told, questions=asked),
            _origin(folder, audio, str(record.get("dataset", "")), f"{path}[{index}]"),
        )


def _asked(folder: Folder, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, record in objects(folder, path):
        absent = [name for name in ("instruction", "audio_id", "output") if name not in record]
        if absent:
            raise folder.wrong(f"{path}[{index}]", f"no field {', '.join(absent)} among {', '.join(record)}")
        yield index, record


def _origin(folder: Folder, audio: str, dataset: str, where: str) -> dict[str, str]:
    """Where a clip comes from, by the name of its audio: a video, a number of Freesound, or a file of Clotho."""
    stem = posixpath.splitext(posixpath.basename(audio))[0]
    if stem.isdecimal():
        other = "soundbible" in f"{dataset}/{audio}".lower()  # which numbers its sounds too
        return {} if other else {"freesound": stem}
    found = origin_of(folder, {"audio_id": audio}, where) if _VIDEO.fullmatch(stem) else {}
    return {**found, "name": stem}


class MusicQaOptions(Settings):
    """Which of its questions asks for a caption."""

    caption: list[str] = Field(
        min_length=1, description="Questions whose answers stand for the sound, the first first."
    )


def read_musicqa(folder: Folder) -> Found:
    """The clips of a file of conversations; those of a clip stand together."""
    definition, path, options = folder.definition, folder.needed("records"), folder.options(MusicQaOptions)
    name: str | None = None
    questions: list[Asked] = []
    for index, record in objects(folder, path):
        where = f"{path}[{index}]"
        try:
            said = [str(turn["value"]).strip() for turn in record["conversation"]]
            audio, speakers = str(record["audio_name"]), [turn["from"] for turn in record["conversation"]]
        except (KeyError, TypeError):
            problem = "not an audio_name and a conversation of `from` and `value`"
            raise folder.wrong(where, problem) from None
        if speakers != ["human", "gpt"]:
            raise folder.wrong(where, f"a conversation of {', '.join(map(str, speakers))}, not of human and gpt")
        if name is not None and audio != name:
            yield _music_clip(name, questions, definition, options)
            questions = []
        name = audio
        if all(said):
            questions.append(Asked(said[0], said[1], definition.task))
    if name is not None:
        yield _music_clip(name, questions, definition, options)


def _music_clip(
    name: str, questions: list[Asked], definition: Any, options: MusicQaOptions
) -> tuple[PublishedClip, dict[str, str]]:
    answers = {each.question: each.answer for each in reversed(questions)}
    captions = tuple(answers[each] for each in options.caption if each in answers)[:1]
    clip = PublishedClip(name, definition.name, definition.split, captions=captions, questions=tuple(questions))
    return clip, {}
