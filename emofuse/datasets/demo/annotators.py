"""The annotations of the demo: votes of ten annotators, valence and arousal, from the cues that an image shows.

They are drawn when the dataset is read, from its truth and seed, so that images, ids and labels stay as they were.
Nobody can annotate a corrupt file: its numbers are missing and it has no vote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from emofuse.checksum import seed_of
from emofuse.datasets.demo.truth import CLASSES, CUE_VALUES, CUES, true_bits

ANNOTATORS = 10
VALENCE = {"smile": 0.6, "frown": -0.6}
AROUSAL = {"warm": 0.5, "cool": -0.5}
_DEVIATION = 0.15
_UNIT = 3  # decimals


def draw_annotations(samples: Sequence[Mapping[str, Any]], lies: Mapping[str, float], seed: int) -> pl.DataFrame:
    """Return a table (N rows) of `sample_id`, `valence`, `arousal` and `votes_<emotion>` for each of `CLASSES`.

    An annotator who sees the cues votes for an emotion with its posterior probability, where all emotions are equally
    likely a priori. Valence follows the expression and arousal the scene, with normal noise, within -1 and 1; without
    a face, valence is near 0. What an image gets depends on the seed and its id alone.

    Args:
        samples: the rows of the demo, see `DemoSample.as_json`.
        lies: cue -> the probability that it shows the opposite of the label.
        seed: the seed of the demo.
    """
    columns: dict[str, list[Any]] = {"sample_id": [], "valence": [], "arousal": []}
    columns |= {f"votes_{name}": [] for name in CLASSES}
    for sample in samples:
        shown: dict[str, str | None] = {cue: sample["cues"][cue]["shown"] for cue in CUES}
        rng = np.random.default_rng(seed_of(seed, sample["sample_id"]))
        noise = rng.normal(0, _DEVIATION, 2)
        votes = rng.multinomial(ANNOTATORS, _posterior(shown, lies))
        is_seen = any(value is not None for value in shown.values())
        columns["sample_id"].append(sample["sample_id"])
        for name, means, cue, error in (
            ("valence", VALENCE, "expression", noise[0]),
            ("arousal", AROUSAL, "scene", noise[1]),
        ):
            number = min(max(means.get(str(shown[cue]), 0.0) + error, -1.0), 1.0)
            columns[name].append(round(number, _UNIT) if is_seen else None)
        for name, count in zip(CLASSES, votes.tolist(), strict=True):
            columns[f"votes_{name}"].append(count if is_seen else 0)
    return pl.DataFrame(columns, schema_overrides={"valence": pl.Float64, "arousal": pl.Float64})


def _posterior(shown: Mapping[str, str | None], lies: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return the probability of each emotion (8,), given the cues that can be seen."""
    likelihoods = []
    for name in CLASSES:
        bits = true_bits(name)
        terms = [
            1 - lies[cue] if CUE_VALUES[cue][bits[cue]] == shown[cue] else lies[cue]
            for cue in CUES
            if shown[cue] is not None
        ]
        likelihoods.append(math.prod(terms))
    return np.array(likelihoods) / sum(likelihoods)
