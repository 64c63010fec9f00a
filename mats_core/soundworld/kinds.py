"""The kinds of sound of the embedded world: how each is synthesised and over which range it varies.

Every kind is a function ``(rng, n, pitch, rate) -> float32 [n]`` at 16 kHz, where ``pitch`` is a
frequency in Hz and ``rate`` a number of events (or cycles) a second. The ranges below span at least
an octave in pitch or a factor of two in rate, so that no kind is a fixed template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfilt

SAMPLE_RATE = 16_000
Array = np.ndarray
Render = Callable[[np.random.Generator, int, float, float], Array]


@dataclass(frozen=True)
class Kind:
    """One kind of sound: its group, the ranges it varies over, and its synthesiser."""

    name: str
    group: str
    pitch: tuple[float, float]
    rate: tuple[float, float]
    render: Render
    says_pitch: bool = False
    says_rate: bool = False


def _time(n: int) -> Array:
    return np.arange(n, dtype=np.float32) / SAMPLE_RATE


def _noise(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal(n, dtype=np.float32)


@lru_cache(maxsize=4096)
def _filter(low: float | None, high: float | None, order: int) -> Array:
    top = 0.49 * SAMPLE_RATE
    kind = "low" if low is None else "high" if high is None else "band"
    edges = {"low": min(high or top, top), "high": low, "band": [low, min(high or top, top)]}[kind]
    return butter(order, edges, kind, output="sos", fs=SAMPLE_RATE).astype(np.float32)


def _band(x: Array, low: float | None, high: float | None, order: int = 2) -> Array:
    """Butterworth band, low (``low=None``) or high (``high=None``) pass; edges in Hz, kept to two digits."""
    edges = [None if f is None else float(f"{f:.2g}") for f in (low, high)]
    return sosfilt(_filter(edges[0], edges[1], order), x).astype(np.float32)


def _phase(frequency: Array | float, n: int) -> Array:
    f = np.broadcast_to(np.asarray(frequency, dtype=np.float64), (n,))
    return (2 * np.pi * np.cumsum(f) / SAMPLE_RATE).astype(np.float32)


def _harmonics(phase: Array, amplitudes: list[float]) -> Array:
    return sum((a * np.sin((k + 1) * phase) for k, a in enumerate(amplitudes)), np.zeros_like(phase))


def _slow(rng: np.random.Generator, n: int, hertz: float, low: float = 0.0, high: float = 1.0) -> Array:
    """A smooth random curve between ``low`` and ``high`` that turns about ``hertz`` times a second."""
    points = max(3, int(n / SAMPLE_RATE * hertz * 2) + 3)
    values = rng.uniform(low, high, points)
    return np.interp(np.linspace(0, points - 1, n), np.arange(points), values).astype(np.float32)


def _decay(n: int, seconds: float, attack: float = 0.002) -> Array:
    t = _time(n)
    return (np.minimum(1.0, t / attack) * np.exp(-t / seconds)).astype(np.float32)


def _hump(n: int, sharp: float = 1.0) -> Array:
    return (np.sin(np.pi * (np.arange(n) + 0.5) / max(n, 1)) ** sharp).astype(np.float32)


def _onsets(rng: np.random.Generator, n: int, rate: float, jitter: float) -> list[int]:
    """Sample positions of events at ``rate`` a second, each moved by up to ``jitter`` of a period."""
    period = SAMPLE_RATE / rate
    first = rng.uniform(0, min(0.3 * period, 0.1 * SAMPLE_RATE))
    count = max(1, int(np.ceil((n - first - 0.08 * SAMPLE_RATE) / period)))
    return [max(0, int(first + (i + jitter * rng.uniform(-0.5, 0.5) * (i > 0)) * period)) for i in range(count)]


def _place(n: int, onsets: list[int], grain: Callable[[int], Array]) -> Array:
    """Sum ``grain(i)`` at each onset, cut at the end."""
    out = np.zeros(n, dtype=np.float32)
    for i, at in enumerate(onsets):
        if at >= n:
            break
        piece = grain(i)[: n - at]
        out[at : at + len(piece)] += piece
    return out


def _seconds(s: float) -> int:
    return max(8, int(s * SAMPLE_RATE))


KINDS: dict[str, Kind] = {}


def _kind(
    group: str, pitch: tuple[float, float], rate: tuple[float, float], says_pitch: bool = False,
    says_rate: bool = False, jitter: float | None = None,
) -> Callable[[Render], Render]:  # fmt: skip
    """Enter a synthesiser into `KINDS` by its name. With a jitter it makes one event, and its second argument is which:
    events come at the rate, each moved by up to this part of a period."""

    def enter(function: Render) -> Render:
        def events(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
            return _place(n, _onsets(rng, n, rate, jitter or 0.0), lambda i: function(rng, i, pitch, rate))

        name = function.__name__.removeprefix("_")
        render = function if jitter is None else events
        KINDS[name] = Kind(name, group, pitch, rate, render, says_pitch, says_rate)
        return function

    return enter


@_kind("weather", (700, 2000), (40, 400))
def _rain(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    hiss = _band(_noise(rng, n), pitch, None, 1) * _slow(rng, n, 0.7, 0.8, 1.0)
    drops = (rng.random(n) < rate / SAMPLE_RATE).astype(np.float32) * rng.uniform(4, 16, n).astype(np.float32)
    return 0.5 * hiss + _band(drops, pitch * 1.3, 6500, 1)


@_kind("weather", (250, 800), (0.4, 1.2))
def _wind(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    x = _noise(rng, n)
    low, high = _band(x, pitch * 0.5, pitch), _band(x, pitch, pitch * 2)
    gust = _slow(rng, n, rate)
    return (low * (1.1 - gust) + 1.4 * high * gust) * (0.35 + gust)


@_kind("weather", (60, 160), (0.3, 0.7), jitter=0.3)
def _thunder(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(rng.uniform(1.2, 2.4))
    crack = _noise(rng, m) * _decay(m, 0.05)
    rumble = _band(_noise(rng, m), None, pitch) * _decay(m, 0.8, 0.03) * _slow(rng, m, 5, 0.3, 1)
    return 6 * rumble + 0.35 * _band(crack, None, 1500)


@_kind("animal", (1900, 4800), (2.2, 7), says_pitch=True, says_rate=True)
def _bird(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    sweep, trill = rng.uniform(-0.5, 0.5), rng.uniform(0, 0.12)
    length = rng.uniform(0.06, 0.16)

    def chirp(i: int) -> Array:
        m = _seconds(length * rng.uniform(0.8, 1.2))
        u = np.linspace(0, 1, m)
        f = pitch * 2 ** (sweep * (u - 0.5)) * (1 + trill * np.sin(2 * np.pi * 28 * _time(m)))
        return np.sin(_phase(np.minimum(f, 7600), m)) * _hump(m)

    return _place(n, _onsets(rng, n, rate, 0.35), chirp)


@_kind("animal", (220, 620), (1.0, 3.2), says_pitch=True, says_rate=True, jitter=0.35)
def _dog(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(rng.uniform(0.14, 0.22))
    u = np.linspace(0, 1, m)
    f = pitch * rng.uniform(0.95, 1.05) * (0.75 + 0.5 * np.sin(np.pi * u**0.7))
    tone = _harmonics(_phase(f, m), [0.6, 1.0, 0.9, 0.6, 0.4, 0.25])
    rough = _band(_noise(rng, m), 500, 2200)
    return (tone + 1.2 * rough) * _hump(m, 0.7) * np.exp(-2.0 * u).astype(np.float32)


@_kind("animal", (380, 900), (0.7, 1.4), says_pitch=True, jitter=0.2)
def _cat(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(rng.uniform(0.5, 0.8))
    u = np.linspace(0, 1, m)
    f = pitch * (0.85 + 0.45 * np.sin(np.pi * u**0.6) - 0.25 * u)
    f = f * (1 + 0.012 * np.sin(2 * np.pi * 7 * _time(m)))
    p = _phase(f, m)
    bright = np.sin(np.pi * u).astype(np.float32)
    return (np.sin(p) + bright * (0.9 * np.sin(2 * p) + 0.8 * np.sin(3 * p) + 0.4 * np.sin(4 * p))) * _hump(m, 0.6)


@_kind("animal", (3400, 7000), (1.6, 5), says_rate=True)
def _cricket(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    pulses = int(rng.integers(3, 5))

    def chirp(i: int) -> Array:
        m = _seconds(0.022)
        one = np.concatenate([np.sin(_phase(pitch, m)) * _hump(m), np.zeros(_seconds(0.012), dtype=np.float32)])
        return np.tile(one, pulses)

    return _place(n, _onsets(rng, n, rate, 0.06), chirp)


@_kind("animal", (280, 800), (0.9, 2.6), says_pitch=True, says_rate=True)
def _frog(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    pulse_rate = rng.uniform(35, 60)

    def croak(i: int) -> Array:
        m = _seconds(rng.uniform(0.2, 0.32))
        t = _time(m)
        pulses = (0.5 + 0.5 * np.sin(2 * np.pi * pulse_rate * t)) ** 3
        f = pitch * (1 + 0.15 * t / t[-1])
        return _harmonics(_phase(f, m), [1.0, 0.5, 0.7, 0.2]) * pulses.astype(np.float32) * _hump(m, 0.5)

    return _place(n, _onsets(rng, n, rate, 0.15), croak)


@_kind("machine", (45, 130), (4, 12), says_pitch=True)
def _engine(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    f = pitch * _slow(rng, n, 0.5, 0.93, 1.07)
    tone = _harmonics(_phase(f, n), [1, 0.9, 0.7, 0.8, 0.5, 0.4, 0.35, 0.25, 0.2])
    shake = 0.75 + 0.25 * np.sin(_phase(rate, n))
    return (tone + 0.35 * _band(_noise(rng, n), None, 900)) * shake


@_kind("machine", (150, 420), (0.4, 1.6), says_pitch=True)
def _saw(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    rev = 1 + 0.22 * np.sin(_phase(rate, n) + rng.uniform(0, 6.28))
    p = _phase(pitch * rev, n)
    buzz = _harmonics(p, [1 / k**0.5 for k in range(1, 16)])
    return buzz + 0.8 * _band(_noise(rng, n), 2000, 7000) * (0.6 + 0.4 * np.sin(p))


@_kind("alarm", (550, 1400), (0.35, 2.2), says_pitch=True, says_rate=True)
def _siren(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    cycle = _phase(rate, n) + rng.uniform(0, 6.28)
    shape = np.sin(cycle) if rng.random() < 0.6 else np.sign(np.sin(cycle))
    f = pitch * 2 ** (0.5 * shape)
    return _harmonics(_phase(f, n), [1.0, 0.35, 0.3, 0.1, 0.12])


@_kind("alarm", (900, 3000), (1.8, 6), says_pitch=True, says_rate=True)
def _alarm(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.5 / rate)
    beep = np.clip(3 * np.sin(_phase(pitch, m)), -1, 1) * np.minimum(1, _hump(m) * 8)
    return _place(n, _onsets(rng, n, rate, 0.0), lambda i: beep)


@_kind("alarm", (600, 1500), (0.6, 1.4), says_pitch=True)
def _telephone(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.62 / rate)
    trill = np.sign(np.sin(_phase(rng.uniform(18, 26), m)))
    f = pitch * np.where(trill > 0, 1.0, 1.26)
    ring = _harmonics(_phase(f, m), [1.0, 0.2, 0.4]) * np.minimum(1, _hump(m) * 12)
    return _place(n, _onsets(rng, n, rate, 0.0), lambda i: ring)


# Ratio to the strike note, amplitude, decay in seconds.
BELL = (
    (0.5, 0.5, 2.0), (1.0, 1.0, 1.4), (1.19, 0.6, 1.0), (1.5, 0.35, 0.9), (2.0, 0.7, 0.7), (2.74, 0.5, 0.5),
    (4.07, 0.3, 0.3),
)  # fmt: skip


@_kind("alarm", (300, 1300), (0.5, 1.8), says_pitch=True, says_rate=True, jitter=0.05)
def _bell(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(2.2)
    t = _time(m)
    return sum(
        (a * np.sin(2 * np.pi * min(pitch * r, 7800) * t) * np.exp(-t / d) for r, a, d in BELL),
        np.zeros(m, dtype=np.float32),
    ).astype(np.float32)


@_kind("household", (140, 420), (2.5, 8), says_rate=True)
def _knock(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    def hit(i: int) -> Array:
        m = _seconds(0.12)
        t = _time(m)
        wood = sum(np.sin(2 * np.pi * pitch * r * t + r) for r in (1.0, 1.63, 2.41)) * _decay(m, 0.022, 0.0008)
        return rng.uniform(0.7, 1.0) * (wood + 0.6 * _band(_noise(rng, m), 300, 2500) * _decay(m, 0.008, 0.0008))

    beats = _onsets(rng, n, rate, 0.08)
    group = int(rng.integers(3, 6))
    kept = [b for i, b in enumerate(beats) if i % (group + 2) < group]
    return _place(n, kept, hit)


@_kind("household", (2200, 5000), (1.5, 5.5), says_rate=True, jitter=0.0)
def _clock(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.03)
    f = pitch * (1.0 if i % 2 == 0 else 0.72)
    return np.sin(_phase(f, m)) * _decay(m, 0.005, 0.0004) + 0.3 * _noise(rng, m) * _decay(m, 0.002, 0.0004)


@_kind("household", (70, 160), (1.2, 3.4), says_rate=True, jitter=0.1)
def _footsteps(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.22)
    thud = np.sin(_phase(pitch * np.exp(-6 * _time(m)), m)) * _decay(m, 0.04, 0.003)
    heel_and_toe = 0.8 * _decay(m, 0.012) + np.roll(0.5 * _decay(m, 0.05, 0.02), _seconds(0.06))
    scuff = _band(_noise(rng, m), 1200, 5500) * heel_and_toe
    return rng.uniform(0.75, 1) * (1.6 * thud + 0.55 * scuff)


@_kind("household", (600, 1700), (1.2, 5), says_pitch=True, says_rate=True, jitter=0.5)
def _drops(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.12)
    f = pitch * rng.uniform(0.9, 1.1) * (1 + 2.2 * _time(m) / 0.1)
    return np.sin(_phase(np.minimum(f, 7500), m)) * _decay(m, 0.03, 0.002)


@_kind("household", (2200, 4400), (0.5, 1.3), jitter=0.3)
def _glass(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.7)
    out = 1.2 * _band(_noise(rng, m), 3000, None) * _decay(m, 0.03, 0.001)
    for _ in range(22):
        at = int(min(rng.exponential(0.1), 0.45) * SAMPLE_RATE)
        k = m - at
        f = min(pitch * rng.uniform(0.7, 2.4), 7700)
        ping = np.sin(2 * np.pi * f * _time(k)) * rng.uniform(0.2, 0.7)
        out[at:] += ping * _decay(k, rng.uniform(0.02, 0.09), 0.0005)
    return out


@_kind("music", (350, 2600), (3, 7), says_pitch=True)
def _tone(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    f = pitch * (1 + 0.004 * np.sin(_phase(rate, n)))
    return _harmonics(_phase(f, n), [1.0, rng.uniform(0, 0.3), rng.uniform(0, 0.2)])


SCALES = ([0, 2, 4, 7, 9, 12], [0, 3, 5, 7, 10, 12], [0, 2, 4, 5, 7, 9, 11, 12])


@_kind("music", (180, 620), (1.8, 6), says_pitch=True, says_rate=True)
def _melody(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    scale = SCALES[int(rng.integers(len(SCALES)))]
    pluck = rng.random() < 0.6
    state = int(rng.integers(len(scale)))

    def note(i: int) -> Array:
        nonlocal state
        state = int(np.clip(state + rng.choice([-2, -1, 1, 2]), 0, len(scale) - 1))
        m = _seconds(0.55 if pluck else 0.95 / rate)
        f = pitch * 2 ** (scale[state] / 12)
        envelope = _decay(m, 0.18, 0.004) if pluck else np.minimum(1, 6 * _hump(m)) * 0.7
        return _harmonics(_phase(f, m), [1.0, 0.55, 0.35, 0.2, 0.1] if pluck else [1, 0.1, 0.5, 0.05, 0.25]) * envelope

    return _place(n, _onsets(rng, n, rate, 0.0), note)


@_kind("music", (50, 120), (1.8, 6), says_rate=True, jitter=0.0)
def _drum(rng: np.random.Generator, i: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.2)
    if i % 2 == 0:
        f = pitch * (1 + 2.5 * np.exp(-_time(m) / 0.015))
        return 1.5 * np.sin(_phase(f, m)) * _decay(m, 0.09, 0.002)
    snare = 0.9 * _band(_noise(rng, m), 1500, 7500) * _decay(m, 0.05, 0.001)
    return snare + 0.5 * np.sin(_phase(190, m)) * _decay(m, 0.05)


VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


@_kind("person", (90, 260), (2.4, 5.5), says_pitch=True, says_rate=True)
def _voice(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    f = pitch * _slow(rng, n, 1.5, 0.82, 1.18)
    p = _phase(f, n)
    buzz = _harmonics(p, [1 / k for k in range(1, 25)])
    out = np.zeros(n, dtype=np.float32)
    for at in _onsets(rng, n, rate, 0.4):
        m = min(_seconds(rng.uniform(0.6, 0.95) / rate), n - at)
        if m < 64:
            continue
        vowel = VOWELS[int(rng.integers(len(VOWELS)))]
        piece = buzz[at : at + m]
        formed = sum(_band(piece, c * 0.88, c * 1.12, 1) * g for c, g in zip(vowel, (1.0, 0.7, 0.4), strict=True))
        out[at : at + m] += formed * _hump(m, 0.6)
        if rng.random() < 0.3:
            k = min(_seconds(0.05), n - at)
            out[at : at + k] += 0.12 * _band(_noise(rng, k), 3500, 7000) * _hump(k)
    return out


@_kind("person", (900, 2200), (18, 60))
def _applause(rng: np.random.Generator, n: int, pitch: float, rate: float) -> Array:
    m = _seconds(0.03)
    hands = [pitch * 2 ** rng.uniform(-0.5, 0.5) for _ in range(12)]
    claps = [_band(_noise(rng, m), f * 0.7, f * 1.4) * _decay(m, 0.008, 0.001) for f in hands]
    return _place(
        n, _onsets(rng, n, rate, 1.8), lambda i: np.float32(rng.uniform(0.3, 1.0)) * claps[int(rng.integers(12))]
    )
