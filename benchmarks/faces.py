"""Measure the macro F1 of every stream and of the fusions on real face photographs by cross-validation.

    python -m benchmarks.faces --data PATH --weights PATH

PATH of `--data` holds `labels.csv` and `images/`; PATH of `--weights` holds `squeezenet1_1.pth` and `mobilenet_v2.pth`
(ImageNet weights of the ONNX model zoo as torchvision state dicts). Both default to `../shared/data`. The pipeline is
`pipelines/faces.yaml`; what is cached or trained already is not done again.

Every photograph is tested once in each of two cross-validations of five folds. Training rows of the ten splits overlap.
The fusion that is best on validation rows is compared with every single stream by the corrected resampled t-test over
splits (Nadeau and Bengio, 2003), with Holm's correction over these comparisons.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result
from emofuse.pipeline import PipelineOptions, PipelineSummary, run_pipeline
from emofuse.results import RunRecord
from emofuse.specs import PipelineSpec, canonical_json, read_pipeline_spec
from emofuse.statistics import corrected_resampled_t, holm
from emofuse.weights import import_weights

SCORES = ("macro_f1", "accuracy")
SHARED = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    spec = read_pipeline_spec("faces")
    summary = run_on_faces(spec, Path("emofuse-runs/faces"), description=__doc__)
    rows = [describe(run.name, [r for r in summary.records if r.name == run.name]) for run in spec.runs]
    # The best is chosen on validation rows; the test rows only score it.
    single = max((row for row in rows if len(row["streams"]) == 1), key=lambda row: row["val_macro_f1"]["mean"])
    # Ensembles and heads of another kind would add their own gain to that of fusion.
    plain = {run.name for run in spec.runs if run.ensemble is None and run.head.kind == spec.runs[0].head.kind}
    fusions = [row for row in rows if len(row["streams"]) > 1 and row["name"] in plain]
    fused = max(fusions, key=lambda row: row["val_macro_f1"]["mean"])
    for row in rows:
        f1 = row["test_macro_f1"]
        print(f"{row['name']:44} {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]")
    singles = [row["name"] for row in rows if len(row["streams"]) == 1]
    path = write_result(
        "faces",
        {
            "dataset": {"rows": all_rows(summary.records[0])},
            "test": spec.test.model_dump(mode="json") if spec.test else None,
            "best_single_stream_on_validation": single["name"],
            "best_fusion_on_validation": fused["name"],
            "fusion_minus_single_streams": {
                score: compare_with_all(summary.records, fused["name"], singles, score) for score in SCORES
            },
            "configurations": rows,
        },
    )
    print(path)


def run_on_faces(spec: PipelineSpec, out: Path, *, description: str | None) -> PipelineSummary:
    """Run a pipeline on the data and weights that the command line names, in the folder `out` by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "faces")
    parser.add_argument("--weights", type=Path, default=SHARED / "models")
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    for name in ("squeezenet1_1.pth", "mobilenet_v2.pth"):
        import_weights(arguments.weights / name)
    return run_pipeline(spec, PipelineOptions(out=arguments.out, data=arguments.data), say=print)


def describe(name: str, records: list[RunRecord]) -> dict[str, Any]:
    """Return the scores of one configuration over its repeats."""
    return {
        "name": name,
        "streams": list(records[0].spec["features"]["streams"]),
        "val_macro_f1": spread([score_of(record, "macro_f1", "val") for record in records]),
        **{f"test_{score}": describe_scores(records, score) for score in SCORES},
    }


def describe_scores(records: Sequence[RunRecord], score: str) -> dict[str, Any]:
    """Return the test scores of one run a split, with the 95 % interval of their mean over overlapping splits."""
    values = [score_of(record, score) for record in records]
    interval = corrected_resampled_t(values, size_ratio(records)).interval
    return spread(values) | {"low": round(interval.low, 4), "high": round(interval.high, 4)}


def spread(values: list[float]) -> dict[str, Any]:
    """Return the mean, the deviation over splits, and each value."""
    return {
        "mean": round(statistics.mean(values), 4),
        "sd": round(statistics.stdev(values), 4),
        "each": [round(value, 4) for value in values],
    }


def compare_splits(records: Sequence[RunRecord], others: Sequence[RunRecord], score: str) -> dict[str, Any]:
    """Return the difference of two configurations with one run a split each, and its corrected resampled t-test."""
    theirs = {canonical_json(record.spec["split"]): score_of(record, score) for record in others}
    differences = [score_of(record, score) - theirs[canonical_json(record.spec["split"])] for record in records]
    test = corrected_resampled_t(differences, size_ratio(records))
    return {
        "mean": round(test.difference, 4),
        "se_corrected": round(test.error, 4),
        "low": round(test.interval.low, 4),
        "high": round(test.interval.high, 4),
        "t": round(test.t, 3),
        "p": round(test.p, 4),
        "each": [round(value, 4) for value in differences],
    }


def compare_with_all(records: tuple[RunRecord, ...], name: str, others: list[str], score: str) -> list[dict[str, Any]]:
    """Compare one configuration with several others, split by split, with p values corrected over all of them."""
    ours = [record for record in records if record.name == name]
    rows = [
        {"against": other, **compare_splits(ours, [record for record in records if record.name == other], score)}
        for other in others
    ]
    add_holm(rows)
    return rows


def add_holm(rows: Sequence[dict[str, Any]]) -> None:
    """Add to each comparison its p value after Holm's correction over all of them."""
    for row, corrected in zip(rows, holm([row["p"] for row in rows]).tolist(), strict=True):
        row["p_holm"] = round(corrected, 4)


def score_of(record: RunRecord, score: str, split: str = "test") -> float:
    metrics = record.metrics[split]
    return float(metrics["accuracy"] if score == "accuracy" else metrics["macro"]["f1"])


def all_rows(record: RunRecord) -> int:
    """Return the number of rows of a run. A second training counts the validation rows among its training rows."""
    splits = ("train", "test") if record.refit else ("train", "val", "test")
    return sum(int(record.rows[split]["rows"]) for split in splits)


def size_ratio(records: Sequence[RunRecord]) -> float:
    """Return the number of test rows divided by that of training rows, as the corrected test needs it.

    The training rows of a second training are recorded with its validation rows among them.
    """
    return statistics.mean(record.rows["test"]["rows"] / record.rows["train"]["rows"] for record in records)


if __name__ == "__main__":
    main()
