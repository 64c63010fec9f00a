"""URIs with secrets: found again by entry, small in memory, and never in the work list."""

from __future__ import annotations

import secrets
from pathlib import Path

import pyarrow as pa

from mats_core.storage.uris import redacted
from pipelines.archive.decode_stage import DecodeStage
from pipelines.archive.headers import Scanner
from pipelines.archive.work_list import WorkList
from pipelines.cluster.stages import StageContext
from pipelines.data.inputs import Entry, Input
from pipelines.data.private_uris import PrivateUris
from pipelines.settings.archive import LimitSettings


def signed(number: int, signature: str) -> str:
    return f"https://host/{number}.wav?X-Amz-Security-Token={'t' * 500}&X-Amz-Signature={signature}"


def test_every_uri_comes_back_and_takes_little() -> None:
    uris = PrivateUris()
    whole = {number: signed(number, secrets.token_hex(32)) for number in range(100)}
    for number, uri in whole.items():
        uris.add(number, uri)
    assert uris.find([*whole, 1000]) == whole
    assert [number for piece in uris.pieces() for number in piece] == list(whole)
    assert max(len(packed) for packed in uris._packed.values()) < 120 < len(whole[0])


def test_the_work_list_holds_none_and_the_newest_signature_counts(tmp_path: Path) -> None:
    def scanned(signature: str) -> WorkList:
        entries = [
            Entry(signed(n, signature), f"https://host/{n}.wav", 1, "v", error=("not_found", "gone")) for n in (1, 1, 2)
        ]
        work = WorkList(str(tmp_path), pa.schema([]))
        with Scanner(60.0, LimitSettings()) as scanner:
            work.extend(Input("list", iter(entries)), scanner, {})
        return work

    scanned("old")
    work = scanned("new")
    rows = work.read(0, work.total)
    assert rows["uri"].to_pylist() == ["https://host/1.wav", "https://host/1.wav", "https://host/2.wav"]
    assert not any(b"X-Amz" in path.read_bytes() for path in tmp_path.iterdir())
    decode = DecodeStage(StageContext(str(tmp_path), find_uris=work.private.find), 16000, LimitSettings())
    assert decode.uris_to_read(rows) == [signed(1, "new"), signed(1, "new"), signed(2, "new")]


def test_a_text_is_shown_without_what_signs_a_url() -> None:
    text = "403, url='https://u:pw@host/a.wav?X-Amz-Signature=abc&x=1' for s3://b/a?b.wav, AWS_SECRET_ACCESS_KEY=abc"
    assert redacted(text) == "403, url='https://host/a.wav' for s3://b/a?b.wav, AWS_SECRET_ACCESS_KEY=…"
