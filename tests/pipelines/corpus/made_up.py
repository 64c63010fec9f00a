"""Made-up files of every set in its publisher's layout, as large as the real ones or a share of them: for measuring
`mats corpus`, and for whoever has none of the files: python -m tests.pipelines.corpus.made_up ROOT [SHARE [NAME …]].

Ids, labels, captions and questions are drawn by number, so that the same files come out each time. Some clips of
AudioSet and Freesound are asked by evaluation sets, whose files are made up as well.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipelines.corpus.definition import CorpusSet, list_corpus_sets, load_corpus_set

THINGS = ("a dog", "rain", "an engine", "two people", "a bell", "a crowd", "wind", "a train", "a bird", "water")
DOING = ("is heard", "comes nearer", "stops and starts again", "goes on in the background", "fades away", "grows loud")
WHERE = ("in a street", "in a room", "by the sea", "near the microphone", "far away", "in a park", "in a hall")
Rows = Iterable[tuple[object, ...]]
OPEN_SETS = ("openaqa", "musicqa")
"""Sets of open questions: 3.8 million records more."""


def video(number: int) -> str:
    """A made-up id of eleven characters."""
    return f"{number:011x}"[-11:].replace("0", "-", 1)


def sentence(draw: random.Random) -> str:
    """A made-up caption; there are some hundred thousand."""
    return f"{draw.choice(THINGS)} {draw.choice(DOING)} {draw.choice(WHERE)} while {draw.choice(THINGS)} " + (
        f"{draw.choice(DOING)} {draw.choice(WHERE)}"
    )


def _csv(path: Path, header: str, rows: Rows, separator: str = ",", end: str = "\n", quoted: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if header:
            file.write(header + end)
        for row in rows:
            file.write(separator.join(_cell(str(cell), separator, quoted) for cell in row) + end)


def _cell(text: str, separator: str, quoted: bool) -> str:
    return f'"{text}"' if quoted or (separator == "," and "," in text) else text


def _json(path: Path, records: Iterable[object], before: str = "[", after: str = "]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(before)
        for number, record in enumerate(records):
            file.write((",\n" if number else "") + (record if isinstance(record, str) else json.dumps(record)))
        file.write(after)


def _names(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _split(number: int) -> str:
    return "eval" if number % 100 == 0 else "train"


def audiocaps(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    header = "audiocap_id,youtube_id,start_time,caption"
    _csv(root / "train.csv", header, ((n, video(n), 30, sentence(draw)) for n in range(size)))
    asked = range(10**6, 10**6 + size, 100)
    _csv(root / "test.csv", header, ((n, video(n), 30, sentence(draw)) for n in asked))


def audioset_strong(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    mids = [f"/m/{n:05x}" for n in range(len(definition.labels))]
    _csv(root / "mid_to_display_name.tsv", "", zip(mids, definition.labels, strict=True), "\t")

    def events() -> Iterator[tuple[object, ...]]:
        for n in range(10**6, 10**6 + size):
            for _ in range(draw.randint(1, 17)):
                start = draw.uniform(0, 9)
                yield f"{video(n)}_30000", f"{start:.3f}", f"{draw.uniform(start + 0.1, 10):.3f}", draw.choice(mids)

    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
    _csv(root / "audioset_train_strong.tsv", header, events(), "\t")


def beijing_opera(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    folder = root / "beijing_opera_percussion_instrument_1.0"
    _names(folder, (f"{205000 + n}__x__{draw.choice(definition.labels)}-{n}.wav" for n in range(size)))


def clotho(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    captions = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
    metadata = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license"
    for part, first, count in (("development", 1, size), ("evaluation", 500_001, size // 4 + 1)):
        name = [f"Clip {n}.wav" for n in range(first, first + count)]
        texts = ((each, *(sentence(draw) for _ in range(5))) for each in name)
        _csv(root / f"clotho_captions_{part}.csv", captions, texts, end="\r\n")
        origin = (
            (
                each,
                "a;b",
                first + 100 * at,
                f"https://freesound.org/people/x/sounds/{first + 100 * at}",
                "[0, 9]",
                "x",
                "CC0",
            )
            for at, each in enumerate(name)
        )
        _csv(root / f"clotho_metadata_{part}.csv", metadata, origin, end="\r\n")


def clothoaqa(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    rows = (
        (f"Clip {n}.wav", f"What is heard {at}?", draw.choice(("yes", "no", "water")), "yes")
        for n in range(1, size + 1)
        for at in range(6)
        for _ in range(3)
    )
    _csv(root / "clotho_aqa_train.csv", "file_name,QuestionText,answer,confidence", rows)
    told = (
        (n, f"Clip {n}.wav", "water;rain", f"https://freesound.org/s/{n}", "[0, 9]", "x", "CC0")
        for n in range(1, size + 1)
    )
    _csv(
        root / "clotho_aqa_metadata.csv", ",file_name,keywords,sound_link,start_end_samples,manufacturer,license", told
    )


def crema_d(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    emotions = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    sayings = [f"{a}{b}{c}" for a in "ABCDEFG" for b in "ABCDEFG" for c in "ABCDEFG"]
    rows = ((n, f"{1000 + n // 300}_{sayings[n % 300]}_{draw.choice(emotions)}_XX") for n in range(size))
    _csv(root / "SentenceFilenames.csv", '"Stimulus_Number","Filename"', rows)


def dcase2017(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    clips = [f"{video(2 * 10**6 + n)}_30.000_40.000.wav" for n in range(size)]
    rows = [
        (clip, "30.000", "40.000", label)
        for clip in clips
        for label in draw.sample(definition.labels, 1 + (clip[2] > "8"))
    ]
    rows.sort(key=lambda row: row[3])
    _csv(root / "groundtruth_weak_label_training_set.csv", "", rows, "\t")


def esc50(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    rows = (
        (f"{n % 4 + 1}-{7 * 10**6 + n}-A-0.wav", n % 4 + 1, 0, draw.choice(definition.labels), True, 7 * 10**6 + n, "A")
        for n in range(size)
    )
    _csv(root / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take", rows)


def fma(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    genres = ((n + 1, 100, 0, label, n + 1) for n, label in enumerate(definition.labels))
    _csv(root / "fma_metadata/genres.csv", "genre_id,#tracks,parent,title,top_level", genres)
    header = ",album,set,track,track\n,title,split,genre_top,genres\ntrack_id,,,,"
    rows = (
        (
            n,
            "An album, its title",
            "training" if n % 5 else "test",
            "",
            str(draw.sample(range(1, 164), draw.randint(1, 3))),
        )
        for n in range(1, size * 5 // 4 + 1)
    )
    _csv(root / "fma_metadata/tracks.csv", header, rows)


def fsd50k(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    def rows(numbers: Iterable[int], *part: str) -> Rows:
        return ((n, ",".join(draw.sample(definition.labels, draw.randint(1, 5))), "/m/x", *part) for n in numbers)

    folder = root / "FSD50K.ground_truth"
    _csv(folder / "dev.csv", "fname,labels,mids,split", rows(range(500_001, 500_001 + size), "train"))
    _csv(folder / "eval.csv", "fname,labels,mids", rows(range(900_001, 900_001 + size // 4)))


def gtzan(root: Path, size: int, _: random.Random, definition: CorpusSet) -> None:
    kinds = definition.labels
    _names(root / "genres", (f"{kinds[n % 10]}/{kinds[n % 10]}.{n // 10:05d}.au" for n in range(size)))


def macs(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "MACS.yaml").open("w", encoding="utf-8") as file:
        file.write("files:\n")
        for n in range(size):
            file.write("- annotations:\n")
            for at in range(4 + (n % 5 < 2)):
                file.write(f"  - annotator_id: {at}\n    sentence: {sentence(draw)}\n    tags: [a, b]\n")
            file.write(f"  filename: airport-x-{n}-a.wav\n")


def magnatagatune(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    tags = definition.labels
    header = "\t".join(f'"{name}"' for name in ("clip_id", *tags, "mp3_path"))

    def rows() -> Iterator[tuple[object, ...]]:
        for n in range(1, size + 1):
            told = set(draw.sample(range(len(tags)), draw.randint(1, 6)))
            yield (n, *(int(at in told) for at in range(len(tags))), f"f/clip-{n}.mp3")

    _csv(root / "annotations_final.csv", header, rows(), "\t", quoted=True)


def medley_solos(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    rows = (
        ("training" if n < size else "test", draw.choice(definition.labels), 1, 8, f"{n:08x}") for n in range(2 * size)
    )
    _csv(root / "Medley-solos-DB_metadata.csv", "subset,instrument,instrument_id,song_id,uuid4", rows)


def mtg_jamendo(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    rows = (
        (
            f"track_{n:07d}",
            "artist_1",
            "album_1",
            f"{n % 100}/{n}.mp3",
            124.6,
            *draw.sample(definition.labels, draw.randint(1, 5)),
        )
        for n in range(size)
    )
    _csv(root / "data/splits/split-0/autotagging-train.tsv", header, rows, "\t", "\r\n")


def musiccaps(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    columns = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset"
    rows = (
        (video(5 * 10**6 + n), 30, 40, "/m/a,/m/b", "['slow', 'sad']", sentence(draw), 4, False, n >= size)
        for n in range(2 * size)
    )
    _csv(root / "musiccaps-public.csv", f"{columns},is_audioset_eval", rows)


def musicqa(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    asked = ("Describe the audio", "Describe the audio in detail", *(f"What is heard {n}?" for n in range(7)))
    turns = (
        {
            "audio_name": f"{n:06d}.wav",
            "conversation": [{"from": "human", "value": q}, {"from": "gpt", "value": sentence(draw)}],
        }
        for n in range(size)
        for q in asked
    )
    _json(root / "FinetuneMusicQA.json", turns)


def nsynth(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    def notes() -> Iterator[str]:
        for n in range(size):
            family = draw.choice(definition.labels)
            name = f"{family}_acoustic_{n:06d}-060-100"
            told = {"note_str": name, "instrument_family_str": family, "instrument_source_str": "acoustic", "pitch": 60}
            yield f"{json.dumps(name)}: {json.dumps({**told, 'qualities': [0] * 10, 'qualities_str': []})}"

    _json(root / "nsynth-train/examples.json", notes(), "{", "}")


def openaqa(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    records = (
        {
            "instruction": f"What may happen {n % 7}?", "input": "", "output": sentence(draw), "dataset": "as_strong",
            "audio_id": f"/data/sls/audioset/audio/{video(10**6 + n // 36)}.flac", "task": "open-ended question",
        }
        for n in range(size)
    )  # fmt: skip
    _json(root / "openaqa_5.6M.json", records)


def openmic(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    keys = [f"{n:06d}_3840" for n in range(size * 4 // 3)]
    told = ((key, draw.sample(definition.labels, 2)) for key in keys)
    rows = ((key, label, (0.9, 0.1)[at], 3) for key, labels in told for at, label in enumerate(labels))
    _csv(root / "openmic-2018-aggregated-labels.csv", "sample_key,instrument,relevance,num_responses", rows)
    _csv(root / "partitions/split01_train.csv", "", ((key,) for key in keys[:size]))


def sesa(root: Path, size: int, _: random.Random, definition: CorpusSet) -> None:
    _names(root / "train", (f"{definition.labels[n % 4]}_{n:03d}.wav" for n in range(size)))


def song_describer(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    header = "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration"
    rows = ((n, n // 2, sentence(draw), True, 0, 1, 1, "86/582186.mp3", 190.1) for n in range(size))
    _csv(root / "song_describer.csv", header, rows)


def tut2017(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    rows = ((f"audio/b{n:05d}_0_10.wav", draw.choice(definition.labels), f"b{n:05d}") for n in range(size))
    _csv(root / "TUT-acoustic-scenes-2017-development/meta.txt", "", rows, "\t")


def urbansound8k(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    rows = (
        (f"{8 * 10**6 + n}-3-0-0.wav", 8 * 10**6 + n, 0.0, 0.3, n % 2 + 1, n % 9 + 1, 3, draw.choice(definition.labels))
        for n in range(size)
    )
    _csv(root / "metadata/UrbanSound8K.csv", "slice_file_name,fsID,start,end,salience,fold,classID,class", rows)


def vggsound(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    rows = (
        (video(3 * 10**6 + n), 30, draw.choice(definition.labels), "test" if n >= size else "train")
        for n in range(size * 13 // 12)
    )
    _csv(root / "vggsound.csv", "", rows)


def vocalsound(root: Path, size: int, draw: random.Random, definition: CorpusSet) -> None:
    mids = [f"/m/{n}" for n in range(6)]
    _csv(
        root / "class_labels_indices_vs.csv",
        "index,mid,display_name",
        zip(range(6), mids, definition.labels, strict=True),
    )
    records = ({"wav": f"/x/audio_16k/f{n:05d}_0_cough.wav", "labels": draw.choice(mids)} for n in range(size))
    _json(root / "datafiles/tr.json", records, '{"data": [', "]}")


def wavcaps(root: Path, size: int, draw: random.Random, _: CorpusSet) -> None:
    for name, share, told in (
        ("FreeSound/fsd_final", 0.6508, lambda n: str(1 + n)),
        ("BBC_Sound_Effects/bbc_final", 0.0774, lambda n: f"NHU{n:08d}"),
        ("SoundBible/sb_final", 0.0031, str),
        ("AudioSet_SL/as_final", 0.2687, lambda n: f"Y{video(10**6 + n)}.wav"),
    ):
        records = (
            {"id": told(n), "caption": f"{sentence(draw)}.", "duration": 9.5} for n in range(round(size * share))
        )
        _json(root / f"json_files/{name}.json", records, '{"num_captions_per_audio": 1, "data": [', "]}")


def write_made_up(root: Path, share: float = 1.0, names: Iterable[str] = ()) -> None:
    """The files of these sets, or of all but the open questions, with a `share` of the clips of the real ones."""
    for name in names or [each for each in list_corpus_sets() if each not in OPEN_SETS]:
        definition = load_corpus_set(name)
        make: Callable[[Path, int, random.Random, CorpusSet], None] = globals()[name]
        make(
            root / (definition.folder or name), max(2, round(definition.clips * share)), random.Random(name), definition
        )


if __name__ == "__main__":
    write_made_up(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0, sys.argv[3:])
