"""Measure the macro F1 of every stream and of the fusions on real face photographs, over five seeds of the split.

    python -m benchmarks.faces --data PATH --weights PATH

PATH of `--data` holds `labels.csv` and `images/`; PATH of `--weights` holds `squeezenet1_1.pth` and `mobilenet_v2.pth`
(ImageNet weights of the ONNX model zoo as torchvision state dicts). Both default to `../shared/data`. The pipeline is
`pipelines/faces.yaml`; what is cached or trained already is not done again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result
from emofuse.pipeline import PipelineOptions, PipelineSummary, run_pipeline
from emofuse.results import RunRecord
from emofuse.specs import PipelineSpec, read_pipeline_spec
from emofuse.weights import import_weights

SHARED = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    spec = read_pipeline_spec("faces")
    summary = run_on_faces(spec, Path("emofuse-runs/faces"), description=__doc__)
    rows = [describe(run.name, [r for r in summary.records if r.name == run.name]) for run in spec.runs]
    # The best is chosen on validation rows; the test rows only score it.
    single = max((row for row in rows if len(row["streams"]) == 1), key=lambda row: row["val_macro_f1"]["mean"])
    fused = max((row for row in rows if len(row["streams"]) > 1), key=lambda row: row["val_macro_f1"]["mean"])
    for row in rows:
        f1 = row["test_macro_f1"]
        print(f"{row['name']:44} {f1['mean']:.3f} +- {f1['sd']:.3f}")
    path = write_result(
        "faces",
        {
            "dataset": {"rows": sum(part["rows"] for part in summary.records[0].rows.values())},
            "repeats": len(spec.repeat.split_seeds),
            "best_single_stream_on_validation": single["name"],
            "best_fusion_on_validation": fused["name"],
            "fusion_minus_single_per_seed": paired_difference(summary.records, fused["name"], single["name"]),
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
    scores = {
        "val_macro_f1": [record.metrics["val"]["macro"]["f1"] for record in records],
        "test_macro_f1": [record.metrics["test"]["macro"]["f1"] for record in records],
        "test_accuracy": [record.metrics["test"]["accuracy"] for record in records],
    }
    return {
        "name": name,
        "streams": list(records[0].spec["features"]["streams"]),
        **{
            score: {
                "mean": round(statistics.mean(values), 4),
                "sd": round(statistics.stdev(values), 4),
                "each": [round(value, 4) for value in values],
            }
            for score, values in scores.items()
        },
    }


def paired_difference(records: tuple[RunRecord, ...], first: str, second: str) -> list[float]:
    """Return the test macro F1 of one configuration minus that of another on the same splits."""
    f1 = {(record.name, record.spec["split"]["seed"]): record.metrics["test"]["macro"]["f1"] for record in records}
    seeds = sorted(seed for name, seed in f1 if name == first)
    return [round(f1[first, seed] - f1[second, seed], 4) for seed in seeds]


if __name__ == "__main__":
    main()
