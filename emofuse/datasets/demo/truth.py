"""The plan of the demo: its cues, their lies, and the accuracy that each subset of cues can reach.

The eight labels are three bits, one per cue. A cue shows its bit of the label or, with a known probability, the
opposite bit (a *lie*). So the best accuracy of any classifier is known exactly, and results can be compared with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emofuse.datasets.splits import stratified_split
from emofuse.specs import StratifiedSplit

Cue = Literal["expression", "scene", "texture"]
Damage = Literal["truncated", "noise"]

# EmoSet's labels in EmoSet's order. Bit 2 of the index is the expression, bit 1 the scene, bit 0 the texture: the
# four positive emotions smile, the four negative ones frown.
CLASSES = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
CUES: tuple[Cue, ...] = ("expression", "scene", "texture")
CUE_VALUES: Mapping[Cue, tuple[str, str]] = {
    "expression": ("smile", "frown"),
    "scene": ("warm", "cool"),
    "texture": ("smooth", "grain"),
}
CUE_STREAMS: Mapping[Cue, tuple[str, ...]] = {
    "expression": ("landmarks", "action_units"),
    "scene": ("places365", "resnet50"),
    "texture": ("lbp",),
}
LIES: Mapping[Cue, float] = {"expression": 0.10, "scene": 0.08, "texture": 0.12}
FACE_CUES: tuple[Cue, ...] = ("expression", "texture")
NO_FACE_SHARE = 0.15
CORRUPT_SHARE = 0.005
MIN_CORRUPT = 2
SPLIT_SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DemoSample:
    """One row of the demo, before it is drawn.

    Attributes:
        sample_id: the id `<emotion>_NNNNN`, with gaps in the numbers as in EmoSet.
        label: one of `CLASSES`.
        split: train, val or test.
        damage: how the file is damaged after it was drawn; None for an intact file.
        has_face: whether a face is drawn.
        shown: the bit that each cue shows, an index into `CUE_VALUES`; None where the cue cannot be seen.
    """

    sample_id: str
    label: str
    split: str
    damage: Damage | None
    has_face: bool
    shown: Mapping[Cue, int | None]

    def as_json(self) -> dict[str, Any]:
        """Return the truth on the row as plain data: for every cue, the value of the label and the value shown."""
        cues: dict[str, dict[str, str | None]] = {}
        for cue, bit in true_bits(self.label).items():
            shown = self.shown[cue]
            values = CUE_VALUES[cue]
            cues[cue] = {"true": values[bit], "shown": None if shown is None else values[shown]}
        return {
            "sample_id": self.sample_id,
            "label": self.label,
            "split": self.split,
            "damage": self.damage,
            "has_face": self.has_face,
            "cues": cues,
        }


def true_bits(label: str) -> dict[Cue, int]:
    """Return the bit of every cue for a label."""
    index = CLASSES.index(label)
    return {cue: index >> (len(CUES) - 1 - position) & 1 for position, cue in enumerate(CUES)}


def plan_samples(images: int, seed: int) -> list[DemoSample]:
    """Decide the label, split, face, lies and damage of every row, without drawing anything.

    Faces and lies are spread evenly over splits and labels (see `spread_evenly`), so that a small test split is as
    difficult as defined, within a row or two, and not easier or harder by chance.

    Args:
        images: the number of rows N; from 24 on, no split of a label is empty.
        seed: the seed, 0 or more.
    """
    rng = np.random.default_rng([seed, images])
    labels = [CLASSES[i] for i in rng.permutation(np.arange(images) % len(CLASSES))]
    splits = [str(split) for split in stratified_split(labels, StratifiedSplit(**SPLIT_SHARES, seed=seed))]
    groups = [f"{split}/{label}" for split, label in zip(splits, labels, strict=True)]

    corrupt = np.zeros(images, dtype=bool)
    corrupt[rng.choice(images, size=max(MIN_CORRUPT, round(CORRUPT_SHARE * images)), replace=False)] = True
    has_face = ~spread_evenly(rng, groups, np.ones(images, dtype=bool), NO_FACE_SHARE)
    visible = {cue: ~corrupt & has_face if cue in FACE_CUES else ~corrupt for cue in CUES}
    lies = {cue: spread_evenly(rng, groups, visible[cue], LIES[cue]) for cue in CUES}

    kinds: itertools.cycle[Damage] = itertools.cycle(("truncated", "noise"))
    ids = _ids_with_gaps(rng, labels)
    return [
        DemoSample(
            sample_id=ids[row],
            label=label,
            split=splits[row],
            damage=next(kinds) if corrupt[row] else None,
            has_face=bool(has_face[row]),
            shown={
                cue: bit ^ int(lies[cue][row]) if visible[cue][row] else None for cue, bit in true_bits(label).items()
            },
        )
        for row, label in enumerate(labels)
    ]


def describe_truth(samples: Sequence[Mapping[str, Any]], lies: Mapping[str, float]) -> dict[str, Any]:
    """Return the reachable accuracies, from the rows of the demo (see `DemoSample.as_json`) and its lies.

    A classifier that knows the cues S observes O = S & V in a row whose visible cues are V. All labels are equally
    likely a priori and cues lie independently with p_c < 1/2. So the posterior is highest for the 2^(3 - |O|) labels
    that agree with all of O, and the choice among these is random:

        accuracy(S | V) = 2^-(3 - |O|) * product over c in O of (1 - p_c)

    The reachable accuracy of S is the mean of this over the rows: V is all three cues with a face, the scene alone
    without one, and nothing (hence 1/8) in a corrupt file. It is an expectation over the lies, around which a finite
    test split scatters.

    Returns:
        Plain JSON: `cue_accuracy`, cue to 1 - p_c; `reachable_accuracy`, every non-empty subset (names sorted and
        joined by `+`) to its accuracy; `cue_streams`, cue to the streams that can see it.
    """
    visible = [{cue for cue in CUES if row["cues"][cue]["shown"] is not None} for row in samples]
    subsets = [subset for size in range(1, len(CUES) + 1) for subset in itertools.combinations(sorted(CUES), size)]
    reachable = {}
    for subset in subsets:
        observed = [seen.intersection(subset) for seen in visible]
        scores = [2.0 ** (len(o) - len(CUES)) * math.prod(1 - lies[cue] for cue in sorted(o)) for o in observed]
        reachable["+".join(subset)] = math.fsum(scores) / len(scores)
    return {
        "cue_accuracy": {cue: 1 - lies[cue] for cue in CUES},
        "reachable_accuracy": reachable,
        "cue_streams": {cue: list(streams) for cue, streams in CUE_STREAMS.items()},
    }


def spread_evenly(rng: np.random.Generator, groups: Sequence[str], among: Bools, share: float) -> Bools:
    """Choose rows of `among`, bool (N,), with probability `share`, so that the count of each group is right within 1.

    This is a systematic sample: rows are ordered by group, at random within it, and every 1/share-th is chosen from a
    random start on.
    """
    rows = np.flatnonzero(among)
    shuffled = rows[rng.permutation(len(rows))]
    ordered = sorted(shuffled, key=lambda row: groups[row])
    steps = np.floor(np.arange(len(rows) + 1) * share + rng.random())
    chosen = np.zeros(len(groups), dtype=bool)
    chosen[np.asarray(ordered, dtype=int)[np.diff(steps) > 0]] = True
    return chosen


def _ids_with_gaps(rng: np.random.Generator, labels: Sequence[str]) -> list[str]:
    """Return an id `<emotion>_NNNNN` per row; the numbers of an emotion increase by 1, 2 or 3."""
    last = dict.fromkeys(CLASSES, 0)
    ids = []
    for label in labels:
        last[label] += int(rng.integers(1, 4))
        ids.append(f"{label}_{last[label]:05d}")
    return ids
