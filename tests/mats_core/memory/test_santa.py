"""Santa: hand-checked mixtures, and the laws of its search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mats_core.errors import SettingsError
from mats_core.memory import faiss_index
from mats_core.memory.noise import inject_noise, keyed_normal
from mats_core.memory.santa import SantaMemory


def _unit(rows: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def memory() -> SantaMemory:
    return SantaMemory.build(_unit(300), [f"caption {i}" for i in range(300)], clusters=30)


def test_mixture_by_hand() -> None:
    # a = (1, 0); texts (1, 0) and (0, 1); scale ln 3: weights 3/4 and 1/4; mix 0.5
    memory = SantaMemory.build(torch.eye(2), clusters=1)
    mixed = memory.transfer(
        torch.tensor([[5.0, 0.0]]), neighbors=2, scale=math.log(3), mix=0.5, noise=None, normalize=False
    )
    torch.testing.assert_close(mixed, torch.tensor([[0.875, 0.125]]))


def test_nothing_mixed_is_the_unit_embedding(memory: SantaMemory) -> None:
    audio = _unit(3, seed=1)
    torch.testing.assert_close(memory.transfer(4 * audio, mix=0.0), audio)


@pytest.mark.parametrize("probe", [1, 3, "all"])
def test_never_repeats_a_neighbour_and_searches_more_clusters(memory: SantaMemory, probe: Any) -> None:
    queries = _unit(40, seed=2).numpy()
    distances, rows = memory.search(queries, 50, probe)  # a cluster holds 10 on average
    assert all(len(set(found)) == 50 for found in rows.tolist())
    assert rows.min() >= 0
    assert (np.diff(distances, axis=1) >= 0).all()


def test_exact_search_is_exact(memory: SantaMemory) -> None:
    queries = _unit(20, seed=3)
    _, rows = memory.search(queries.numpy(), 8, "all")
    expected = (queries @ _unit(300).T).topk(8).indices.numpy()
    assert (rows == expected).all()


def test_one_cluster_is_searched_where_it_suffices() -> None:
    # two clusters on a circle; the query lies in the first, its second nearest row in the other
    angles = torch.tensor([0.0, 0.1, 0.5, 1.0, 1.1, 1.2])
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    memory = SantaMemory.build(rows, centroids=torch.stack([rows[:2].mean(0), rows[3:].mean(0)]))
    query = torch.tensor([[math.cos(0.56), math.sin(0.56)]]).numpy()
    assert memory.search(query, 2, 1)[1].tolist() == [[2, 1]]  # row 2 belongs to the nearer centroid
    assert memory.search(query, 3, 1)[1].tolist() == [[2, 1, 0]]
    assert memory.search(query, 4, 1)[1].tolist() == [[2, 3, 1, 4]]  # more clusters, by distance


def test_fewer_rows_than_neighbors_uses_each_once() -> None:
    memory = SantaMemory.build(_unit(5), clusters=2)
    _, rows = memory.search(_unit(2, seed=4).numpy(), 32)
    assert [sorted(found) for found in rows.tolist()] == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("probe", [1, "all"])
def test_a_row_does_not_depend_on_its_batch(memory: SantaMemory, probe: Any) -> None:
    audio = _unit(64, seed=5)
    together = memory.transfer(audio, neighbors=20, probe=probe, noise="keyed")
    for batch in (1, 7):
        parts = [
            memory.transfer(audio[at : at + batch], neighbors=20, probe=probe, noise="keyed")
            for at in range(0, 64, batch)
        ]
        assert torch.equal(torch.cat(parts), together)


def test_keyed_noise_belongs_to_the_memory_row(memory: SantaMemory) -> None:
    audio = _unit(2, seed=6)
    mixed, neighbors = memory.transfer(
        audio, neighbors=4, mix=1.0, scale=0.0, noise="keyed", noise_variance=0.02, seed=9, explain=True
    )
    for at in range(2):
        rows = torch.tensor([found["row"] for found in neighbors[at]])
        noisy = inject_noise(_unit(300)[rows], 0.02, noise=keyed_normal(9, rows, 16))
        torch.testing.assert_close(mixed[at], F.normalize(noisy.mean(0), dim=-1), atol=1e-6, rtol=0)


def test_explain_names_captions_weights_and_cosines(memory: SantaMemory) -> None:
    audio = _unit(1, seed=7)
    _, (found,) = memory.transfer(audio, neighbors=3, probe="all", explain=True)
    for one in found:
        assert one["caption"] == f"caption {one['row']}"
        assert one["score"] == pytest.approx((_unit(300)[one["row"]] @ audio[0]).item(), abs=1e-5)
    assert sum(one["weight"] for one in found) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("noise", [None, "keyed"])
def test_vectors_kept_ready_change_nothing(monkeypatch: pytest.MonkeyPatch, noise: Any) -> None:
    """A large memory reads and draws every time; a small one keeps what it has read and drawn."""
    audio = _unit(9, seed=10)
    found = []
    for most in (0, 1 << 20):
        monkeypatch.setattr("mats_core.memory.santa.READY_BYTES", most)
        memory = SantaMemory.build(_unit(300), clusters=8)
        found += [memory.transfer(audio, noise=noise), memory.transfer(audio, noise=noise)]
        assert bool(memory.ready) == (most > 0)
    assert all(torch.equal(found[0], other) for other in found[1:])
    # other settings do not meet the noise that was kept
    assert not torch.equal(memory.transfer(audio, noise="keyed", seed=1), memory.transfer(audio, noise="keyed", seed=2))


def test_noise_drawn_elsewhere_is_what_keyed_noise_draws(memory: SantaMemory) -> None:
    """The way of tensors on a device, taken on the CPU."""
    audio = _unit(3, seed=11)
    rows = torch.from_numpy(memory.search(audio.numpy(), 6)[1])
    given = memory.transfer(audio, neighbors=6, noise=keyed_normal(4, rows, 16), noise_variance=0.02)
    keyed = memory.transfer(audio, neighbors=6, noise="keyed", noise_variance=0.02, seed=4)
    torch.testing.assert_close(given, keyed, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu_stay_there(memory: SantaMemory) -> None:
    audio = _unit(5, seed=12)
    for noise in (None, "keyed"):
        on_gpu = memory.transfer(audio.cuda(), noise=noise)  # type: ignore[arg-type]
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), memory.transfer(audio, noise=noise), atol=1e-5, rtol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("mmap", [True, False])
def test_save_and_load(tmp_path: Path, storage: Any, mmap: bool) -> None:
    made = SantaMemory.build(
        _unit(300), [f"c {i}" for i in range(300)], ["s"] * 300, clusters=8, storage=storage, encoder_fingerprint="e"
    )
    made.save(str(tmp_path / "memory"))
    read = SantaMemory.load(str(tmp_path / "memory"), mmap=mmap)
    assert (read.count, read.dim, read.clusters, read.encoder_fingerprint) == (300, 16, 8, "e")
    assert read.fingerprint == made.fingerprint
    audio = _unit(5, seed=8)
    one, other = (memory.transfer(audio, noise="keyed", explain=True) for memory in (made, read))
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]
    exact = SantaMemory.build(_unit(300), clusters=8).transfer(audio, noise="keyed")
    near = {"float32": 1e-6, "float16": 2e-3, "int8": 2e-2}[storage]
    torch.testing.assert_close(read.transfer(audio, noise="keyed"), exact, atol=near, rtol=0)
    read.save(str(tmp_path / "again"))  # also what lies mapped in another file
    (tmp_path / "memory" / "index.faiss").unlink()
    again = SantaMemory.load(str(tmp_path / "again"))
    assert again.fingerprint == made.fingerprint
    assert torch.equal(again.transfer(audio, noise="keyed"), one[0])


@pytest.mark.parametrize("mmap", [True, False])
def test_a_memory_with_a_flipped_bit_is_refused_by_name(tmp_path: Path, mmap: bool) -> None:
    """In each of its files, anywhere: never another answer, and never the end of the process in FAISS."""
    made = SantaMemory.build(_unit(60), [f"c {i}" for i in range(60)], ["s"] * 60, clusters=4, encoder_fingerprint="e")
    made.save(str(tmp_path))
    draw = np.random.default_rng(0)
    for name in ("index.faiss", "captions.parquet", "memory.json"):
        whole, refused = (tmp_path / name).read_bytes(), 0
        for at in draw.integers(0, len(whole), 60):
            changed = bytearray(whole)
            changed[at] ^= 1 << int(draw.integers(8))
            (tmp_path / name).write_bytes(changed)
            try:
                read = SantaMemory.load(str(tmp_path), mmap=mmap)
            except SettingsError as error:
                refused += str(tmp_path) in str(error) and "build it" in str(error)
            else:  # a changed name of a checksum loses the checksum alone
                assert name == "memory.json" and (read.count, read.encoder_fingerprint) == (60, "e")
        assert refused > (50 if name == "memory.json" else 59)
        for size in (0, 1, len(whole) // 2, len(whole) - 2):
            (tmp_path / name).write_bytes(whole[:size])
            with pytest.raises(SettingsError, match=r"^memory: .*build it"):
                SantaMemory.load(str(tmp_path), mmap=mmap)
        (tmp_path / name).write_bytes(whole)


def test_a_memory_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    SantaMemory.build(_unit(60), ["c"] * 60, clusters=4).save(str(tmp_path))
    told = json.loads((tmp_path / "memory.json").read_text())
    del told["checksum"], told["captions_fingerprint"]
    (tmp_path / "memory.json").write_text(json.dumps(told))
    assert SantaMemory.load(str(tmp_path)).count == 60


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_mapped_memory_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    """164 MB of vectors (a thousand, 40 times over) are loaded and asked: processes of a machine share the file."""
    rows = _unit(1000, 1024).numpy()
    empty = faiss_index.empty_index(rows[:8], "float32", rows)
    for number in range(40):
        shard = faiss_index.from_bytes(faiss_index.to_bytes(empty))
        faiss_index.fill(shard, rows, 1000 * number)
        (tmp_path / f"shard{number}").write_bytes(faiss_index.to_bytes(shard))
    shards = [tmp_path / f"shard{number}" for number in range(40)]
    fingerprint = faiss_index.merge_shards(empty, shards, tmp_path / "index.faiss")
    note = {"fingerprint": fingerprint, "dim": 1024, "count": 40_000, "clusters": 8, "storage": "float32"}
    (tmp_path / "memory.json").write_text(json.dumps(note))
    size = (tmp_path / "index.faiss").stat().st_size
    assert size > 150e6
    audio = _unit(4, 1024, seed=1)
    SantaMemory.build(rows, clusters=8).transfer(audio, noise="keyed")  # what a first call sets up is not the memory's
    for mmap in (True, False):
        before = _anonymous_bytes()
        memory = SantaMemory.load(str(tmp_path), mmap=mmap)
        memory.transfer(audio, noise="keyed")
        grown, mapped = _anonymous_bytes() - before, _mapped_bytes(tmp_path / "index.faiss")
        if mmap:
            assert grown < size / 10
        # Read into memory instead, it is not mapped; what the process grows by then depends on what it had freed.
        assert mapped >= size if mmap else mapped == 0
        del memory


def _anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def _mapped_bytes(path: Path) -> int:
    """Addresses of this process that stand for the file at ``path``."""
    spans = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return sum(int(end, 16) - int(start, 16) for start, end in (span.split("-") for span in spans))


def test_every_row_is_kept() -> None:
    """The reference's shuffle lost half of its rows."""
    memory = SantaMemory.build(_unit(500), clusters=10)
    torch.testing.assert_close(torch.from_numpy(memory.vectors(np.arange(500))), _unit(500), atol=1e-6, rtol=0)


def test_bad_memories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="captions"):
        SantaMemory.build(_unit(3), ["one"])
    with pytest.raises(SettingsError, match="finite"):
        SantaMemory.build(torch.full((3, 2), float("nan")))
    with pytest.raises(SettingsError, match="memory"):
        SantaMemory.load(str(tmp_path / "nothing"))
    SantaMemory.build(_unit(100), clusters=4).save(str(tmp_path / "cut"))
    index = tmp_path / "cut" / "index.faiss"
    index.write_bytes(index.read_bytes()[:1000])
    with pytest.raises(SettingsError, match="memory"):
        SantaMemory.load(str(tmp_path / "cut"))


@pytest.mark.parametrize("kind", ["tensor", "float64", "numpy", "list"])
def test_draws_of_any_kind_are_the_noise(memory: SantaMemory, kind: str) -> None:
    audio, draws = _unit(3, seed=5), torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(6))
    given = {"tensor": draws, "float64": draws.double(), "numpy": draws.numpy(), "list": draws.tolist()}[kind]
    clean, noisy = (memory.transfer(audio, neighbors=8, noise=noise, noise_variance=0.1) for noise in (None, given))
    torch.testing.assert_close(noisy, memory.transfer(audio, neighbors=8, noise=draws, noise_variance=0.1))
    assert (noisy - clean).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(8, 16), (2, 8, 16), (3, 7, 16), (3, 8, 15)])
def test_draws_that_do_not_fit_are_refused(memory: SantaMemory, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"noise must be \[B, neighbors, D\] = \[3, 8, 16\]"):
        memory.transfer(_unit(3), neighbors=8, noise=torch.zeros(shape))
