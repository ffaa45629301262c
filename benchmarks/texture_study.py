"""Measure LBP, HOG, Gabor filters and LPQ on real face photographs by cross-validation.

    python -m benchmarks.texture_study --data PATH

PATH of `--data` holds `labels.csv` and `images/`; by default it is `../shared/data/faces`. The pipeline is
`pipelines/texture_study.yaml`: every photograph is tested once in each of two cross-validations of five folds. What is
cached or trained already is not done again. LBP is compared with every other texture by the corrected resampled t-test
over splits (Nadeau and Bengio, 2003), with Holm's correction over these comparisons.

Each configuration stands beside an SVM of scikit-learn on the same features, whose C and gamma are chosen on the same
validation rows. `ms_an_image` is the CPU time of one extraction of a face region, without decoding and detection.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cross_validated import compare_pairs, describe_with_svm, of_name
from benchmarks.faces import SHARED
from benchmarks.results_file import write_result
from emofuse.cache.reader import open_cache
from emofuse.pipeline import PipelineOptions, run_pipeline
from emofuse.specs import read_pipeline_spec
from emofuse.streams import make_stream
from emofuse.streams.base import Sample
from emofuse.testing.samples import example_face

BASELINE = "LBP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "faces")
    parser.add_argument("--out", type=Path, default=Path("emofuse-runs/texture_study"))
    arguments = parser.parse_args()
    spec = read_pipeline_spec("texture_study").model_copy(update={"references": "off"})
    summary = run_pipeline(spec, PipelineOptions(out=arguments.out, data=arguments.data), say=print)
    cache = open_cache(arguments.out / "features.zarr")
    names = [run.name for run in spec.runs]
    rows = [describe_with_svm(cache, of_name(summary.records, name)) for name in names]
    for row in rows:
        f1, svm = row["test_macro_f1"], row["svm_test_macro_f1"]
        print(f"{row['name']:20} {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]  SVM {svm['mean']:.3f}")
    path = write_result(
        "texture_study",
        {
            "dataset": {"rows": len(cache)},
            "test": spec.test.model_dump(mode="json") if spec.test else None,
            "ms_an_image": {stream.name: time_stream(stream) for stream in summary_streams(cache)},
            "minus_lbp": compare_pairs(summary.records, [(name, BASELINE) for name in names if name != BASELINE]),
            "configurations": rows,
        },
    )
    print(path)


def summary_streams(cache: Any) -> list[Any]:
    """Return the specs of the streams of the cache."""
    from emofuse.specs import CacheSpec, read_cache_spec

    spec: CacheSpec = read_cache_spec("texture_study")
    return [stream for stream in spec.streams if stream.name in cache.streams]


def time_stream(spec: Any, repeats: int = 20) -> float:
    """Return the median CPU time in milliseconds of one picture of 350 x 350 pixels with a face of 250."""
    image = np.random.default_rng(0).integers(0, 256, (350, 350, 3), dtype=np.uint8)
    points = example_face().mesh
    points = (points - points.mean(axis=0)) * (250 / np.ptp(points[:, 1])) + np.array([175, 175, 0])
    face = type(example_face())(points.astype(np.float32))
    stream = make_stream(spec)
    stream.extract([Sample(image, face)])
    times = []
    for _ in range(repeats):
        started = time.process_time()
        stream.extract([Sample(image, face)])
        times.append(time.process_time() - started)
    return round(1e3 * float(np.median(times)), 2)


if __name__ == "__main__":
    main()
