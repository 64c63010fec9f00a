"""Bad files of data sets end with an error that says where and what; definitions of one's own work; soundworld."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from mats_core.errors import SettingsError
from mats_core.scoring import score
from pipelines.evaluate.datasets import list_evaluation_sets, load_evaluation_set, load_items, missing
from pipelines.output.corrections import Corrections
from tests.pipelines.evaluate.datasets.test_readers import mmau_record, write

CORRECTIONS = {"corrections", "corrections_labels", "corrections_qa"}
ESC = "filename,fold,target,category,esc10,src_file,take\n"


def esc50(root: Path, lines: str, *audio: str, header: str = ESC) -> str:
    return write(root, {"esc50/meta/esc50.csv": header + lines, **{f"esc50/audio/{name}": "" for name in audio}})


def fails(name: str, root: str) -> str:
    """The message of loading a data set; `missing` says the same."""
    with pytest.raises(SettingsError) as caught:
        load_items(load_evaluation_set(name), root)
    assert missing(load_evaluation_set(name), root)
    return str(caught.value)


def test_missing_audio_is_left_out_and_named(tmp_path: Path) -> None:
    root = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\nb.wav,1,0,rain,True,1,A\n", "a.wav")
    data = load_items(load_evaluation_set("esc50"), root)
    assert [item.item_id for item in data.items] == ["a.wav"]
    assert data.left_out == [("b.wav", "audio not found: audio/b.wav")]
    assert data.labels.names == ("dog", "rain")
    assert missing(load_evaluation_set("esc50"), root) == [
        "the audio of 1 items is not there, e.g. b.wav: audio not found: audio/b.wav"
    ]


def test_a_set_of_which_little_is_there_says_so_and_where_one_looked(tmp_path: Path) -> None:
    lines = "".join(f"{i}.wav,1,0,{'dog' if i % 2 else 'rain'},True,1,A\n" for i in range(1500))
    root = esc50(tmp_path, lines, "0.wav", "1.wav")
    definition = load_evaluation_set("esc50")
    assert load_items(definition, root).shortfall == (
        f"2 of 2,000 items were found in {root}/esc50 (not there, for one: audio/2.wav); figures are of these alone"
    )
    asked = load_items(definition, root, limit=2)
    assert asked.shortfall == "", "no more were asked for"
    assert asked.partial == "the first 2 of 2,000 items (--limit); figures are of these alone"
    few = definition.model_copy(update={"expected": 0})
    assert load_items(few, root).shortfall.startswith("2 of 1,500 items")
    whole = esc50(tmp_path / "all", "0.wav,1,0,dog,True,1,A\n", "0.wav")
    assert load_items(definition, whole).shortfall.startswith("1 of 2,000 items")
    assert load_items(few, whole).partial == load_items(few, whole, limit=9).partial == ""


def test_what_nobody_has_counted_is_about_so_many(tmp_path: Path) -> None:
    definition = load_evaluation_set("esc50").model_copy(update={"counted": ""})
    root = esc50(tmp_path, "0.wav,1,0,dog,True,1,A\n", "0.wav")
    assert load_items(definition, root).shortfall.startswith("1 of about 2,000 items were found")
    sets = [load_evaluation_set(name) for name in list_evaluation_sets()]
    about = {each.name for each in sets if each.size.startswith("about ")}
    assert about == {"clothoaqa_v1", "clothoaqa_v2", "musiccaps", "sesa", "tut2017", "vocalsound"}


def test_every_set_says_how_many_items_it_has_but_those_whose_file_is_given() -> None:
    sets = {name: load_evaluation_set(name) for name in list_evaluation_sets()}
    assert {name for name, each in sets.items() if not each.expected} - CORRECTIONS == {"openaqa", "air_bench_chat"}
    assert (sets["clotho_v2"].expected, sets["esc50"].expected) == (1045, 2000)
    counted = (
        (each, re.search(r"([0-9]{1,2} [0-9]{3}|[0-9]+) (?:clips|excerpts)", each.note)) for each in sets.values()
    )
    for each, told in counted:
        assert told is None or int(told[1].replace(" ", "")) == each.expected, each.name


def test_the_folder_as_its_publisher_ships_it_may_be_named(tmp_path: Path) -> None:
    esc50(tmp_path, "a.wav,1,0,dog,True,1,A\n", "a.wav")
    write(tmp_path, {"SESA/test/siren_000.wav": "", "SESA/train/siren_001.wav": ""})
    (tmp_path / "esc50").rename(tmp_path / "ESC-50-master")
    for name, own in (("esc50", "ESC-50-master"), ("sesa", "SESA")):
        (item,) = load_items(load_evaluation_set(name), str(tmp_path / own)).items
        assert item.uri.startswith(f"{tmp_path}/{own}/"), name
        assert "folder" in fails(name, str(tmp_path / "ESC-50-master" / "meta"))
    assert "or its own with --data esc50=FOLDER" in fails("esc50", str(tmp_path))


def test_no_audio_at_all(tmp_path: Path) -> None:
    root = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\n")
    assert "1 items, none that can be asked" in fails("esc50", root)


def test_wrong_columns(tmp_path: Path) -> None:
    root = esc50(tmp_path, "a.wav,dog\n", "a.wav", header="filename,label\n")
    message = fails("esc50", root)
    assert "meta/esc50.csv" in message
    assert "no column category among filename, label; put the file there as its publisher ships it" in message


def test_a_line_with_too_few_fields(tmp_path: Path) -> None:
    root = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\nb.wav,1\n", "a.wav")
    assert "meta/esc50.csv:3: 2 fields where 7 are expected (filename, fold," in fails("esc50", root)


def test_duplicate_ids(tmp_path: Path) -> None:
    root = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\na.wav,2,0,dog,True,1,A\n", "a.wav")
    message = fails("esc50", root)
    assert "meta/esc50.csv:3" in message and "meta/esc50.csv:2" in message and "a.wav" in message


def test_a_label_outside_the_set(tmp_path: Path) -> None:
    root = write(tmp_path, {"tut2017/evaluation_setup/evaluate.txt": "audio/1.wav\tmoon\n", "tut2017/audio/1.wav": ""})
    assert "moon" in fails("tut2017", root)


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    assert "folder" in fails("esc50", str(tmp_path))
    (tmp_path / "esc50" / "audio").mkdir(parents=True)
    (tmp_path / "esc50" / "audio" / "a.wav").touch()
    assert "meta/esc50.csv" in fails("esc50", str(tmp_path))
    assert "Get it: https://github.com/karolpiczak/ESC-50" in missing(load_evaluation_set("esc50"), str(tmp_path))[0]


def test_not_utf8_and_not_json(tmp_path: Path) -> None:
    root = write(tmp_path, {"esc50/meta/esc50.csv": b"\xff\xfe\x00", "mmau/mmau-test-mini.json": "[{"})
    assert "UTF-8" in fails("esc50", root)
    assert "broken JSON" in fails("mmau_mini", root)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer": "Bell"}, 'answer not among its options: "Bell" of Car honking, Helicopter'),
        ({"choices": ["x", "x"]}, "fewer than two different options: ['x', 'x']"),
        ({"choices": "x"}, "fewer than two different options: x"),
        ({"question": None}, "no field question among id, audio_id"),
    ],
)
def test_bad_questions(tmp_path: Path, change: dict[str, object], told: str) -> None:
    record = {k: v for k, v in {**mmau_record("test-mini", "Helicopter"), **change}.items() if v is not None}
    root = write(
        tmp_path, {"mmau/mmau-test-mini.json": json.dumps([record]), "mmau/test-mini-audios/5cd0.wav": ""}
    )  # fmt: skip
    message = fails("mmau_mini", root)
    assert told in message and "mmau-test-mini.json[0]" in message


def test_one_bad_question_does_not_stop_the_others(tmp_path: Path) -> None:
    good = {**mmau_record("test-mini", "Helicopter"), "choices": ["Car honking", "Helicopter", "Helicopter "]}
    bad = {**good, "id": "bad", "answer": ""}
    root = write(
        tmp_path, {"mmau/mmau-test-mini.json": json.dumps([bad, good]), "mmau/test-mini-audios/5cd0.wav": ""}
    )  # fmt: skip
    data = load_items(load_evaluation_set("mmau_mini"), root)
    assert [(item.item_id, item.choices, item.answer) for item in data.items] == [
        ("5cd0", ("Car honking", "Helicopter"), "Helicopter")
    ]
    assert data.left_out == [
        ("bad", 'answer not among its options: "" of Car honking, Helicopter (mmau-test-mini.json[0])')
    ]
    assert missing(load_evaluation_set("mmau_mini"), root) == []


def test_the_labels_do_not_depend_on_which_audio_is_there(tmp_path: Path) -> None:
    lines = "file_name,QuestionText,answer,confidence\nx.wav,What?,dog,yes\ny.wav,What?,cat,yes\n"
    root = write(tmp_path, {"clothoaqa/clotho_aqa_test.csv": lines, "clothoaqa/audio_files/x.wav": ""})
    data = load_items(load_evaluation_set("clothoaqa_v1"), root)
    assert data.labels.names == ("cat", "dog")
    assert [item.item_id for item in data.items] == ["x.wav|What?"]


def test_a_pattern_of_any_ending_takes_sound_and_video_alone(tmp_path: Path) -> None:
    lines = "a,1,rain,test\nb,1,wind,test\n"
    files = {f"vggsound/audio/{name}": "" for name in ("a_000001.json", "a_000001.MP4", "b_000001.json")}
    data = load_items(load_evaluation_set("vggsound"), write(tmp_path, {"vggsound/vggsound.csv": lines, **files}))
    assert [Path(item.uri).name for item in data.items] == ["a_000001.MP4"]
    assert [item_id for item_id, _ in data.left_out] == ["b_000001"]


def test_a_data_set_of_ones_own_is_one_file(tmp_path: Path) -> None:
    definition = {
        "name": "mine", "title": "Mine", "kind": "label", "task": "cla_label", "metrics": ["accuracy"],
        "reader": "table", "files": {"table": "list.csv"}, "audio": ["{file}"], "split": "all", "licence": "mine",
        "source": "here", "options": {"id": "{file}", "label": "what"},
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(definition))
    root = write(tmp_path, {"mine/list.csv": "file,what\nx.wav,rain\n", "mine/x.wav": ""})
    data = load_items(load_evaluation_set(str(path)), root)
    assert score("label", data.items, ["Rain"], labels=data.labels).metrics["accuracy"].value == 1.0


@pytest.mark.parametrize("change", [{"audio": ["audio/{take:06d}.wav"]}, {"audio": ["audio/{}.wav"]}])
def test_an_audio_pattern_that_does_not_fit(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "esc50.yaml"
    path.write_text(load_evaluation_set("esc50").model_copy(update=change).model_dump_json())
    assert "benchmarks: esc50: audio: {" in fails(str(path), esc50(tmp_path, "a.wav,1,0,dog,True,1,A\n", "a.wav"))


def test_an_id_of_a_record_that_does_not_fit(tmp_path: Path) -> None:
    values = load_evaluation_set("mmau_mini").model_dump()
    values["options"]["id"] = "{id:06d}"
    path = tmp_path / "mmau_mini.yaml"
    path.write_text(yaml.safe_dump(values))
    records = json.dumps([{**mmau_record("test-mini", "Helicopter"), "id": "abc"}])
    root = write(tmp_path, {"mmau/mmau-test-mini.json": records})
    assert "mmau-test-mini.json[0]: {'id': 'abc'} does not fit {id:06d}" in fails(str(path), root)


def test_a_date_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nnote: 2026-02-30\n")
    with pytest.raises(SettingsError, match="not a readable YAML file"):
        load_evaluation_set(str(path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics": ["cider_d"]}, "label has no metric cider_d; choose of accuracy"),
        ({"task": "sing"}, "sing"),
        ({"colour": 1}, "colour"),
        ({"kind": "song"}, "kind"),
        ({"reader": "scroll"}, "table, names, records, corrections, soundworld"),
        ({"options": {"id": "{file}", "labels": "x"}}, "options.labels"),
        ({"judge": "air_bench"}, "its judge's file also has answer_gt, dataset_name"),
    ],
)
def test_a_wrong_definition_names_the_field(tmp_path: Path, change: dict[str, object], told: str) -> None:
    values = yaml.safe_load((Path("pipelines/evaluate/datasets/definitions") / "esc50.yaml").read_text())
    path = tmp_path / "esc50.yaml"
    path.write_text(yaml.safe_dump({**values, **change}))
    root = esc50(tmp_path, "a.wav,1,0,dog,True,1,A\n", "a.wav")
    with pytest.raises(SettingsError) as caught:
        load_items(load_evaluation_set(str(path)), root)
    assert told in str(caught.value) and "esc50" in str(caught.value)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match="clotho_v2"):
        load_evaluation_set("clothov2")


def test_soundworld_needs_nothing_and_is_the_same_each_time(tmp_path: Path) -> None:
    captions = load_items(load_evaluation_set("soundworld"), str(tmp_path / "a"), limit=3)
    again = load_items(load_evaluation_set("soundworld"), str(tmp_path / "b"), limit=2)
    assert [i.references for i in captions.items[:2]] == [i.references for i in again.items]
    for one, other in zip(captions.items, again.items, strict=False):
        assert Path(one.uri).read_bytes() == Path(other.uri).read_bytes()
    assert all(len(item.references) == 5 and item.labels for item in captions.items)
    written = Path(captions.items[0].uri).stat().st_mtime_ns
    labels = load_items(load_evaluation_set("soundworld_labels"), str(tmp_path / "a"), limit=3)
    assert [i.labels for i in labels.items] == [i.labels for i in captions.items] and len(labels.labels) == 24
    assert Path(labels.items[0].uri).stat().st_mtime_ns == written
    choice = load_items(load_evaluation_set("soundworld_choice"), str(tmp_path / "a"), limit=3)
    for item in choice.items:
        assert item.answer in item.choices and len(set(item.choices)) == len(item.choices) > 1 and item.question


def test_what_was_put_right_in_a_run_is_a_data_set(tmp_path: Path) -> None:
    """Captions, labels and answers that are known to be right; of their own stretch; without what is gone or wrong."""
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    said, uri = Corrections(str(tmp_path / "out")), str(tmp_path / "a.wav")

    def say(row_id: int, task: str, text: str, change: dict[str, str], **facts: object) -> None:
        row = {"row_id": row_id, "uri": uri, "start_s": 56.0, "decoded_s": 4.0, "task": task, "text": text, **facts}
        said.correct(row, 0, "Ann", change)

    say(0, "caption", "A dog.", {"text": "A cat."})
    say(1, "caption", "A horn.", {"mark": "right"}, only_channel=1)
    say(2, "caption", "A bell.", {"mark": "wrong"})
    say(3, "caption", "Rain.", {"mark": "right"}, uri=str(tmp_path / "gone.wav"))
    say(4, "cla_label", "rain", {"text": "Rain, wind, rain."})
    say(5, "QA", "no", {"text": "Yes."}, question="Is it loud?")
    root = str(tmp_path / "out")
    captions = load_items(load_evaluation_set("corrections"), root)
    assert [(i.item_id, i.references, i.start_s, i.end_s, i.only_channel) for i in captions.items] == [
        ("0", ("A cat.",), 56.0, 60.0, None), ("1", ("A horn.",), 56.0, 60.0, 1),
    ]  # fmt: skip
    assert captions.left_out[0][0] == "3" and captions.left_out[0][1].startswith("audio not found")
    (labels,) = load_items(load_evaluation_set("corrections_labels"), root).items
    assert labels.labels == ("rain", "wind")
    (asked,) = load_items(load_evaluation_set("corrections_qa"), root).items
    assert (asked.question, asked.labels) == ("Is it loud?", ("yes",))
    row = {"row_id": 5, "uri": uri, "start_s": 56.0, "task": "QA", "question": "Is it loud?"}
    said.undo(row, 1, "Ann")
    with pytest.raises(SettingsError, match="none that can be asked"):
        load_items(load_evaluation_set("corrections_qa"), root)


def test_a_set_of_ones_own_as_the_document_has_it(tmp_path: Path) -> None:
    """With another separator the message says which; a metric that its kind has not is called that."""
    text = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text().split("```yaml\n")[1].split("```")[0]
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    (tmp_path / "mine" / "sound").mkdir(parents=True)
    (tmp_path / "mine" / "sound" / "a b.wav").touch()
    lines = '\ufeffFile Name;Ref 1;Ref 2\na b.wav;"A dog; then a bell.";A dog.\n'
    (tmp_path / "mine" / "refs.csv").write_text(lines)
    (item,) = load_items(load_evaluation_set(own), tmp_path).items
    assert (item.item_id, item.references) == ("a b.wav", ("A dog; then a bell.", "A dog."))
    own.write_text(text.replace('separator: ";", ', ""))
    with pytest.raises(SettingsError, match=r"its separator seems to be .;.: options: \{separator: .;.\}"):
        load_items(load_evaluation_set(own), tmp_path)
    own.write_text(text.replace("cider_d", "cider"))
    with pytest.raises(SettingsError, match="caption has no metric cider; choose of cider_d"):
        load_evaluation_set(own)
