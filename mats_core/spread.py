"""Whether vectors tell anything apart: a text tower that has collapsed, a memory or a table whose rows are all alike.

The measure is the mean cosine of all pairs, 1 where all vectors are one. Of sentences that have nothing in common it
is 0.64 for the shipped CLAP; published for LAION's, 0.18 (clap-htsat-unfused) and 0.29 (larger_clap_general), and
0.9993 for larger_clap_music, whose text tower has collapsed (issue 5069 of embeddings-benchmark/mteb); towers with
random weights come to 0.99 and more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mats_core.errors import SettingsError

COLLAPSED, DOUBTFUL = 0.99, 0.85
"""Mean cosine of SENTENCES from which on texts cannot be told apart, and from which on it is worth a word."""
ROWS_ALIKE, LEAST_ROWS = 0.995, 32
"""The same of a table's or a memory's own rows, which may all speak of one thing; fewer rows are not judged."""
READ_ROWS = 256
"""Rows of a table or memory that are looked at."""
SENTENCES = (
    "A dog barks twice.",
    "Heavy rain falls on a tin roof.",
    "A woman gives a speech in a quiet hall.",
    "The siren of an ambulance passes by.",
    "Birds sing in a forest at dawn.",
    "A distorted electric guitar plays a fast solo.",
    "A diesel engine idles.",
    "Waves break on a pebble beach.",
    "A small child laughs.",
    "Somebody types on a keyboard.",
    "A large church bell tolls.",
    "A helicopter hovers overhead.",
    "A pane of glass shatters.",
    "A cat purrs.",
    "Slow piano music with soft strings.",
    "A crowd cheers in a stadium.",
    "Thunder rumbles far away.",
    "A train brakes with a squeal.",
    "Water boils in a kettle.",
    "A heavy door is slammed.",
    "An old man coughs.",
    "Fireworks explode one after another.",
    "A flock of sheep bleats.",
    "A drum plays a steady beat.",
    "Footsteps on gravel come closer.",
    "A telephone rings.",
    "A saw cuts through wood.",
    "A newborn baby cries.",
    "Wind howls around a house.",
    "Frogs croak near a pond.",
    "The low hum of a refrigerator.",
    "A choir sings without instruments.",
)


def mean_cosine(vectors: Any) -> float:
    """Mean cosine of all pairs of rows [N, D], in one pass; rows that are zero or not finite are alike, and like no
    other. 0 of fewer than two rows."""
    rows = np.asarray(vectors, np.float64)
    if len(rows) < 2:
        return 0.0
    lengths = np.linalg.norm(rows, axis=1)
    fit = np.isfinite(lengths) & (lengths > 0)
    unit = np.where(fit[:, None], rows, 0.0) / np.where(fit, lengths, 1.0)[:, None]
    unfit = float((~fit).sum())
    total = float(np.square(unit.sum(axis=0)).sum()) + unfit**2
    return (total - len(rows)) / (len(rows) * (len(rows) - 1))


def some_rows(count: int) -> np.ndarray:
    """Up to READ_ROWS row numbers of `count`, int64, evenly spread."""
    return np.unique(np.linspace(0, count - 1, READ_ROWS).astype(np.int64))


def text_cosine(encoder: Any) -> float:
    """Mean cosine of SENTENCES as an encoder (`embed_text`) embeds them."""
    return mean_cosine(encoder.embed_text(SENTENCES).float().cpu().numpy())


def refuse_collapsed(encoder: Any, uri: str, setting: str = "encoder") -> float:
    """`text_cosine`; SettingsError where the encoder cannot tell texts apart. A few hundredths of a second."""
    found = text_cosine(encoder)
    if found >= COLLAPSED:
        problem = (
            f"the text tower of {uri} has collapsed: {len(SENTENCES)} sentences that have nothing in common get "
            f"vectors with a mean cosine of {found:.4f} (at most {COLLAPSED}; 0.2 to 0.7 are usual)"
        )
        raise SettingsError(setting, problem, "give another checkpoint: with this one no text can be told from another")
    return found


def doubt(cosine: float) -> str:
    """What there is to say of an encoder's `text_cosine`; "" where nothing is."""
    return f"; more than {DOUBTFUL}: texts are hardly told apart" if cosine > DOUBTFUL else ""


def refuse_alike(rows: Any, what: str, setting: str, remedy: str) -> float:
    """Mean cosine of a table's or a memory's rows [N, D]; SettingsError where they are all alike."""
    found = mean_cosine(rows)
    if len(rows) >= LEAST_ROWS and found >= ROWS_ALIKE:
        problem = (
            f"the vectors of {what} are all alike: {len(rows)} of them have a mean cosine of {found:.4f} "
            f"(at most {ROWS_ALIKE}), so nothing can be told apart by them"
        )
        raise SettingsError(setting, problem, remedy)
    return found
