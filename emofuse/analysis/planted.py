"""What the streams of generated data are worth by design, from the accuracies that their cues allow.

By design, each stream tells the cues that were drawn for it, as surely as they were drawn, and no others. Real models
learn from finite rows, and real streams see a little of other cues: grain on the skin moves the points of the mesh, and
a smile changes the textures of a face. So there is a second expectation, from how well the answers of each stream alone
tell each cue. Both follow from the same rule: an answer is right where all cues of the label are told right, and a cue
that no stream tells is told right in half of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emofuse.analysis.shapley import Floats, Game, Subset, shapley_values
from emofuse.analysis.subsets import SolvedAnswers
from emofuse.cache.reader import Cache
from emofuse.status import Status


def planted_values(
    info: Mapping[str, Any], streams: Sequence[str], kinds: Mapping[str, str] | None = None
) -> dict[Subset, float] | None:
    """Return the reachable accuracy of every subset of streams; None where the data say nothing of it.

    A subset of streams sees the cues of all its streams. That of no stream reaches what a guess does, 1 / C.

    Args:
        info: the info of the manifest (`reachable_accuracy`, `cue_streams`; `emofuse.datasets.demo.truth`).
        streams: the streams.
        kinds: stream -> its kind, which may stand for its name in `cue_streams`.
    """
    reachable, cues = info.get("reachable_accuracy"), info.get("cue_streams")
    if not reachable or not cues:
        return None
    seen = {
        stream: {cue for cue, readers in cues.items() if {stream, (kinds or {}).get(stream, stream)} & set(readers)}
        for stream in streams
    }
    values = {}
    for subset in Game(tuple(streams)).subsets:
        together = "+".join(sorted(set().union(*(seen[stream] for stream in subset))))
        value = reachable.get(together) if together else 2.0 ** -len(cues)
        if value is None:
            return None
        values[subset] = float(value)
    return values


def planted_worth(
    info: Mapping[str, Any], streams: Sequence[str], kinds: Mapping[str, str] | None = None
) -> dict[str, float] | None:
    """Return stream -> the Shapley value of its accuracy by design; None where the data say nothing of it."""
    values = planted_values(info, streams, kinds)
    return None if values is None else shapley_values(tuple(streams), values)


def read_cues(answers: SolvedAnswers, cache: Cache) -> dict[str, dict[str, Floats]] | None:
    """Return stream -> cue -> how surely the stream tells the cue of the label in each row, (n,); None without cues.

    That is the accuracy of the cue of its answers where the row has the stream, and 1/2 elsewhere. A stream whose
    accuracy is not shown to be above 1/2 (by 1.96 standard errors) does not tell the cue.

    Args:
        answers: the answers of solved models, among them those of each stream alone.
        cache: the cache of a generated demo.
    """
    from emofuse.datasets.demo.truth import CLASSES, CUES, true_bits

    subsets = answers.subsets
    if set(cache.manifest.info.get("cue_streams", ())) != set(CUES) or not set(subsets.classes) <= set(CLASSES):
        return None
    bits = {cue: np.array([true_bits(name)[cue] for name in subsets.classes]) for cue in CUES}
    told: dict[str, dict[str, Floats]] = {}
    for stream in subsets.streams:
        predicted = answers.of(frozenset({stream})).argmax(axis=1)
        there = cache.streams[stream].status[answers.rows, 0] == Status.OK
        told[stream] = {}
        for cue, bit in bits.items():
            share = float((bit[predicted] == bit[answers.label])[there].mean()) if there.any() else 0.5
            shown = share - 1.96 * np.sqrt(share * (1 - share) / max(1, there.sum())) > 0.5
            told[stream][cue] = np.where(there, share if shown else 0.5, 0.5)
    return told


def read_worth(answers: SolvedAnswers, cache: Cache) -> dict[str, float] | None:
    """Return stream -> its Shapley value as far as the streams tell the cues; None of data without cues.

    In each row, a subset tells a cue as surely as the best of its streams does.
    """
    told = read_cues(answers, cache)
    if told is None:
        return None
    nothing = np.full(len(answers.rows), 0.5)
    values = {}
    for subset in Game(answers.subsets.streams).subsets:
        of_cues = [
            np.max([nothing, *(told[stream][cue] for stream in subset)], axis=0) for cue in next(iter(told.values()))
        ]
        values[subset] = float(np.prod(of_cues, axis=0).mean())
    return shapley_values(answers.subsets.streams, values)
