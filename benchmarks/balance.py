"""Measure what evening out rare classes does on FER2013 with the votes of FER+: weights, rows drawn evenly, neither.

    python -m benchmarks.fer2013 --archive PATH --out FOLDER      (then a cache of FOLDER by `emofuse cache build`)
    python -m benchmarks.balance --cache fer2013.zarr

One head on several streams is trained with each way and seed on the training rows (eight labels, some of them rare),
its epoch chosen by plain validation loss, and scored on the test rows. Intervals are of the mean over
seeds: test rows and seeds are drawn with replacement. Differences are paired.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_file import write_result
from emofuse.cache.reader import open_cache
from emofuse.metrics.confusion import accuracy, class_scores
from emofuse.results import RunRecord, read_predictions, run_dir
from emofuse.specs import RunSpec, parse_spec
from emofuse.statistics.bootstrap import bootstrap_interval, paired_bootstrap
from emofuse.statistics.resampling import Resampled, Resampling, RunPredictions, resample_metrics
from emofuse.training.runs import train_runs

WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "class_weights: balanced": {"class_weights": "balanced"},
    "balance: sampling": {"balance": "sampling"},
}
SELECTS = ("loss",)
STREAMS = ("mobilenet_v2", "action_units")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("emofuse-runs/balance"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    cache = open_cache(arguments.cache)
    specs = {(way, select): make_runs(way, select, arguments) for way in WAYS for select in SELECTS}
    listed = [run for runs in specs.values() for run in runs]
    records = iter(record for record, _ in train_runs(cache, listed, arguments.out, device="cpu"))
    by_name = {name: [next(records) for _ in runs] for name, runs in specs.items()}
    rows = describe(by_name, arguments.out, len(cache.classes))
    labels = cache.labels[cache.splits == "train"]
    counts = dict(zip(cache.classes, np.bincount(labels, minlength=len(cache.classes)).tolist(), strict=True))
    print(write_result("balance", {"train_rows": counts, "streams": list(STREAMS), "ways": rows}))
    for row in rows:
        print(f"{row['way']:24} {row['select']:9} accuracy {row['accuracy']:.3f} macro F1 {row['macro_f1']:.3f}")


def make_runs(way: str, select: str, arguments: argparse.Namespace) -> list[RunSpec]:
    train = {"epochs": arguments.epochs, "learning_rate": 1e-3, "optimizer": "adamw", "weight_decay": 0.01}
    head = {"kind": "concat", "embed_dim": 128, "depth": 1, "width": 256, "dropout": 0.3}
    return [
        parse_spec(
            RunSpec,
            {
                "name": f"{way}, {select}, {seed}",
                "features": {"streams": list(STREAMS)},
                "head": head,
                "train": {**train, **WAYS[way], "select": select, "seed": seed, "batch_size": 128},
            },
            "benchmark",
        )
        for seed in range(arguments.seeds)
    ]


def describe(by_name: dict[tuple[str, str], list[RunRecord]], out: Path, classes: int) -> list[dict[str, Any]]:
    """Return the scores of each way with intervals, and the differences to none with the same choice of the epoch."""
    records = [record for runs in by_name.values() for record in runs]
    predictions = []
    for record in records:
        saved = read_predictions(run_dir(out, record.digest))
        predictions.append(
            RunPredictions(np.arange(len(saved.label)), saved.label, np.asarray(saved.outputs).argmax(axis=1))
        )
    resampled = resample_metrics(
        predictions,
        [accuracy, lambda counts: class_scores(counts)["f1"].mean(axis=-1)],
        units=len(predictions[0].label),
        classes=classes,
        resampling=Resampling(),
    )
    means: dict[tuple[str, str], Resampled] = {}
    first = 0
    for name, runs in by_name.items():
        means[name] = resampled.mean_of_drawn(range(first, first + len(runs)), [0])
        first += len(runs)
    rows = []
    for (way, select), mean in means.items():
        row: dict[str, Any] = {"way": way, "select": select, "seeds": len(by_name[way, select])}
        base = means["none", select]
        for place, score in enumerate(("accuracy", "macro_f1")):
            row[score] = float(mean.observed[0, place])
            row[f"{score}_interval"] = list(vars(bootstrap_interval(mean.drawn[:, 0, place])).values())
            if way != "none":
                test = paired_bootstrap(
                    float(mean.observed[0, place]),
                    float(base.observed[0, place]),
                    mean.drawn[:, 0, place],
                    base.drawn[:, 0, place],
                )
                row[f"{score}_difference"] = test.difference
                row[f"{score}_difference_interval"] = [test.interval.low, test.interval.high]
                row[f"{score}_difference_p"] = test.p
        per_class = [record.metrics["test"]["per_class"] for record in by_name[way, select]]
        recalls = np.mean([[scores["recall"] for scores in of_run] for of_run in per_class], axis=0)
        row["recall"] = dict(zip(by_name[way, select][0].classes, recalls.round(4).tolist(), strict=True))
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
