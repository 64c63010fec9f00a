"""Tasks, their instructions and tags, the prompt the LLM reads, and the answer it writes cleaned up. No torch here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from mats_core.errors import SettingsError

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

# Wordings drawn in training, by label. "fixed" trains on the test instructions alone. "reference" draws one of five a
# family as the authors do: first those recorded of theirs (the test instructions, REFERENCE.md's), then ours.
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "fixed": {task: (INSTRUCTIONS[task],) for task in TASKS if task != "QA"},
    "reference": {
        "caption": (
            INSTRUCTIONS["caption"],
            "Please describe the audio.",
            "Tell me in a sentence what this recording contains.",
            "What would a caption for this sound say?",
            "Put into words what can be heard here.",
        ),
        "cla_label": (
            INSTRUCTIONS["cla_label"],
            "Name the sounds of this clip as tags and nothing else.",
            "Which sound classes does this audio belong to?",
            "Label what you hear, without any sentence.",
            "Give the tags that fit this recording.",
        ),
        "music_caption": (
            INSTRUCTIONS["music_caption"],
            "Give me a description of the music in this clip.",
            "Tell me what this piece of music is like.",
            "How would you describe the music you hear?",
            "Write down what characterises this music.",
        ),
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
        remedy = f"choose {', '.join(TASKS)}, or in corpora {', '.join(FAMILIES)}"
        raise SettingsError("task", f'"{task}" is not a task', remedy)
    return found


def task_name(given: str) -> str:
    """A task as TASKS spells it, however it was written; what is none stays as it is."""
    return next((task for task in TASKS if task.casefold() == given.strip().casefold()), given)


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


def joined_tags(*tags: str) -> str:
    """Several tags as one, without those that are empty."""
    return " ".join(filter(None, tags))


def training_prompt(
    task: str, question: str, tag: str, draw: int, wordings: str = "varied", template: str = PROMPT_TEMPLATE
) -> str:
    """The prompt of one training sample.

    draw: any non-negative integer; it picks the wording (`draw` modulo their number), so that the caller decides by row
    or step. QA asks `question`; so does any other task whose record has one.
    """
    if wordings not in WORDINGS:
        raise SettingsError("wordings", f'there are no wordings "{wordings}"', f"choose one of {', '.join(WORDINGS)}")
    kind = family(task)
    if kind == "QA" or question:
        validate_request(kind, question)
        return format_prompt(question, tag, template)
    choices = WORDINGS[wordings][kind]
    return format_prompt(choices[draw % len(choices)], tag, template)


# Letters and signs whose ASCII is not what their Unicode decomposition leaves, as the reference's unidecode has it.
_PLAIN = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D",
        "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "ħ": "h", "Ħ": "H",
        "ŋ": "ng", "Ŋ": "NG", "ŧ": "t", "Ŧ": "T", "ŉ": "'n",
        "‘": "'", "’": "'", "‚": ",", "‛": "'", "“": '"', "”": '"', "„": ",,", "‟": '"', "«": "<<", "»": ">>",
        "‹": "<", "›": ">", "′": "'", "″": "''", "´": "'", "¨": '"', "¯": "-", "¸": ",", "¡": "!", "¿": "?",
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "--", "―": "--", "…": "...", "•": "*", "·": "*", "¦": "|",
        "†": "+", "‡": "++", "‰": "%0", "§": "SS", "¶": "P", "©": "(c)", "®": "(r)", "™": "(tm)", "№": "No. ",
        "×": "x", "÷": "/", "±": "+-", "−": "-", "¬": "!", "≤": "<=", "≥": ">=", "≠": "", "∼": "~", "µ": "u",
        "←": "-", "→": "-", "↑": "|", "↓": "|",
        "°": "deg", "℃": "degC", "℉": "degF", "€": "EUR", "£": "PS", "¢": "C/", "¥": "Y=", "¤": "$?", "₹": "Rs",
        "♯": "#", "⁄": "/",
        "¼": " 1/4", "½": " 1/2", "¾": " 3/4", "⅓": " 1/3 ", "⅔": " 2/3 ", "⅕": " 1/5 ", "⅖": " 2/5 ", "⅗": " 3/5 ",
        "⅘": " 4/5 ", "⅙": " 1/6 ", "⅚": " 5/6 ", "⅛": " 1/8 ", "⅜": " 3/8 ", "⅝": " 5/8 ", "⅞": " 7/8 ",
    }
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]")


def to_ascii(text: str) -> str:
    """Latin text without accents, common signs spelled out, as the reference's unidecode does; the rest falls away."""
    return unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()


def clean_answer(text: str, style: str = "gentle") -> str:
    """An answer as shown: one space after a comma and none before, runs of space collapsed.

    gentle: accents, other scripts and capitals stay; the first letter becomes a capital, control characters fall away.
    reference: as the authors' release, in ASCII, only the first letter a capital.
    """
    if style == "reference":
        text = to_ascii(text.strip().capitalize())
    elif style == "gentle":
        text = _CONTROL.sub("", unicodedata.normalize("NFC", text)).strip()
        text = text[:1].upper() + text[1:]
    else:
        raise SettingsError("answer_style", f'"{style}" is no style', "choose gentle or reference")
    text = re.sub(r"\s*,(?!\d)\s*", ", ", text) if style == "gentle" else re.sub(r"\s*,\s*", ", ", text)
    return re.sub(r"\s+", " ", text).strip()


def has_surrogate(text: str) -> bool:
    """Whether a text holds what stands for bytes that are not UTF-8, which no file keeps as text."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)
