"""JSON files, names and MACS' YAML on small samples in their publishers' layouts, written here."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.corpus.readers.lists import ENDINGS
from tests.pipelines.corpus.published import clips_of, refused, write


def test_vocalsound(tmp_path: Path) -> None:
    """Paths are of its authors' machine; labels are codes that AudioSet gives to other sounds."""
    records = {"data": [{"wav": "/data/sls/vs/audio_16k/f0003_0_throatclearing.wav", "labels": "/m/0dl9sf8"}]}
    labels = 'index,mid,display_name\n0,/m/01j3sz,"Laughter"\n3,/m/0dl9sf8,"Throat clearing"\n'
    files: dict[str, str | bytes] = {
        "vocalsound/datafiles/tr.json": json.dumps(records),
        "vocalsound/class_labels_indices_vs.csv": labels,
    }
    (clip,) = clips_of("vocalsound", write(tmp_path, files))
    assert (clip.id, clip.labels) == ("f0003_0_throatclearing", ("Throat clearing",))
    records["data"][0]["labels"] = "/m/x"
    refused("vocalsound", write(tmp_path, {"vocalsound/datafiles/tr.json": json.dumps(records)}), "tr.json[0]", "/m/x")


WAVCAPS = {
    "FreeSound/fsd_final.json": {"id": "180913", "file_name": "rain.wav", "caption": "Rain is falling."},
    "BBC_Sound_Effects/bbc_final.json": {"id": "NHU05051019", "category": "Nature", "caption": "A bird sings."},
    "SoundBible/sb_final.json": {"id": "2219", "title": "Airplane", "caption": "An airplane is landing."},
    "AudioSet_SL/as_final.json": {"id": "Yb0RFKhbpFJA.wav", "caption": "A dog barks and wind blows."},
}


def test_wavcaps(tmp_path: Path) -> None:
    """Four files, in a fixed order; a number of SoundBible is none of Freesound."""
    files: dict[str, str | bytes] = {
        f"wavcaps/json_files/{name}": json.dumps({"num_captions_per_audio": 1, "data": [record | {"duration": 1.5}]})
        for name, record in WAVCAPS.items()
    }
    clips = clips_of("wavcaps", write(tmp_path, files))
    assert [clip.id for clip in clips] == [
        "freesound/180913", "bbc/NHU05051019", "soundbible/2219", "audioset/Yb0RFKhbpFJA.wav"
    ]  # fmt: skip
    assert clips[3].captions == ("A dog barks and wind blows.",)


def test_a_wavcaps_file_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"wavcaps/json_files/{name}": '{"data": []}' for name in WAVCAPS}
    files["wavcaps/json_files/FreeSound/fsd_final.json"] = '{"data": [{"id": "1", "text": "x"}]}'
    root = write(tmp_path, files)
    refused("wavcaps", root, "fsd_final.json[0]", "no field caption")
    for broken in ("[1, 2]", '{"data": [1]}', '{"data": [{"id": "1", "caption": "a"}', "version https://git-lfs\n"):
        write(tmp_path, {"wavcaps/json_files/FreeSound/fsd_final.json": broken})
        refused("wavcaps", root, "fsd_final.json")


def test_nsynth(tmp_path: Path) -> None:
    """An object of objects, not a list."""
    notes = {
        "bass_synthetic_033-022-050": {
            "note_str": "bass_synthetic_033-022-050", "pitch": 22, "instrument_family_str": "bass",
            "instrument_source_str": "synthetic", "qualities_str": ["dark"], "qualities": [0, 1],
        }
    }  # fmt: skip
    (clip,) = clips_of("nsynth", write(tmp_path, {"nsynth/nsynth-train/examples.json": json.dumps(notes)}))
    assert (clip.id, clip.labels) == ("bass_synthetic_033-022-050", ("bass",))
    refused("nsynth", write(tmp_path, {"nsynth/nsynth-train/examples.json": "[]"}), "a JSON object")


def test_crema_d(tmp_path: Path) -> None:
    """The list of its names, one of which has one X where two are usual; or the names of its audio."""
    table = '"Stimulus_Number","Filename"\n1,"1001_IEO_NEU_XX"\n2,"1040_ITH_SAD_X"\n'
    root = write(tmp_path / "list", {"crema_d/SentenceFilenames.csv": table})
    assert [(clip.id, clip.labels) for clip in clips_of("crema_d", root)] == [
        ("1001_IEO_NEU_XX", ("neutral",)), ("1040_ITH_SAD_X", ("sadness",))
    ]  # fmt: skip
    root = write(tmp_path / "audio", {"crema_d/AudioWAV/1001_DFA_ANG_HI.wav": ""})
    assert [(clip.id, clip.labels) for clip in clips_of("crema_d", root)] == [("1001_DFA_ANG_HI.wav", ("anger",))]


def test_sesa_beijing_opera_gtzan(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "sesa/train/casual_000.wav": "",
        "sesa/test/siren_000.wav": "",
        "beijing_opera/beijing_opera_percussion_instrument_1.0/205963__ajaysm__bangu-12.wav": "",
        "gtzan/genres/hiphop/hiphop.00003.au": "",
    }
    root = write(tmp_path, files)
    assert [clip.labels for clip in clips_of("sesa", root)] == [("casual",)]
    assert [clip.labels for clip in clips_of("beijing_opera", root)] == [("bangu",)]
    assert [(clip.id, clip.labels) for clip in clips_of("gtzan", root)] == [("hiphop.00003.au", ("hiphop",))]
    refused("gtzan", write(tmp_path, {"gtzan/genres/polka/polka.00000.au": ""}), "polka.00000.au")
    refused("sesa", write(tmp_path / "empty", {"sesa/readme.txt": ""}), "has no audio files named as")
    assert ".au" in ENDINGS


def test_macs(tmp_path: Path) -> None:
    text = """files:
- annotations:
  - annotator_id: 354
    sentence: ball game with people running
    tags: [adults_talking, footsteps]
  - annotator_id: 12
    sentence: 'adults talking: nothing else'
    tags: [adults_talking]
  filename: airport-stockholm-12-488-a.wav
"""
    (clip,) = clips_of("macs", write(tmp_path, {"macs/MACS.yaml": text}))
    assert clip.id == "airport-stockholm-12-488-a.wav"
    assert clip.captions == ("ball game with people running", "adults talking: nothing else")
    for broken in ("files: [{filename: a}]", "a: [", "[]"):
        refused("macs", write(tmp_path, {"macs/MACS.yaml": broken}), "MACS.yaml")
