"""OpenAQA and MusicQA on small samples in their publishers' layouts, written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.corpus.readers.questions import OPEN
from pipelines.corpus.reading import Tally
from tests.pipelines.corpus.published import clips_of, refused, write


def asked(audio: str, question: str, answer: str, **more: str) -> dict[str, str]:
    return {"instruction": question, "input": "", "audio_id": audio, "output": answer, **more}


def test_openaqa(tmp_path: Path) -> None:
    """What stands for a sound: its own caption, that of its video in AudioCaps, of its file in Clotho; else nothing."""
    video, other = "/data/sls/audioset/dave_version/audio/LZq4Neh-oWU.flac", "/data/sls/audioset/audio/r1nicOVtvkQ.flac"
    records = [
        asked(video, "Write an audio caption.", "Audio caption: A baby cries.", task="caption", dataset="audiocaps"),
        asked(video, "Why does it cry?", "It is hungry.", task=OPEN, dataset="as_strong_train"),
        asked(other, "Where is it?", "In a kitchen."),
        asked("/x/clotho/development/Creaky door.wav", "What creaks?", "A door.", task=OPEN, dataset="clotho"),
        asked("/x/soundbible/2219.flac", "What lands?", "An airplane.", task=OPEN, dataset="soundbible"),
    ]
    captions = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nCreaky door.wav,A door creaks.,B,C,D,E\n"
    metadata = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    root = write(
        tmp_path,
        {
            "openaqa/openaqa_5.6M.json": json.dumps(records),
            "audiocaps/train.csv": "audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,130,Water pours\n",
            "clotho/clotho_captions_development.csv": captions,
            "clotho/clotho_metadata_development.csv": metadata,
        },
    )
    tally = Tally()
    clips = clips_of("openaqa", root, tally=tally)
    assert [(clip.captions[0], clip.questions[0].question, clip.questions[0].answer) for clip in clips] == [
        ("A baby cries.", "Why does it cry?", "It is hungry."),
        ("Water pours", "Where is it?", "In a kitchen."),
        ("A door creaks.", "What creaks?", "A door."),
    ]
    assert (tally.clips, tally.silent, clips[0].id) == (4, 1, "1")
    refused("openaqa", write(tmp_path, {"openaqa/openaqa_5.6M.json": '[{"question": "x"}]'}), "no field instruction")


def test_musicqa(tmp_path: Path) -> None:
    """Nine questions a clip, of which one asks for the caption that stands for the sound."""

    def said(name: str, question: str, answer: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"audio_name": name, "conversation": turns}

    records = [
        said("005521.wav", "Describe the audio", "A harpsichord plays."),
        said("005521.wav", " What instrument is it?", " A harpsichord."),
        said("005522.wav", "Describe the audio in detail", "A choir sings slowly."),
        said("005523.wav", "How does it sound?", "Loud."),
    ]
    name = "musicqa/FinetuneMusicQA.json"
    tally = Tally()
    first, second = clips_of("musicqa", write(tmp_path, {name: json.dumps(records)}), tally=tally)
    assert (first.id, first.captions) == ("005521.wav", ("A harpsichord plays.",))
    assert [(each.question, each.answer) for each in first.questions][1] == ("What instrument is it?", "A harpsichord.")
    assert (second.captions, tally.silent) == (("A choir sings slowly.",), 1)
    records.append(said("005521.wav", "Again?", "Yes."))
    refused("musicqa", write(tmp_path, {name: json.dumps(records)}), "005521.wav comes twice")
    refused("musicqa", write(tmp_path, {name: json.dumps([{"audio_name": "a"}])}), "FinetuneMusicQA.json[0]")
