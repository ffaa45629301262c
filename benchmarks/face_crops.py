"""Measure aligned faces, blendshapes, action units and landmarks against whole pictures on real face photographs.

    python -m benchmarks.face_crops --data PATH --weights PATH

PATH of `--data` holds `labels.csv` and `images/`; PATH of `--weights` holds `mobilenet_v2-b0353104.pth` (torchvision)
and `face_landmarker.task` (MediaPipe). Both default to `../shared/data`. The pipelines are `pipelines/face_crops.yaml`
and `pipelines/face_crops_mesh.yaml`, which cuts the face around the mesh in place of five points: every photograph is
tested once in five folds. What is cached or trained already is not done again.

Pairs of configurations are compared by the corrected resampled t-test over splits (Nadeau and Bengio, 2003), with
Holm's correction over all pairs; `with_a_face` compares them on the photographs alone in which a face was found. Each
configuration stands beside an SVM of scikit-learn on the same features, whose C and gamma are chosen on the same
validation rows.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cross_validated import (
    compare_pairs,
    describe_with_svm,
    difference,
    of_name,
    pooled_accuracy,
    scores_on,
)
from benchmarks.faces import SHARED, add_holm, size_ratio, spread
from benchmarks.results_file import write_result
from emofuse.cache.reader import Cache, open_cache
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.results import RunRecord
from emofuse.specs import read_pipeline_spec
from emofuse.status import Status
from emofuse.weights import import_weights

PICTURE, FACE, MESH = "MobileNetV2, picture", "MobileNetV2, face", "MobileNetV2, face around the mesh"
PAIRS = (
    (FACE, PICTURE),
    (MESH, PICTURE),
    (MESH, FACE),
    ("Blendshapes", PICTURE),
    ("Blendshapes", "FAUs"),
    ("MobileNetV2, picture and face", PICTURE),
    ("Blendshapes + MobileNetV2 picture", PICTURE),
    ("Blendshapes + MobileNetV2 face", "Blendshapes"),
    ("All six streams", PICTURE),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "faces")
    parser.add_argument("--weights", type=Path, default=SHARED / "models")
    parser.add_argument("--out", type=Path, default=Path("emofuse-runs"))
    arguments = parser.parse_args()
    for name in ("mobilenet_v2-b0353104.pth", "face_landmarker.task"):
        import_weights(arguments.weights / name)
    records, rows, runs = [], [], {}
    for pipeline in ("face_crops", "face_crops_mesh"):
        spec = read_pipeline_spec(pipeline).model_copy(update={"references": "off"})
        out = arguments.out / pipeline
        summary = run_pipeline(spec, PipelineOptions(out=out, data=arguments.data), say=print)
        cache = open_cache(out / "features.zarr")
        records += summary.records
        for run in spec.runs:
            rows.append(describe_with_svm(cache, of_name(summary.records, run.name)))
            runs[run.name] = out / "runs"
    _, status = cache.streams["mobilenet_v2-face"].read(0)
    ids = cache.manifest.table["sample_id"].to_list()
    found = {each for each, value in zip(ids, status.tolist(), strict=True) if value == Status.OK}
    for row in rows:
        f1, svm = row["test_macro_f1"], row["svm_test_macro_f1"]
        print(f"{row['name']:34} {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]  SVM {svm['mean']:.3f}")
    of_found = {row["name"]: scores_on(runs[row["name"]], of_name(records, row["name"]), found) for row in rows}
    compared = [
        {"name": one, "against": other, **difference(of_found[one], of_found[other], size_ratio(of_name(records, one)))}
        for one, other in PAIRS
    ]
    add_holm(compared)
    path = write_result(
        "face_crops",
        {
            "dataset": {"rows": len(ids), "with_a_face": len(found)},
            "test": spec.test.model_dump(mode="json") if spec.test else None,
            "comparisons": compare_pairs(records, PAIRS),
            "without_a_face": without_a_face(cache, status, runs, records),
            "with_a_face": {
                "test_macro_f1": {name: spread(list(scores.values())) for name, scores in of_found.items()},
                "comparisons": compared,
            },
            "configurations": rows,
        },
    )
    print(path)


def without_a_face(
    cache: Cache, status: npt.NDArray[np.uint8], runs: Mapping[str, Path], records: Sequence[RunRecord]
) -> dict[str, Any]:
    """Return the labels of the photographs without a face, and the accuracy of every configuration on them."""
    table = cache.manifest.table.filter(status != Status.OK)
    lost = set(table["sample_id"].to_list())
    return {
        "labels": dict(sorted(Counter(table["label"].to_list()).items())),
        "test_accuracy": {name: pooled_accuracy(runs[name], of_name(records, name), lost) for name in runs},
    }


if __name__ == "__main__":
    main()
