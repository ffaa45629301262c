"""The expression coefficients of the face landmarker."""

from __future__ import annotations

import numpy as np
import pytest

from emofuse.errors import WeightsError
from emofuse.specs import CacheSpec, FaceSpec
from emofuse.status import Status
from emofuse.streams.base import Sample
from emofuse.streams.blendshapes import BlendshapesSpec, BlendshapesStream
from emofuse.streams.extractor import Extractor
from emofuse.testing import check_stream, example_samples
from emofuse.weights import import_weights


def value(row, name):
    return float(row[BlendshapesStream.columns.index(name)])


def test_blendshapes_are_a_stream():
    check_stream(BlendshapesSpec())


def test_they_are_those_of_the_face():
    samples = example_samples()
    rows = BlendshapesSpec().make("cpu").extract(samples)
    for sample, row, status in zip(samples, rows.features, rows.status, strict=True):
        if sample.face is None:
            assert (status, row.any()) == (Status.NO_DETECTION, False)
        else:
            assert np.array_equal(row, sample.face.blendshapes)
    assert value(rows.features[0], "mouthSmileLeft") == pytest.approx(float(samples[0].face.blendshapes[44]))


@pytest.mark.parametrize("detector", ["face_mesh", "landmarker"])
def test_without_the_landmarker_s_file_the_error_names_the_command_for_any_detector(detector):
    spec = CacheSpec(streams=(BlendshapesSpec(),), face=FaceSpec(detector=detector))
    with pytest.raises(WeightsError, match=r"Get them: emofuse weights fetch face_landmarker$"):
        Extractor(spec.streams, spec, device="cpu")


def test_a_smile_has_the_coefficients_of_a_smile(shared_data, astronaut, tmp_path, monkeypatch):
    from PIL import Image

    model = shared_data / "models/face_landmarker.task"
    if not model.is_file():
        pytest.skip("the landmarker's file is not there")
    monkeypatch.setenv("EMOFUSE_WEIGHTS_DIR", str(tmp_path / "weights"))
    import_weights(model)
    path = tmp_path / "smile.png"
    Image.fromarray(astronaut).save(path)
    spec = CacheSpec(streams=(BlendshapesSpec(),), face=FaceSpec(detector="landmarker"))
    with Extractor(spec.streams, spec, device="cpu") as extractor:
        row = extractor.extract([path]).rows["blendshapes"].features[0]
    assert value(row, "mouthSmileLeft") > 0.5
    assert value(row, "mouthSmileRight") > 0.5
    assert value(row, "mouthFrownLeft") < 0.1
    assert value(row, "eyeBlinkLeft") < 0.5


def test_a_sample_whose_detector_gave_no_coefficients_has_no_row():
    sample = example_samples()[0]
    bare = Sample(sample.image)
    assert BlendshapesSpec().make("cpu").extract([bare]).status[0] == Status.NO_DETECTION
