"""Every reader on a small sample in its publisher's layout, written here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mats_core.scoring import Item
from pipelines.evaluate.datasets import list_evaluation_sets, load_evaluation_set, load_items, missing


def write(root: Path, files: dict[str, str | bytes]) -> str:
    """Files below a folder; audio is a name with nothing in it, which readers do not open."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def items_of(name: str, root: str) -> dict[str, Item]:
    definition = load_evaluation_set(name)
    assert missing(definition, root) == []
    data = load_items(definition, root)
    assert data.left_out == []
    for item in data.items:
        assert Path(item.uri).is_file() and item.task == definition.task and item.tag == definition.tag
    return {item.item_id: item for item in data.items}


def test_audiocaps(tmp_path: Path) -> None:
    lines = "\n".join(
        f"{number},{clip},{start},{text}"
        for number, clip, start, text in [
            (1, "-abc_DEF123", 30, "a man speaks"),
            (3, "xyz", 0, '"rain, then thunder"'),
            (2, "-abc_DEF123", 30, "speech"),
        ]
    )
    root = write(
        tmp_path,
        {
            "audiocaps/test.csv": f"audiocap_id,youtube_id,start_time,caption\n{lines}\n",
            "audiocaps/audio/-abc_DEF123.flac": "",
            "audiocaps/audio/xyz_0.wav": "",
        },
    )
    items = items_of("audiocaps", root)
    assert items["-abc_DEF123_30"].references == ("a man speaks", "speech")
    assert items["xyz_0"].references == ("rain, then thunder",) and items["xyz_0"].uri.endswith("xyz_0.wav")
    assert items["xyz_0"].tag == "[audio caption audiocaps]"


def test_clotho(tmp_path: Path) -> None:
    table = (
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\r\n"
        'Santa Motor.wav,"A machine whines, and stops.",B,C,D,E\r\n'
    )
    root = write(
        tmp_path,
        {"clotho/clotho_captions_evaluation.csv": table, "clotho/evaluation/Santa Motor.wav": ""},
    )
    item = items_of("clotho_v2", root)["Santa Motor.wav"]
    assert item.references == ("A machine whines, and stops.", "B", "C", "D", "E")


def test_musiccaps(tmp_path: Path) -> None:
    header = (
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval"
    )
    table = (
        f'{header}\n-0Gj,30,40,"/m/0140xf,/m/02cjck","[\'low\']","Two lines\nof a song.",4,False,True\n'
        "-0vP,30,40,/m/04rlf,['x'],Not evaluated.,4,False,False\n"
    )
    root = write(tmp_path, {"musiccaps/musiccaps-public.csv": table, "musiccaps/audio/[-0Gj]-[30-40].wav": ""})
    items = items_of("musiccaps", root)
    assert list(items) == ["-0Gj_30"] and items["-0Gj_30"].references == ("Two lines\nof a song.",)


def test_esc50(tmp_path: Path) -> None:
    table = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
    )
    root = write(
        tmp_path,
        {"esc50/meta/esc50.csv": table, "esc50/audio/1-100032-A-0.wav": "", "esc50/audio/1-100038-A-14.wav": ""},
    )
    assert items_of("esc50", root)["1-100038-A-14.wav"].labels == ("chirping_birds",)
    labels = load_items(load_evaluation_set("esc50"), root).labels
    assert labels.names == ("chirping_birds", "dog") and labels.spoken[0] == "chirping birds"
    assert labels.texts[1] == "This is a sound of dog."


def test_vggsound(tmp_path: Path) -> None:
    table = '---g-f_I2yQ,1,"male speech, man speaking",test\n--0PQM4-hqg,30,waterfall burbling,train\n'
    root = write(tmp_path, {"vggsound/vggsound.csv": table, "vggsound/audio/---g-f_I2yQ_000001.mp4": ""})
    items = items_of("vggsound", root)
    assert list(items) == ["---g-f_I2yQ_000001"] and items["---g-f_I2yQ_000001"].labels == (
        "male speech, man speaking",
    )
    assert "waterfall burbling" in load_items(load_evaluation_set("vggsound"), root).labels.names


def test_urbansound8k(tmp_path: Path) -> None:
    table = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    )
    root = write(
        tmp_path,
        {"urbansound8k/metadata/UrbanSound8K.csv": table, "urbansound8k/audio/fold5/100032-3-0-0.wav": ""},
    )
    assert items_of("urbansound8k", root)["100032-3-0-0.wav"].labels == ("dog_bark",)


@pytest.mark.parametrize("name", ["evaluation_setup/evaluate.txt", "meta.txt"])
def test_tut2017(tmp_path: Path, name: str) -> None:
    table = "audio/1245.wav\tcafe/restaurant\tb020\r\naudio/1519.wav\ttrain\t\r\n"
    root = write(
        tmp_path,
        {
            f"tut2017/{name}": table,
            "tut2017/audio/1245.wav": "",
            "tut2017/audio/1519.wav": "",
        },
    )
    assert [item.labels[0] for item in items_of("tut2017", root).values()] == ["cafe/restaurant", "train"]


def test_dcase2017(tmp_path: Path) -> None:
    table = (
        "-7DZY_30.000_40.000.wav\t30.000\t40.000\tAmbulance (siren)\n"
        "-7DZY_30.000_40.000.wav\t30.000\t40.000\tAir horn, truck horn\n"
        "z5uK_30.000_40.000.wav\t30.000\t40.000\tTrain\n"
    )
    root = write(
        tmp_path,
        {
            "dcase2017/groundtruth_weak_label_evaluation_set.csv": table,
            "dcase2017/audio/Y-7DZY_30.000_40.000.wav": "",
            "dcase2017/audio/z5uK_30.000_40.000.wav": "",
        },
    )
    items = items_of("dcase2017", root)
    assert items["-7DZY_30.000_40.000.wav"].labels == ("Ambulance (siren)", "Air horn, truck horn")
    assert len(load_items(load_evaluation_set("dcase2017"), root).labels) == 17


def test_fsd50k(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "fsd50k/FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Guitar,Music","/m/0342h,/m/04rlf"\n',
            "fsd50k/FSD50K.ground_truth/vocabulary.csv": "0,Accelerating_and_revving_and_vroom,/m/07q2z82\n"
            "1,Guitar,/m/0342h\n2,Music,/m/04rlf\n",
            "fsd50k/FSD50K.eval_audio/37199.wav": "",
        },
    )
    assert items_of("fsd50k", root)["37199"].labels == ("Guitar", "Music")
    labels = load_items(load_evaluation_set("fsd50k"), root).labels
    assert labels.names[0] == "Accelerating_and_revving_and_vroom" and len(labels) == 3


def test_vocalsound(tmp_path: Path) -> None:
    data = {"data": [{"wav": "/data/vs/audio_16k/f0003_0_throatclearing.wav", "labels": "/m/0dl9sf8"}]}
    root = write(
        tmp_path,
        {
            "vocalsound/datafiles/te.json": json.dumps(data),
            "vocalsound/class_labels_indices_vs.csv": 'index,mid,display_name\n0,/m/01j3sz,"Laughter"\n'
            '3,/m/0dl9sf8,"Throat clearing"\n',
            "vocalsound/audio_16k/f0003_0_throatclearing.wav": "",
        },
    )
    item = items_of("vocalsound", root)["f0003_0_throatclearing.wav"]
    assert item.labels == ("Throat clearing",)
    assert load_items(load_evaluation_set("vocalsound"), root).labels.spoken == ("laughter", "throat clearing")


@pytest.mark.parametrize(
    ("name", "files", "labels"),
    [
        ("sesa", ["test/casual_001.wav", "test/gunshot_012.wav", "train/siren_001.wav"], ["casual", "gunshot"]),
        (
            "ravdess",
            ["Actor_01/03-01-06-01-02-01-01.wav", "Actor_24/03-01-02-01-01-02-24.wav", "S/03-02-01-01-01-01-01.wav"],
            ["fearful", "calm"],
        ),
        (
            "beijing_opera",
            ["beijing_opera_percussion_instrument_1.0/205_ajaysm__bangu-12.wav", "p/xiaoluo3.wav", "readme.txt"],
            ["bangu", "xiaoluo"],
        ),
        ("gtzan", ["genres/blues/blues.00000.au", "genres_original/hiphop/hiphop.00007.wav"], ["blues", "hiphop"]),
    ],
)
def test_labels_in_names(tmp_path: Path, name: str, files: list[str], labels: list[str]) -> None:
    root = write(tmp_path, {f"{name}/{path}": "" for path in files})
    assert sorted(item.labels[0] for item in items_of(name, root).values()) == sorted(labels)


def clotho_aqa(tmp_path: Path) -> str:
    answers = [("Is it wet?", ("yes", "Yes", "no")), ("What barks?", ("dog",) * 3), ("Where?", ("a", "b", "c"))]
    lines = [f"x.wav,{q},{a},yes" for q, each in answers for a in each]
    table = "file_name,QuestionText,answer,confidence\n" + "\n".join(lines) + "\n"
    return write(tmp_path, {"clothoaqa/clotho_aqa_test.csv": table, "clothoaqa/audio_files/x.wav": ""})


def test_clothoaqa(tmp_path: Path) -> None:
    root = clotho_aqa(tmp_path)
    first, second = (load_items(load_evaluation_set(f"clothoaqa_v{n}"), root) for n in (1, 2))
    assert [(i.question, i.labels, i.category) for i in first.items] == [
        ("Is it wet?", ("yes",), "yes or no"),
        ("What barks?", ("dog",), "words"),
    ]
    assert first.labels.names == ("dog", "yes")
    assert first.left_out == [("x.wav|Where?", "the annotators do not agree (majority)")]
    assert [i.labels for i in second.items] == [("dog",)] and len(second.left_out) == 2
    assert missing(load_evaluation_set("clothoaqa_v1"), root) == []


def test_openaqa(tmp_path: Path) -> None:
    record = {
        "instruction": "Why is it loud?", "input": "", "audio_id": "/data/sls/audioset/audio/-0a.flac",
        "dataset": "as_2m", "task": "open-ended question", "output": "Because of the engine.",
    }  # fmt: skip
    root = write(tmp_path, {"openaqa/openaqa_eval.json": json.dumps([record]), "openaqa/audio/-0a.wav": ""})
    item = items_of("openaqa", root)["0"]
    assert (item.question, item.references, item.category) == (
        "Why is it loud?", ("Because of the engine.",), "as_2m",
    )  # fmt: skip


def mmau_record(split: str, answer: str) -> dict[str, object]:
    return {
        "id": "5cd0", "audio_id": f"./{split}-audios/5cd0.wav", "question": "What is heard?",
        "choices": ["Car honking", "Helicopter"], "answer": answer, "dataset": "AudioSet", "task": "sound",
        "split": split, "category": "Information Extraction", "sub-category": "Event", "difficulty": "medium",
    }  # fmt: skip


def test_mmau(tmp_path: Path) -> None:
    first = {**mmau_record("test", ""), "choices": ["Car honking", "Helicopter", "Helicopter"], "new": 1}
    test = [first, {**mmau_record("test", ""), "id": "gone", "audio_id": "./test-audios/gone.wav"}]
    root = write(
        tmp_path,
        {
            "mmau/mmau-test-mini.json": json.dumps([mmau_record("test-mini", "Helicopter")]),
            "mmau/mmau-test.json": json.dumps(test),
            "mmau/test-mini-audios/5cd0.wav": "",
            "mmau/test-audios/5cd0.wav": "",
        },
    )
    item = items_of("mmau_mini", root)["5cd0"]
    assert (item.choices, item.answer, item.category) == (("Car honking", "Helicopter"), "Helicopter", "sound")
    withheld = load_items(load_evaluation_set("mmau"), root)
    assert [(i.choices, i.answer) for i in withheld.items] == [(("Car honking", "Helicopter"), "")]
    assert [item_id for item_id, _ in withheld.left_out] == ["gone"]
    name, text = withheld.judge_file(["helicopter."]) or ("", "")
    assert name == "mmau_predictions.json"
    assert json.loads(text) == [
        {**test[0], "model_prediction": "Helicopter"},  # the publisher's record as it was, the repeated option too
        {**test[1], "model_prediction": ""},
    ]
    mini = load_evaluation_set("mmau_mini")
    assert load_items(mini, root).judge_file(["x"]) is None
    assert item.extra["sub-category"] == "Event"


def test_air_bench_chat(tmp_path: Path) -> None:
    def record(task: str, number: int) -> dict[str, object]:
        return {
            "path": f"{number}.wav", "question": "What?", "answer_gt": "Rain.", "meta_info": "It rains.",
            "task_name": task, "dataset_name": "clotho", "uniq_id": number,
        }  # fmt: skip

    root = write(
        tmp_path,
        {
            "air_bench_chat/Chat_meta.json": json.dumps([record("sound_QA", 4), record("speech_QA", 5)]),
            "air_bench_chat/sound_QA_clotho/4.wav": "",
        },
    )
    items = items_of("air_bench_chat", root)
    assert list(items) == ["4"] and items["4"].extra == record("sound_QA", 4) and items["4"].category == "sound_QA"
    definition = load_evaluation_set("air_bench_chat")
    name, text = load_items(definition, root).judge_file(["Wind."]) or ("", "")
    assert name == "Chat_result_modelx.jsonl" and json.loads(text) == {**record("sound_QA", 4), "response": "Wind."}


def test_every_data_set_of_the_reference_is_there_and_says_what_it_needs(tmp_path: Path) -> None:
    names = list_evaluation_sets()
    assert {
        "audiocaps", "clotho_v2", "musiccaps", "esc50", "vggsound", "urbansound8k", "tut2017", "dcase2017", "fsd50k",
        "sesa", "vocalsound", "ravdess", "beijing_opera", "gtzan", "clothoaqa_v1", "clothoaqa_v2", "openaqa", "mmau",
        "mmau_mini", "air_bench_chat", "soundworld",
    } <= set(names)  # fmt: skip
    for name in names:
        definition = load_evaluation_set(name)
        assert definition.name == name and definition.licence and definition.source and definition.split
        assert bool(missing(definition, str(tmp_path))) == (definition.reader != "soundworld")
        own = definition.options.get("question") or name == "soundworld_choice"  # the items' own questions
        assert bool(own) == (definition.task == "QA") != bool(definition.question)
