"""The plan of the demo of clips: its cues, their lies, and the accuracy that each subset of cues can reach.

The eight labels are three bits, one per cue. A cue shows its bit of the label or, with a known probability, the
opposite bit (a *lie*).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from emofuse.datasets.demo.truth import spread_evenly

Cue = Literal["mouth", "blush", "voice"]

# RAVDESS's labels in RAVDESS's order. Bit 2 of the index is the mouth, bit 1 the blush, bit 0 the voice.
CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CUES: tuple[Cue, ...] = ("mouth", "blush", "voice")
CUE_VALUES: Mapping[Cue, tuple[str, str]] = {
    "mouth": ("opens", "closes"),
    "blush": ("blushes", "pales"),
    "voice": ("steady", "trembling"),
}
CUE_STREAMS: Mapping[Cue, tuple[str, ...]] = {
    "mouth": ("frames",),
    "blush": ("frames",),
    "voice": ("mfcc", "mel", "egemaps", "speech"),
}
ORDER_CUES: tuple[Cue, ...] = ("mouth", "blush")
"""The cues that only the order of the frames shows."""
LIES: Mapping[Cue, float] = {"mouth": 0.06, "blush": 0.05, "voice": 0.08}
SPEAKERS = 12


@dataclass(frozen=True)
class DemoClip:
    """One clip, before it is drawn.

    Attributes:
        sample_id: the stem of its file.
        label: one of `CLASSES`.
        speaker: the index of its speaker.
        shown: the bit that each cue shows, an index into `CUE_VALUES`.
    """

    sample_id: str
    label: str
    speaker: int
    shown: Mapping[Cue, int]

    @property
    def speaker_id(self) -> str:
        """The name of the speaker."""
        return speaker_id(self.speaker)

    def as_json(self) -> dict[str, Any]:
        """Return the truth on the clip as plain data: for every cue, the value of the label and the value shown."""
        bits = true_bits(self.label)
        cues = {cue: {"true": CUE_VALUES[cue][bits[cue]], "shown": CUE_VALUES[cue][self.shown[cue]]} for cue in CUES}
        return {"sample_id": self.sample_id, "label": self.label, "speaker": self.speaker_id, "cues": cues}


def speaker_id(speaker: int) -> str:
    """Return the name of a speaker."""
    return f"s{speaker + 1:02d}"


def true_bits(label: str) -> dict[Cue, int]:
    """Return the bit of every cue for a label."""
    index = CLASSES.index(label)
    return {cue: index >> (len(CUES) - 1 - position) & 1 for position, cue in enumerate(CUES)}


def plan_clips(clips: int, seed: int) -> list[DemoClip]:
    """Decide the speaker, label and lies of every clip, without drawing anything.

    Speakers have equally many clips of each label, as far as the number allows. Lies are spread evenly over speakers,
    so that a fold of a few speakers is as difficult as defined, within a row or two.

    Args:
        clips: the number of clips N.
        seed: the seed, 0 or more.
    """
    rng = np.random.default_rng([seed, clips])
    speakers = [index // len(CLASSES) % SPEAKERS for index in range(clips)]
    labels = [CLASSES[index % len(CLASSES)] for index in range(clips)]
    takes = [index // (len(CLASSES) * SPEAKERS) + 1 for index in range(clips)]
    groups = [speaker_id(speaker) for speaker in speakers]
    every = np.ones(clips, dtype=bool)
    lies = {cue: spread_evenly(rng, groups, every, LIES[cue]) for cue in CUES}
    planned = [
        DemoClip(
            sample_id=f"{speaker_id(speaker)}_{label}_{take}",
            label=label,
            speaker=speaker,
            shown={cue: bit ^ int(lies[cue][row]) for cue, bit in true_bits(label).items()},
        )
        for row, (speaker, label, take) in enumerate(zip(speakers, labels, takes, strict=True))
    ]
    return sorted(planned, key=lambda clip: clip.sample_id)


def reachable_accuracy(cues: Collection[str], lies: Mapping[Cue, float] = LIES) -> float:
    """Return the expected accuracy of the best classifier that sees some of the cues.

    It is the sum of max P(label, shown bits) over all bits that these cues can show; labels are equally likely, and
    cues lie independently. It is an expectation over the lies, around which finite test rows scatter.

    Args:
        cues: the names of the cues; none leaves a guess.
        lies: the probability of a lie of each cue.

    Raises:
        ValueError: there is no such cue.
    """
    unknown = set(cues) - set(CUES)
    if unknown:
        raise ValueError(f"cues: {', '.join(sorted(unknown))}: expected some of {', '.join(CUES)}")
    seen = [cue for cue in CUES if cue in cues]
    bits = [true_bits(label) for label in CLASSES]
    total = 0.0
    for shown in itertools.product((0, 1), repeat=len(seen)):
        joint = [
            math.prod(
                lies[cue] if of_label[cue] != bit else 1 - lies[cue] for cue, bit in zip(seen, shown, strict=True)
            )
            for of_label in bits
        ]
        total += max(joint) / len(CLASSES)
    return total


def describe_truth(lies: Mapping[Cue, float]) -> dict[str, Any]:
    """Return what reports show of the cues.

    Returns:
        Plain JSON: `cue_accuracy`, cue to 1 - its lies; `reachable_accuracy`, every subset (names sorted and joined by
        `+`, "" for none) to its accuracy; `cue_streams`, cue to the names or kinds of streams that can see it;
        `order_cues`, the cues that only the order of the frames shows.
    """
    subsets = [subset for size in range(len(CUES) + 1) for subset in itertools.combinations(sorted(CUES), size)]
    return {
        "cue_accuracy": {cue: 1 - lies[cue] for cue in CUES},
        "reachable_accuracy": {"+".join(subset): reachable_accuracy(subset, lies) for subset in subsets},
        "cue_streams": {cue: list(streams) for cue, streams in CUE_STREAMS.items()},
        "order_cues": list(ORDER_CUES),
    }
