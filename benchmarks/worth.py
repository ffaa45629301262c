"""Measure what the streams of the demo are worth, beside what they are worth by design, at several numbers of pictures.

    python -m benchmarks.worth

Every row is answered once in five outer folds, by models that are solved on the cache; it is what `emofuse explain
CACHE --rows folds --streams lbp,landmarks,action_units,places365` measures. The numbers are no times, so that other
work of the machine does not matter. About 4 minutes on 2 quiet cores, most of it for the 2,560 pictures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_file import RESULTS, write_result
from emofuse.analysis.planted import planted_values, planted_worth, read_cues, read_worth
from emofuse.analysis.solved_outputs import SolvedOptions
from emofuse.analysis.subsets import solve_subsets
from emofuse.analysis.worth import measure_worth
from emofuse.cache.reader import Cache
from emofuse.pipeline import PipelineOptions, prepare_cache
from emofuse.specs import PipelineSpec, read_pipeline_spec
from emofuse.statistics import Resampling
from emofuse.status import Status

ROWS = (640, 2560)
STREAMS = ("lbp", "landmarks", "action_units", "places365")
"""The streams that see a cue of the demo."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every number of pictures and write `results/worth.json` after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="numbers of pictures")
    parser.add_argument("--smoke", action="store_true", help="few pictures and cheap streams: numbers mean nothing")
    parser.add_argument("--runs", type=Path, help="folder of datasets and caches, which are kept; else a temporary one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    rows, streams = ((160,), STREAMS[:2]) if chosen.smoke else (chosen.rows, STREAMS)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for count in rows:
            measured.append(measure(count, streams, (chosen.runs or Path(folder)) / str(count)))
            name = "worth_smoke" if chosen.smoke else "worth"
            path = write_result(name, {"streams": streams, "sizes": measured}, script="worth", folder=chosen.out)
    print(path)


def measure(count: int, streams: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return what the streams of a demo with so many pictures are worth."""
    spec = demo_of(count, streams)
    cache, _ = prepare_cache(spec, PipelineOptions(out=folder, device="cpu"), (), say=print)
    answers = solve_subsets(cache, streams, SolvedOptions())
    worth, info = measure_worth(answers.subsets, Resampling()), cache.manifest.info
    design, read, cues = planted_worth(info, streams), read_worth(answers, cache), read_cues(answers, cache)
    values = planted_values(info, streams)
    if design is None or read is None or cues is None or values is None:
        raise RuntimeError("the demo dataset says nothing of its cues")
    of_streams = {}
    for stream in streams:
        each = worth.get(stream)
        of_streams[stream] = {
            "measured": _rounded(each.value),
            "interval": [_rounded(each.interval.low), _rounded(each.interval.high)],
            "by_design": _rounded(design[stream]),
            "as_read": _rounded(read[stream]),
            # Of the rows that have the stream; 0.5 where it does not tell the cue.
            "tells": {cue: _rounded(there_of(cache, stream, told, answers.rows)) for cue, told in cues[stream].items()},
        }
        print(stream, of_streams[stream], flush=True)
    return {
        "pictures": count,
        "rows": answers.subsets.rows,
        "streams": of_streams,
        "accuracy_of_all_streams": _rounded(worth.values["accuracy"][-1].value),
        "reachable_by_all_streams": _rounded(values[frozenset(streams)]),
        "models": answers.subsets.models,
    }


def demo_of(count: int, streams: Sequence[str]) -> PipelineSpec:
    """Return the pipeline of the demo with so many pictures and these streams alone."""
    spec = read_pipeline_spec("demo")
    cached = tuple(stream for stream in spec.cache.streams if stream.name in streams)
    dataset = spec.dataset.model_copy(update={"images": count})
    return spec.model_copy(update={"dataset": dataset, "cache": spec.cache.model_copy(update={"streams": cached})})


def there_of(cache: Cache, stream: str, told: Any, rows: Any) -> float:
    """Return how surely a stream tells a cue where it is there."""
    there = cache.streams[stream].status[rows, 0] == Status.OK
    return float(np.mean(told[there])) if there.any() else 0.5


def _rounded(value: float) -> float:
    return round(float(value), 4)


if __name__ == "__main__":
    main()
