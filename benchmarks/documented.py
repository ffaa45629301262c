"""Run the pipelines whose results stand in the documentation, and keep what their reports say.

    python -m benchmarks.documented
    python -m benchmarks.documented --only demo clips_demo     # these alone; each has a file of its own

`demo` and `clips_demo` draw their data. `outer_folds` is kernel ridge regression on the face photographs of
`benchmarks.faces` in five outer folds; it needs `../shared/data` (`--data`) and is left out without. Scores are no
times, so that other work of the machine does not matter. About 4 minutes on 2 quiet cores.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faces import SHARED
from benchmarks.results_file import RESULTS, write_result
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.specs import FeaturesSpec, KernelRidgeHeadSpec, OuterTestSpec, PipelineSpec, read_pipeline_spec
from emofuse.weights import import_weights

SCORES = ("accuracy", "macro_f1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run each pipeline and write `results/documented_NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PIPELINES), choices=list(PIPELINES))
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of `faces` and `models`, for outer_folds")
    parser.add_argument("--runs", type=Path, help="folder of the results of pipelines, which are kept and go on")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            if name == "outer_folds" and not (chosen.data / "faces").is_dir():
                print(f"{name}: left out, {chosen.data / 'faces'} is not there")
                continue
            numbers = run(PIPELINES[name](chosen.data), (chosen.runs or Path(folder)) / name, chosen.data / "faces")
            print(write_result(f"documented_{name}", numbers, script="documented", folder=chosen.out))


def run(spec: PipelineSpec, out: Path, faces: Path) -> dict[str, Any]:
    """Run a pipeline and return the scores of its report."""
    data = None if spec.dataset.generated_rows is not None else faces
    run_pipeline(spec, PipelineOptions(out=out, data=data, device="cpu"), say=print)
    return read_report(out / "report")


def read_report(report: Path) -> dict[str, Any]:
    """Return the scores of the configurations of a report, and their differences to the baseline."""
    configurations = []
    for row in _rows(report / "summary.csv"):
        if row["reference"] == "true":
            continue
        configurations.append(
            {
                "name": row["configuration"],
                "streams": row["streams"].split(),
                "random_weights": row["random_weights"].split(),
                "repeats": int(row["repeats"]),
                "test_rows": int(row["test_images"]),
                **{score: _spread(row, score) for score in SCORES},
                "reachable_accuracy": _number(row["reachable_accuracy"]),
                "pooled_accuracy": _pooled(row),
            }
        )
    differences = [
        {
            "name": row["configuration"],
            "against": row["baseline"],
            "accuracy": {
                "mean": _number(row["accuracy_difference"]),
                "low": _number(row["accuracy_difference_95_low"]),
                "high": _number(row["accuracy_difference_95_high"]),
            },
            "p": _number(row["accuracy_p"]),
            "p_holm": _number(row["accuracy_p_holm"]),
            "test": row["test"],
        }
        for row in _rows(report / "comparisons.csv")
    ]
    return {"configurations": configurations, "differences": differences}


def outer_folds(data: Path) -> PipelineSpec:
    """Return three configurations of kernel ridge regression on the faces, in one cross-validation of five folds."""
    for name in ("squeezenet1_1.pth", "mobilenet_v2.pth"):
        if (data / "models" / name).is_file():
            import_weights(data / "models" / name)
    faces = read_pipeline_spec("faces")
    head, (first, *_) = KernelRidgeHeadSpec(), faces.runs
    runs = [
        first.model_copy(update={"name": name, "features": FeaturesSpec(streams=streams), "head": head})
        for name, streams in {
            "Action units": ("action_units",),
            "MobileNetV2": ("mobilenet_v2",),
            "All five": tuple(stream.name for stream in faces.cache.streams),
        }.items()
    ]
    changed = {"name": "outer_folds", "runs": tuple(runs), "test": OuterTestSpec(folds=5), "baseline": "Action units"}
    return faces.model_copy(update={**changed, "references": "off"})


PIPELINES = {
    "demo": lambda _: read_pipeline_spec("demo"),
    "clips_demo": lambda _: read_pipeline_spec("clips_demo"),
    "outer_folds": outer_folds,
}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _spread(row: dict[str, str], score: str) -> dict[str, float | None]:
    names = {"mean": "mean", "sd": "sd", "low": "95_low", "high": "95_high"}
    return {key: _number(row[f"{score}_{column}"]) for key, column in names.items()}


def _pooled(row: dict[str, str]) -> dict[str, float | None] | None:
    """Return the accuracy over the rows of all folds, of a pipeline with outer folds."""
    if not row.get("pooled_accuracy"):
        return None
    ends = {"mean": "", "low": "_95_low", "high": "_95_high"}
    return {key: _number(row[f"pooled_accuracy{end}"]) for key, end in ends.items()}


def _number(text: str) -> float | None:
    return round(float(text), 4) if text else None


if __name__ == "__main__":
    main()
