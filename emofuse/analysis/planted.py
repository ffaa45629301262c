"""What the streams of generated data are worth by design, from the accuracies that their cues allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emofuse.analysis.shapley import Game, Subset, shapley_values


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
