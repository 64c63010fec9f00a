"""Which clips records are made of: those that no evaluation set asks, of the release that is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mats_core.errors import SettingsError
from pipelines.corpus.definition import CorpusSet, load_corpus_set
from pipelines.corpus.reading import Tally, find_asked, fingerprint, missing, read_clips, unchecked
from pipelines.evaluate.datasets import load_evaluation_set
from pipelines.evaluate.datasets.asked import asked_ids
from tests.pipelines.corpus.published import clips_of, refused, write

AUDIOCAPS_TEST = "audiocap_id,youtube_id,start_time,caption\n103549,b0RFKhbpFJA,30,Wind blows as a dog barks\n"
CLOTHO_EVALUATION = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nRain.wav,A,B,C,D,E\n"
CLOTHO_ORIGIN = (
    "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    'Rain.wav,rain,180913,https://freesound.org/people/x/sounds/180913,"[0, 4]",x,CC0\n'
)
CLOTHOAQA_TEST = "file_name,QuestionText,answer,confidence\nSea.wav,Is it the sea?,yes,yes\n"
CLOTHOAQA_ORIGIN = (
    ",file_name,keywords,sound_link,start_end_samples,manufacturer,license\n"
    '0,Sea.wav,sea,https://freesound.org/people/x/sounds/64760,"[0, 4]",x,CC0\n'
    '1,Train.wav,train,https://freesound.org/people/x/sounds/16399,"[0, 4]",x,CC0\n'
)
EVALUATION: dict[str, str | bytes] = {
    "audiocaps/test.csv": AUDIOCAPS_TEST,
    "clotho/clotho_captions_evaluation.csv": CLOTHO_EVALUATION,
    "clotho/clotho_metadata_evaluation.csv": CLOTHO_ORIGIN,
    "clothoaqa/clotho_aqa_test.csv": CLOTHOAQA_TEST,
    "clothoaqa/clotho_aqa_metadata.csv": CLOTHOAQA_ORIGIN,
}
STRONG = (
    "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    "b0RFKhbpFJA_30000\t5.100\t10.000\t/m/05tny_\n"
    "--4gqARaEJE_0\t0.000\t0.500\t/m/05tny_\n"
)
FSD50K = "fname,labels,mids,split\n" + "".join(f"{n},Bark,/m/05tny_,train\n" for n in (180913, 64760, 16399, 5))


def test_what_evaluation_asks_is_left_out_of_other_sets_by_its_id(tmp_path: Path) -> None:
    """AudioCaps in AudioSet, Clotho and ClothoAQA in FSD50K, all of them in WavCaps. What a set trains on itself does
    not count: a clip of ClothoAQA's training part stays."""
    wavcaps = {
        "FreeSound/fsd_final": [("180913", "Rain."), ("7", "Birds.")],
        "BBC_Sound_Effects/bbc_final": [("64760", "A number that is none of Freesound.")],
        "SoundBible/sb_final": [("180913", "Another.")],
        "AudioSet_SL/as_final": [("Yb0RFKhbpFJA.wav", "Wind."), ("Y--4gqARaEJE.wav", "A dog.")],
    }
    files = EVALUATION | {
        "audioset_strong/audioset_train_strong.tsv": STRONG,
        "audioset_strong/mid_to_display_name.tsv": "/m/05tny_\tBark\n",
        "fsd50k/FSD50K.ground_truth/dev.csv": FSD50K,
    }
    for name, records in wavcaps.items():
        data = [{"id": number, "caption": text} for number, text in records]
        files[f"wavcaps/json_files/{name}.json"] = json.dumps({"data": data})
    root = write(tmp_path, files)
    tally = Tally()
    assert [clip.id for clip in clips_of("audioset_strong", root, tally=tally)] == ["--4gqARaEJE_0"]
    assert (tally.clips, tally.used, tally.left_out) == (2, 1, {"audiocaps": 1})
    tally = Tally()
    assert [clip.id for clip in clips_of("fsd50k", root, tally=tally)] == ["16399", "5"]
    assert sum(tally.left_out.values()) == 2 and tally.left_out["clotho_v2"] == 1
    tally = Tally()
    assert [clip.id for clip in clips_of("wavcaps", root, tally=tally)] == [
        "freesound/7", "bbc/64760", "soundbible/180913", "audioset/Y--4gqARaEJE.wav"
    ]  # fmt: skip
    assert tally.left_out == {"clotho_v2": 1, "audiocaps": 1}


def test_ids_are_those_of_the_part_that_is_asked(tmp_path: Path) -> None:
    """ClothoAQA's metadata has all its clips; VGGSound's table the training part too."""
    files = EVALUATION | {
        "vggsound/vggsound.csv": "---g-f_I2yQ,1,people marching,test\nabcdefghijk,300,yodelling,train\n"
    }
    root = write(tmp_path, files)
    assert asked_ids(load_evaluation_set("clothoaqa_v1"), root) == {"freesound": {"64760"}}
    assert asked_ids(load_evaluation_set("vggsound"), root) == {"youtube": {"---g-f_I2yQ"}}
    assert asked_ids(load_evaluation_set("esc50"), root) is None


def test_what_could_not_be_compared_is_known(tmp_path: Path) -> None:
    """Evaluation sets whose files are not there, or that do not tell where their clips come from."""
    root = write(tmp_path, {"fsd50k/FSD50K.ground_truth/dev.csv": FSD50K})
    definition = load_corpus_set("fsd50k")
    assert unchecked(definition, root, find_asked(root)) == [
        "clotho_v2", "clothoaqa_v1", "clothoaqa_v2", "esc50", "urbansound8k"
    ]  # fmt: skip
    write(tmp_path, EVALUATION)
    assert unchecked(definition, root, find_asked(root)) == ["esc50", "urbansound8k"]
    (tmp_path / "clotho/clotho_metadata_evaluation.csv").unlink()
    assert "clotho_v2" in unchecked(definition, root, find_asked(root))
    write(tmp_path, {"clotho/clotho_captions_development.csv": CLOTHO_EVALUATION})
    assert "clothoaqa_v1" in unchecked(load_corpus_set("clotho"), root, find_asked(root))


def test_a_set_that_is_asked_whole_keeps_its_clips_but_not_those_of_others(tmp_path: Path) -> None:
    """ESC-50 is evaluated on all its folds; what UrbanSound8K asks is left out of it, and the other way round."""
    esc50 = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-5-A-0.wav,1,0,dog,True,5,A\n"
    )
    urban = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark\n7-3-0-0.wav,7,0.0,0.3,1,5,3,dog_bark\n"
    )
    root = write(tmp_path, {"esc50/meta/esc50.csv": esc50, "urbansound8k/metadata/UrbanSound8K.csv": urban})
    assert [clip.id for clip in clips_of("esc50", root)] == ["1-5-A-0.wav"]
    assert [clip.id for clip in clips_of("urbansound8k", root)] == ["7-3-0-0.wav"]


def test_another_release_is_refused(tmp_path: Path) -> None:
    """By the number of clips that it is known to have, or for more than the set has."""
    definition = load_corpus_set("audiocaps")
    rows = "".join(f"{n},r1nicOVtvkQ,{n},Water pours\n" for n in range(7))
    root = write(tmp_path, {"audiocaps/train.csv": f"audiocap_id,youtube_id,start_time,caption\n{rows}"})

    def read(**changes: object) -> int:
        return len(list(read_clips(definition.model_copy(update=changes), root, find_asked(root), Tally())))

    assert read() == 7
    with pytest.raises(SettingsError, match=r"7 clips, as AudioCaps 2\.0 has; 9 clips are expected"):
        read(other_releases={7: "AudioCaps 2.0"}, clips=9)
    with pytest.raises(SettingsError, match="more than it has; 5 clips are expected"):
        read(clips=5)


def test_a_label_of_another_set_is_refused(tmp_path: Path) -> None:
    table = "fname,labels,mids,split\n1,Polka,/m/x,train\n"
    refused(
        "fsd50k", write(tmp_path, {"fsd50k/FSD50K.ground_truth/dev.csv": table}), "label of 1", '"Polka"', "200 labels"
    )


def test_missing_files_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    definition = load_corpus_set("audioset_strong")
    (sentence,) = missing(definition, str(tmp_path))
    assert sentence.startswith("no folder audioset_strong/. Get it: https://research.google.com")
    root = write(tmp_path, {"audioset_strong/audioset_train_strong.tsv": STRONG})
    (sentence,) = missing(definition, root)
    assert sentence.startswith("audioset_strong/mid_to_display_name.tsv is not there.")


def test_a_fingerprint_changes_with_the_files_and_with_what_evaluation_asks(tmp_path: Path) -> None:
    root = write(tmp_path, {"fsd50k/FSD50K.ground_truth/dev.csv": FSD50K})
    definition: CorpusSet = load_corpus_set("fsd50k")
    first = fingerprint(definition, root, find_asked(root))
    assert fingerprint(definition, root, find_asked(root)) == first
    write(tmp_path, EVALUATION)
    second = fingerprint(definition, root, find_asked(root))
    write(tmp_path, {"fsd50k/FSD50K.ground_truth/dev.csv": FSD50K + "9,Bark,/m/05tny_,train\n"})
    assert len({first, second, fingerprint(definition, root, find_asked(root))}) == 3
