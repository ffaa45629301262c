"""Measure the effect of augmented views on accuracy on real face photographs, by cross-validation.

    python -m benchmarks.views --data PATH --weights PATH

Data and weights as of `benchmarks.faces`. One cache holds every picture and four augmented views of it; the same
configurations are trained on the picture alone and on draws of 2 and of 5 views, the same splits, epochs and rates.
Training rows of the splits overlap, so differences are tested by the corrected resampled t-test, with Holm's correction
over all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.faces import add_holm, all_rows, compare_splits, describe_scores, run_on_faces
from benchmarks.results_file import write_result
from emofuse.results import RunRecord
from emofuse.specs import PipelineSpec, read_pipeline_spec

VIEWS = (1, 2, 5)
NAMES = ("FAUs", "MobileNetV2", "FAUs + MobileNetV2", "All five streams")


def main() -> None:
    spec = pipeline()
    summary = run_on_faces(spec, Path("emofuse-runs/faces-views"), description=__doc__)
    rows = [describe(name, summary.records) for name in NAMES]
    add_holm([each for row in rows for each in row["difference_to_one_view"].values()])
    for row in rows:
        scores = ", ".join(f"{views} views {row['test_macro_f1'][str(views)]['mean']:.3f}" for views in VIEWS)
        print(f"{row['name']:24} {scores}")
    path = write_result(
        "views",
        {
            "dataset": {"rows": all_rows(summary.records[0])},
            "test": spec.test.model_dump(mode="json") if spec.test else None,
            "configurations": rows,
        },
    )
    print(path)


def pipeline() -> PipelineSpec:
    """Return `pipelines/faces.yaml` with views: some of its configurations, once for each number of views."""
    faces = read_pipeline_spec("faces")
    runs = [
        run.model_copy(update={"name": named(run.name, views), "train": run.train.model_copy(update={"views": views})})
        for run in faces.runs
        if run.name in NAMES
        for views in VIEWS
    ]
    return faces.model_copy(
        update={
            "name": "faces-views",
            "title": "Augmented views of face photographs",
            "cache": faces.cache.model_copy(update={"views": max(VIEWS)}),
            "runs": tuple(runs),
            "baseline": named(NAMES[0], 1),
        }
    )


def named(name: str, views: int) -> str:
    return name if views == 1 else f"{name}, {views} views"


def describe(name: str, records: tuple[RunRecord, ...]) -> dict[str, Any]:
    """Return the test macro F1 of one configuration by number of views, and the comparison of views with one view."""
    by_views = {views: [record for record in records if record.name == named(name, views)] for views in VIEWS}
    return {
        "name": name,
        "test_macro_f1": {str(views): describe_scores(runs, "macro_f1") for views, runs in by_views.items()},
        "difference_to_one_view": {
            str(views): compare_splits(by_views[views], by_views[1], "macro_f1") for views in VIEWS[1:]
        },
    }


if __name__ == "__main__":
    main()
