"""Tables on small samples in their publishers' layouts, written here."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.corpus.clips import Asked, Event
from pipelines.corpus.readers.tables import TableOptions
from tests.pipelines.corpus.published import clips_of, refused, write


def test_audiocaps(tmp_path: Path) -> None:
    """Ids of videos may begin with a dash; captions with commas stand in quotes."""
    table = (
        "audiocap_id,youtube_id,start_time,caption\n"
        "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"
        '11542,-eJ9RynJzP8,80,"The wind is blowing, and insects sing"\n'
    )
    first, second = clips_of("audiocaps", write(tmp_path, {"audiocaps/train.csv": table}))
    assert (first.id, first.captions) == ("91139", ("A woman talks nearby as water pours",))
    assert second.captions == ("The wind is blowing, and insects sing",)


def test_clotho(tmp_path: Path) -> None:
    """Lines end as Windows ends them; five captions a clip; the metadata is in Latin-1."""
    captions = (
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\r\n"
        'Santa Motor.wav,"A machine whines, and stops.",B,C,D,E\r\n'
    )
    metadata = (
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\r\n"
        'Santa Motor.wav,machine;motor,376,https://freesound.org/people/Jos\xe9/sounds/376,"[0, 4]",Jos\xe9,CC0\r\n'
    )
    root = write(
        tmp_path,
        {
            "clotho/clotho_captions_development.csv": captions,
            "clotho/clotho_metadata_development.csv": metadata.encode("latin-1"),
        },
    )
    (clip,) = clips_of("clotho", root)
    assert (clip.id, clip.captions) == ("Santa Motor.wav", ("A machine whines, and stops.", "B", "C", "D", "E"))


def test_audioset_strong(tmp_path: Path) -> None:
    """A line an event, in no order of times; labels are codes, whose file has no header."""
    table = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "b0RFKhbpFJA_30000\t5.100\t10.000\t/m/05tny_\n"
        "b0RFKhbpFJA_30000\t0.000\t3.000\t/m/03m9d0z\n"
        "--4gqARaEJE_0\t0.000\t0.500\t/m/05tny_\n"
        "b0RFKhbpFJA_30000\t6.000\t7.250\t/m/03m9d0z\n"
    )
    names = "/m/03m9d0z\tWind\n/m/05tny_\tBark\n"
    root = write(
        tmp_path,
        {"audioset_strong/audioset_train_strong.tsv": table, "audioset_strong/mid_to_display_name.tsv": names},
    )
    wind, bark = clips_of("audioset_strong", root)
    assert (wind.id, wind.labels) == ("b0RFKhbpFJA_30000", ("Bark", "Wind"))
    assert wind.events == (Event("Wind", 0.0, 3.0), Event("Bark", 5.1, 10.0), Event("Wind", 6.0, 7.25))
    assert (bark.id, bark.labels) == ("--4gqARaEJE_0", ("Bark",))
    (tmp_path / "audioset_strong/mid_to_display_name.tsv").write_text("/m/03m9d0z\tWind\n")
    refused("audioset_strong", root, "audioset_train_strong.tsv:2", "/m/05tny_", "mid_to_display_name.tsv")


def test_fsd50k(tmp_path: Path) -> None:
    """Labels with their ancestors in one cell; the part `val` is no training part."""
    table = (
        "fname,labels,mids,split\n"
        '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n'
        "16399,Bark,/m/05tny_,val\n"
    )
    (clip,) = clips_of("fsd50k", write(tmp_path, {"fsd50k/FSD50K.ground_truth/dev.csv": table}))
    assert (clip.id, clip.labels) == ("64760", ("Electric_guitar", "Guitar", "Music"))


def test_vggsound(tmp_path: Path) -> None:
    table = '---g-f_I2yQ,1,people marching,test\nabcdefghijk,300,"bird chirping, tweeting",train\n'
    (clip,) = clips_of("vggsound", write(tmp_path, {"vggsound/vggsound.csv": table}))
    assert (clip.id, clip.labels) == ("abcdefghijk_000300", ("bird chirping, tweeting",))


def test_dcase2017(tmp_path: Path) -> None:
    """A line a label, the same clip again further on; times of the strong file are of the clip, and 0 where none is
    told; its lines end as Windows ends them."""
    weak = "2ceUOv8A3FE_20.000_30.000.wav\t20.000\t30.000\tTrain horn\n" + (
        "2hcY8kXQj60_30.000_40.000.wav\t30.000\t40.000\tAir horn, truck horn\n"
        "2ceUOv8A3FE_20.000_30.000.wav\t20.000\t30.000\tTrain\n"
    )
    strong = (
        "-5QrBL6MzLg_60.000_70.000.wav\t0.917\t2.029\tTrain horn\r\n-Qfk_Q2ctBs_30.000_40.000.wav\t0\t0\tTrain horn\r\n"
    )
    files: dict[str, str | bytes] = {"dcase2017/groundtruth_weak_label_training_set.csv": weak}
    first, second = clips_of("dcase2017", write(tmp_path, files))
    assert (first.id, first.labels) == ("2ceUOv8A3FE_20.000_30.000", ("Train horn", "Train"))
    assert (second.labels, first.events) == (("Air horn, truck horn",), ())
    files = {"dcase2017/groundtruth_release/groundtruth_strong_label_testing_set.csv": strong}
    _, _, told, silent = clips_of("dcase2017", write(tmp_path, files))
    assert told.events == (Event("Train horn", 0.917, 2.029),)
    assert (silent.labels, silent.events) == (("Train horn",), ())


def test_esc50_takes_four_folds(tmp_path: Path) -> None:
    table = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "5-9032-A-0.wav,5,0,dog,True,9032,A\n"
    )
    (clip,) = clips_of("esc50", write(tmp_path, {"esc50/meta/esc50.csv": table}))
    assert (clip.id, clip.labels) == ("1-100032-A-0.wav", ("dog",))


def test_urbansound8k(tmp_path: Path) -> None:
    table = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,2,5,3,dog_bark\n"
        "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing\n"
    )
    (clip,) = clips_of("urbansound8k", write(tmp_path, {"urbansound8k/metadata/UrbanSound8K.csv": table}))
    assert (clip.id, clip.labels, clip.level) == ("100032-3-0-0.wav", ("dog_bark",), "background")


def test_tut2017(tmp_path: Path) -> None:
    table = "audio/b020_90_100.wav\tbeach\tb020\naudio/a013_0_10.wav\tcafe/restaurant\ta013\n"
    first, second = clips_of(
        "tut2017", write(tmp_path, {"tut2017/TUT-acoustic-scenes-2017-development/meta.txt": table})
    )
    assert (first.id, first.labels, second.labels) == ("b020_90_100", ("beach",), ("cafe/restaurant",))


def test_openmic(tmp_path: Path) -> None:
    """Instruments that are told to be heard; only the clips of the training part, whose list has no header."""
    table = (
        "sample_key,instrument,relevance,num_responses\n"
        "000046_3840,clarinet,0.17104999999999998,3\n"
        "000046_3840,flute,0.5,3\n"
        "000135_483840,voice,1.0,3\n"
        "000139_119040,drums,1.0,3\n"
        "000141_153600,banjo,0.1,3\n"
    )
    train = "000046_3840\n000139_119040\n000141_153600\n"
    root = write(
        tmp_path,
        {
            "openmic/openmic-2018/openmic-2018-aggregated-labels.csv": table,
            "openmic/openmic-2018/partitions/split01_train.csv": train,
        },
    )
    flute, drums = clips_of("openmic", root)
    assert (flute.id, flute.labels) == ("000046_3840", ("flute",))
    assert (drums.id, drums.labels) == ("000139_119040", ("drums",))


def test_medley_solos(tmp_path: Path) -> None:
    table = (
        "subset,instrument,instrument_id,song_id,uuid4\n"
        "training,tenor saxophone,5,8,0e4371ac\ntest,flute,3,210,d07b1fc0\n"
    )
    (clip,) = clips_of("medley_solos", write(tmp_path, {"medley_solos/Medley-solos-DB_metadata.csv": table}))
    assert (clip.id, clip.labels) == ("0e4371ac", ("tenor saxophone",))


def test_musiccaps_takes_what_is_not_evaluated(tmp_path: Path) -> None:
    """A caption may have a line's end in it."""
    columns = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset"
    table = (
        f"{columns},is_audioset_eval\n"
        '-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck","[\'sad\', \'slow\']","A ballad.\nIt is sad.",4,False,False\n'
        "-0SdAVK79lg,30,40,/m/0155w,\"['bass']\",A guitar song.,0,False,True\n"
    )
    (clip,) = clips_of("musiccaps", write(tmp_path, {"musiccaps/musiccaps-public.csv": table}))
    assert (clip.id, clip.captions) == ("-0Gj8-vB1q4_30", ("A ballad.\nIt is sad.",))


def test_magnatagatune(tmp_path: Path) -> None:
    """Every cell in quotes, between tabs; a clip without a tag is left out."""
    table = "\n".join(
        "\t".join(f'"{cell}"' for cell in row)
        for row in (
            ("clip_id", "no voice", "female vocal", "guitar", "mp3_path"),
            ("2", "1", "0", "1", "f/american_bach_soloists-0-29.mp3"),
            ("6", "0", "0", "0", "f/american_bach_soloists-29-59.mp3"),
        )
    )
    (clip,) = clips_of("magnatagatune", write(tmp_path, {"magnatagatune/annotations_final.csv": table}))
    assert (clip.id, clip.labels) == ("2", ("no voice", "guitar"))


def test_song_describer(tmp_path: Path) -> None:
    table = (
        "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
        '1084,582186,"A retro-futurist groove, drenched in effects.",True,0,19,23,86/582186.mp3,190.1\n'
        "1085,582186,Another one.,False,0,19,23,86/582186.mp3,190.1\n"
    )
    first, second = clips_of("song_describer", write(tmp_path, {"song_describer/song_describer.csv": table}))
    assert first.captions == ("A retro-futurist groove, drenched in effects.",) and second.id == "1085"


CLOTHOAQA = (
    "file_name,QuestionText,answer,confidence\n"
    "Creaky door.wav,Is a door heard?,yes,yes\n"
    "Creaky door.wav,Is a door heard?,no,maybe\n"
    "Creaky door.wav,What is it made of?,wood,yes\n"
)


def test_clothoaqa_takes_its_text_from_clotho(tmp_path: Path) -> None:
    """Each annotator's answer counts; keywords of its metadata, whose first column has no name, stand in for Clotho."""
    metadata = (
        ",file_name,keywords,sound_link,start_end_samples,manufacturer,license\n"
        '0,Creaky door.wav,door;wood,https://freesound.org/people/x/sounds/80399,"[0, 4]",x,CC0\n'
    )
    files: dict[str, str | bytes] = {
        "clothoaqa/clotho_aqa_train.csv": CLOTHOAQA,
        "clothoaqa/clotho_aqa_metadata.csv": metadata,
    }
    (clip,) = clips_of("clothoaqa", write(tmp_path, files))
    assert (clip.captions, clip.labels) == ((), ("door", "wood"))
    assert clip.questions[:2] == (
        Asked("Is a door heard?", "yes", "audio_qa"),
        Asked("Is a door heard?", "no", "audio_qa"),
    )
    captions = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nCreaky door.wav,A door creaks.,B,C,D,E\n"
    (clip,) = clips_of("clothoaqa", write(tmp_path, {"clotho/clotho_captions_development.csv": captions}))
    assert clip.captions[0] == "A door creaks."


def test_questions_about_a_sound_that_nothing_tells_of_are_refused(tmp_path: Path) -> None:
    refused("clothoaqa", write(tmp_path, {"clothoaqa/clotho_aqa_train.csv": CLOTHOAQA}), "clotho", "1 questions")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,youtube,start,caption\n1,a,0,b\n", ["train.csv", "no column audiocap_id, youtube_id"]),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,0\n", ["train.csv:2", "3 fields where 4"]),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,0,b\n1,c,0,d\n", ["the id 1 comes twice"]),
        ("audiocap_id,youtube_id,start_time,caption\n", ["no clip of its training part", "49,838 clips are expected"]),
        ("", ["an empty file"]),
        (
            "audiocap_id,youtube_id,start_time,caption\n1,a,0,\xe9\n".encode("latin-1"),
            ["not a readable text file in UTF-8"],
        ),
    ],
)
def test_a_table_that_is_not_as_published_is_refused(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    refused("audiocaps", write(tmp_path, {"audiocaps/train.csv": text}), *words)


def test_a_number_that_is_none_is_refused_by_its_line(tmp_path: Path) -> None:
    table = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nb0RFKhbpFJA_30000\tx\t10.0\t/m/05tny_\n"
    root = write(
        tmp_path,
        {
            "audioset_strong/audioset_train_strong.tsv": table,
            "audioset_strong/mid_to_display_name.tsv": "/m/05tny_\tBark\n",
        },
    )
    refused("audioset_strong", root, "audioset_train_strong.tsv:2", 'start_time_seconds is "x"')


def test_what_a_reader_needs_is_what_its_options_name() -> None:
    options = TableOptions(id="{a}_{b}", captions=["c"], keep={"d": ["1"]})
    assert options.columns() == ["a", "b", "d", "c"]
