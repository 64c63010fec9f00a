"""FMA and MTG-Jamendo on small samples in their publishers' layouts, written here."""

from __future__ import annotations

from pathlib import Path

from pipelines.corpus.readers.music import JAMENDO_COLUMNS
from tests.pipelines.corpus.published import clips_of, refused, write

TRACKS = (
    ",album,set,set,track,track,track\n"
    ",title,split,subset,genre_top,genres,genres_all\n"
    "track_id,,,,,,\n"
    '2,"AWOL, A Way Of Life",training,small,Hip-Hop,[21],[21]\n'
    '3,Home,validation,medium,Rock,"[12, 25]","[12, 25]"\n'
    '5,Home,training,medium,,"[12, 25]","[12, 25]"\n'
    "20,Niris,training,large,,[],[]\n"
)
GENRES = "genre_id,#tracks,parent,title,top_level\n12,32923,0,Rock,12\n21,8389,0,Hip-Hop,21\n25,9261,12,Punk,12\n"


def test_fma(tmp_path: Path) -> None:
    """Three lines of header; genres are numbers; a track without any is left out."""
    files: dict[str, str | bytes] = {"fma/fma_metadata/tracks.csv": TRACKS, "fma/fma_metadata/genres.csv": GENRES}
    root = write(tmp_path, files)
    assert [(clip.id, clip.labels) for clip in clips_of("fma", root)] == [("2", ("Hip-Hop",)), ("5", ("Rock", "Punk"))]
    write(tmp_path, {"fma/fma_metadata/genres.csv": GENRES.replace("25,", "26,")})
    refused("fma", root, "tracks.csv:6", "genre 25")
    write(tmp_path, {"fma/fma_metadata/tracks.csv": "track_id,genres\n2,[21]\n"})
    refused("fma", root, "set/split")


def test_mtg_jamendo(tmp_path: Path) -> None:
    """Tags go on to the end of a line, which Windows ends."""
    table = "\r\n".join(
        [
            "\t".join(JAMENDO_COLUMNS),
            "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock",
            "track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---rock\tinstrument---piano\tmood/theme---sad",
            "",
        ]
    )
    name = "mtg_jamendo/data/splits/split-0/autotagging-train.tsv"
    root = write(tmp_path, {name: table})
    first, second = clips_of("mtg_jamendo", root)
    assert (first.id, first.labels) == ("track_0000214", ("genre---punkrock",))
    assert second.labels == ("genre---rock", "instrument---piano", "mood/theme---sad")
    refused(
        "mtg_jamendo", write(tmp_path, {name: table.replace("---sad", "---bliss")}), "mood/theme---bliss", "195 labels"
    )
    refused("mtg_jamendo", write(tmp_path, {name: table.replace("PATH\t", "")}), "its columns are")
