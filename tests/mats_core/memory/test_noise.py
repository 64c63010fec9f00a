"""Noise: its size, and that a row's draw is the row's own."""

from __future__ import annotations

import math

import pytest
import torch

from mats_core.memory.noise import as_uniform, estimate_noise, inject_noise, keyed_normal


def test_noise_is_scaled_added_and_normalised() -> None:
    # by hand: (3, 4) → (0.6, 0.8); plus √0.25 · (0, 1) → (0.6, 1.3); length √2.05
    noised = inject_noise(torch.tensor([[3.0, 4.0]]), 0.25, noise=torch.tensor([[0.0, 1.0]]))
    expected = torch.tensor([[0.6, 1.3]]) / math.sqrt(0.6**2 + 1.3**2)
    torch.testing.assert_close(noised, expected)


def test_no_variance_only_normalises() -> None:
    torch.testing.assert_close(inject_noise(torch.tensor([[3.0, 4.0]]), 0.0), torch.tensor([[0.6, 0.8]]))


def test_generator_decides_the_draw() -> None:
    embedding = torch.ones(3, 8)
    first, again = (inject_noise(embedding, 0.1, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)


def test_a_rows_draw_does_not_depend_on_its_batch() -> None:
    rows = torch.tensor([7, 0, 123_456_789_012, 7])
    together = keyed_normal(3, rows, 65)
    assert torch.equal(together[0], together[3])
    for at, row in enumerate(rows):
        assert torch.equal(keyed_normal(3, row[None], 65)[0], together[at])
    assert torch.equal(keyed_normal(3, rows.view(2, 2), 65), together.view(2, 2, 65))


def test_other_seed_stream_or_row_is_another_draw() -> None:
    row = torch.tensor([5])
    base = keyed_normal(1, row, 32)
    others = [
        keyed_normal(2, row, 32),
        keyed_normal(1 + 2**40, row, 32),
        keyed_normal(1, row, 32, stream=1),
        keyed_normal(1, row + 1, 32),
        keyed_normal(1, row + 2**32, 32),
    ]
    for other in others:
        assert (base - other).abs().max() > 0.1


def test_recorded_draws_stay_the_same() -> None:
    """A change here changes every answer of every model with a memory."""
    expected = torch.tensor(
        [[-0.8209385, 0.4458756, -1.5550929, -0.0750964], [-0.6619837, -0.5695479, 1.5466548, 0.0949379]]
    )
    torch.testing.assert_close(keyed_normal(0, torch.tensor([0, 1]), 4), expected, atol=1e-6, rtol=0)


def test_draws_are_standard_normal_and_independent() -> None:
    draws = keyed_normal(11, torch.arange(4000), 64)
    assert abs(draws.mean().item()) < 0.01
    assert abs(draws.std().item() - 1) < 0.01
    within = (draws.abs() < 1).float().mean().item()
    assert abs(within - 0.6827) < 0.005
    correlation = torch.corrcoef(draws.T) - torch.eye(64)
    assert correlation.abs().max() < 0.08  # 4000 rows: five standard errors
    neighbors = torch.corrcoef(draws[:200]) - torch.eye(200)
    assert neighbors.abs().max() < 0.65


def test_uniform_noise_has_the_same_variance() -> None:
    draws = as_uniform(keyed_normal(11, torch.arange(4000), 64))
    assert draws.abs().max() <= 3**0.5 + 1e-6
    assert abs(draws.mean().item()) < 0.01
    assert abs(draws.var().item() - 1) < 0.01
    counts = torch.histc(draws, bins=20)
    assert (counts / counts.mean() - 1).abs().max() < 0.05  # flat: each bin has 12 800 draws


def test_an_estimate_by_hand() -> None:
    """Differences (0.2, -0.6) and (1, -1): largest 0.6 and 1, of mean 0.8; squares 0.04, 0.36, 1, 1."""
    found = estimate_noise(torch.tensor([[8.0, 0.0], [5.0, 0.0]]), torch.tensor([[0.8, 0.6], [0.0, 2.0]]))
    assert found.pairs == 2
    assert found.variance == pytest.approx(0.64)
    assert found.standard_error == pytest.approx(2 * 0.8 * 0.2)  # deviation 0.2 · √2, over √2 pairs; of a square
    assert found.mean_square == pytest.approx(0.6)
    assert found.centred == pytest.approx((0.4**2 + 0.4**2 + 0.2**2 + 0.2**2) / 2)
    assert found.cosine == pytest.approx(0.4)


def test_noise_of_a_known_variance_is_found_a_dimension() -> None:
    """Gaussian differences: the mean square is their variance; the largest of 1 024 is about 3.46 deviations."""
    text = torch.nn.functional.normalize(torch.randn(200, 1024, generator=torch.Generator().manual_seed(0)), dim=-1)
    audio = text + 0.01 * keyed_normal(5, torch.arange(200), 1024)
    found = estimate_noise(audio, text)
    assert found.mean_square == pytest.approx(1e-4, rel=0.15)  # a little is lost when the sum is normalised
    assert (found.variance / found.mean_square) ** 0.5 == pytest.approx(3.46, rel=0.03)


def test_an_offset_is_no_noise() -> None:
    text = torch.nn.functional.normalize(torch.randn(50, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    found = estimate_noise(text + torch.full((64,), 0.02), text)
    assert found.centred < 0.2 * found.mean_square


def test_no_pairs_are_refused() -> None:
    for audio, text in ((torch.ones(1, 4), torch.ones(1, 4)), (torch.ones(3, 4), torch.ones(2, 4))):
        with pytest.raises(ValueError, match="no two or more pairs"):
            estimate_noise(audio, text)
