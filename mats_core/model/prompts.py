"""Tasks, their instructions and tags, and the prompt the LLM reads. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mats_core.errors import SettingsError
from mats_core.model.text import has_surrogate

SPEECH = "<SpeechHere>"
PROMPT_TEMPLATE = "USER: <Speech><SpeechHere></Speech> {request}\nASSISTANT:"
TASKS = ("caption", "cla_label", "music_caption", "QA")

# What is asked at inference (reference: its test instructions).
INSTRUCTIONS = {
    "caption": "Describe the following audio in a caption.",
    "cla_label": "Identify the sounds in the audio clip, only display audio tags.",
    "music_caption": "Listen to this music clip and describe the music.",
    "QA": "",
}

# Names a corpus record's `task` may have, and the prompt family each belongs to.
FAMILIES = {
    "audiocaption": "caption",
    "caption": "caption",
    "cla_label": "cla_label",
    "instrument_label": "cla_label",
    "genres_label": "cla_label",
    "vocal_label": "cla_label",
    "scene_label": "cla_label",
    "emotion event": "cla_label",
    "audio_qa": "QA",
    "open-ended question": "QA",
    "qa": "QA",
    "musiccaption": "music_caption",
    "music_caption": "music_caption",
    "music_description": "music_caption",
    "captioning": "music_caption",
}

# Wordings drawn in training, by label. "fixed" trains on the test instructions alone.
# "reference" is what is recorded of theirs.
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "fixed": {task: (INSTRUCTIONS[task],) for task in TASKS if task != "QA"},
    "reference": {
        "caption": (INSTRUCTIONS["caption"], "Please describe the audio."),
        "cla_label": (INSTRUCTIONS["cla_label"],),
        "music_caption": (INSTRUCTIONS["music_caption"], "Give me a description of the music in this clip."),
    },
    "varied": {
        "caption": (
            INSTRUCTIONS["caption"],
            "Please describe the audio.",
            "Say in one sentence what can be heard.",
            "What is happening in this recording?",
            "Write a caption for the sound.",
        ),
        "cla_label": (
            INSTRUCTIONS["cla_label"],
            "List the sounds you hear as tags.",
            "Name every sound source, tags only.",
            "Which sound events occur here? Give labels only.",
        ),
        "music_caption": (
            INSTRUCTIONS["music_caption"],
            "Give me a description of the music in this clip.",
            "Describe this piece of music.",
            "How does this music sound?",
        ),
    },
}


def family(task: str) -> str:
    """The prompt family of a record's task name; SettingsError for one that is not known."""
    found = FAMILIES.get(task.strip().lower())
    if found is None:
        raise SettingsError(
            "task", f'"{task}" is not a task', f"choose {', '.join(TASKS)}, or in corpora {', '.join(FAMILIES)}"
        )
    return found


def default_tasks() -> dict[str, dict[str, str]]:
    """Instruction and tag of each task, as `mats.json` stores them."""
    return {task: {"instruction": INSTRUCTIONS[task], "tag": ""} for task in TASKS}


def validate_request(
    task: str, question: str | None, tasks: Mapping[str, Any] | Sequence[str] = TASKS, tag: str | None = None
) -> None:
    """Raise SettingsError for an unknown task, QA without a question, or a text that holds the sound's place."""
    if task not in tasks:
        raise SettingsError("task", f'"{task}" is not a task', f"choose {', '.join(tasks)}")
    if task == "QA" and not (question and question.strip()):
        raise SettingsError("question", "task QA needs a question, and there is none", "ask one")
    for name, text in (("question", question), ("tag", tag)):
        if text and SPEECH in text:
            raise SettingsError(name, f'"{text}" holds {SPEECH}, which stands for the sound', "leave it out")
        if text and has_surrogate(text):
            shown = text.encode("utf-8", "backslashreplace").decode()
            raise SettingsError(name, f'"{shown}" is not text in UTF-8', "write it in UTF-8")


def format_prompt(instruction: str, tag: str = "", template: str = PROMPT_TEMPLATE) -> str:
    """The whole prompt, with `<SpeechHere>` where the vectors go: tag (when there is one), then instruction."""
    request = f"{tag} {instruction}" if tag else instruction
    return template.replace("{request}", request)


def training_prompt(
    task: str, question: str, tag: str, draw: int, wordings: str = "varied", template: str = PROMPT_TEMPLATE
) -> str:
    """The prompt of one training sample.

    draw: any non-negative integer; it picks the wording (`draw` modulo their number), so that the caller
    decides by row or step. QA asks `question`; so does any other task whose record has one.
    """
    if wordings not in WORDINGS:
        raise SettingsError("wordings", f'there are no wordings "{wordings}"', f"choose one of {', '.join(WORDINGS)}")
    kind = family(task)
    if kind == "QA" or question:
        validate_request(kind, question)
        return format_prompt(question, tag, template)
    choices = WORDINGS[wordings][kind]
    return format_prompt(choices[draw % len(choices)], tag, template)
