"""The cues of the demo as the streams see them."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from emofuse.datasets.demo import person, scenes, warp_expression
from emofuse.datasets.demo.face import FACE_WINDOW
from emofuse.datasets.demo.generator import draw_sample
from emofuse.datasets.demo.scenes import SCENE_NAMES, draw_scene
from emofuse.datasets.demo.truth import plan_samples
from emofuse.specs import ActionUnitsSpec, LbpSpec
from emofuse.status import Status
from emofuse.streams import make_stream
from emofuse.streams.base import Sample


@pytest.fixture(scope="module")
def detector(face_detector):
    return face_detector


@pytest.fixture(scope="module")
def lift(detector):
    """lip_corner_lift of a picture."""
    stream = make_stream(ActionUnitsSpec())
    column = stream.columns.index("lip_corner_lift")

    def measure(image):
        rows = stream.extract([Sample(image, detector.detect(image))])
        assert rows.status[0] == Status.OK
        return float(rows.features[0, column])

    return measure


@pytest.fixture(scope="module")
def drawn(detector):
    """48 samples of a demo with their faces."""
    plan = [sample for sample in plan_samples(50, 11) if sample.damage is None]
    images = [draw_sample(sample, np.random.default_rng([11, row]))[0] for row, sample in enumerate(plan)]
    return SimpleNamespace(plan=plan, samples=[Sample(image, detector.detect(image)) for image in images])


def enlarged(scale):
    return cv2.resize(astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_each_step_upwards_of_the_mouth_corners_raises_the_lip_corner_lift(lift, scale, mirrored, has_face_mesh):
    photo = enlarged(scale)
    warped = [warp_expression(photo, amount) for amount in (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)]
    lifts = [lift(np.ascontiguousarray(image[:, ::-1] if mirrored else image)) for image in warped]
    steps = 1 if has_face_mesh else 2  # the landmarker is less sure of a wide smile: 0.01 back in one of them
    assert all(above > below for below, above in zip(lifts, lifts[steps:], strict=False)), lifts


def test_no_amount_changes_nothing():
    assert np.array_equal(warp_expression(astronaut(), 0.0), astronaut())


def test_the_warp_has_faded_out_before_the_edge_of_the_part_that_is_warped():
    photo = astronaut()
    changed = np.argwhere((warp_expression(photo, 0.3) != photo).any(axis=2))[:, ::-1]
    x0, y0, x1, y1 = FACE_WINDOW
    assert (changed.min(axis=0) > [x0 + 2, y0 + 2]).all()
    assert (changed.max(axis=0) < [x1 - 3, y1 - 3]).all()


def test_a_crop_of_the_photograph_is_refused():
    with pytest.raises(ValueError, match=r"shape \(200, 300, 3\), expected the whole astronaut photograph"):
        warp_expression(astronaut()[:200, :300], 0.1)


def test_faces_are_found_where_they_are_drawn_and_nowhere_else(drawn):
    assert [sample.face is not None for sample in drawn.samples] == [row.has_face for row in drawn.plan]


def test_one_threshold_of_the_lip_corner_lift_tells_the_expressions_apart(drawn):
    rows = make_stream(ActionUnitsSpec()).extract(drawn.samples)
    lift = rows.features[:, 0]
    smiles = [value for value, row in zip(lift, drawn.plan, strict=True) if row.shown["expression"] == 0]
    frowns = [value for value, row in zip(lift, drawn.plan, strict=True) if row.shown["expression"] == 1]
    assert min(smiles) - max(frowns) > 0.03


def test_a_linear_classifier_on_lbp_tells_the_textures_apart(drawn):
    rows = make_stream(LbpSpec()).extract(drawn.samples)
    grain = np.array([row.shown["texture"] == 1 for row in drawn.plan])
    faces = rows.status == Status.OK
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    assert cross_val_score(classifier, rows.features[faces, :256], grain[faces], cv=4).mean() > 0.93


@pytest.mark.parametrize("family", ["warm", "cool"])
def test_every_scene_of_a_family_has_its_tint_whatever_its_shape(family):
    rng = np.random.default_rng(0)
    names = set()
    for height, width in [(300, 200), (200, 300)] * 15:
        name, picture = draw_scene(family, height, width, rng)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.float32
        red, _, blue = picture.reshape(-1, 3).mean(axis=0)
        assert (red > blue) == (family == "warm"), name
        names.add(name)
    assert names == set(SCENE_NAMES[family])


def test_pictures_are_blended_as_the_plain_formulas_say():
    """The fast ways round as numpy's broadcasting does, since the same seed must give the same bytes."""
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (40, 50, 3)).astype(np.float32)
    mask, colour = rng.random((40, 50), dtype=np.float32), np.array([200, 90, 30], dtype=np.float32)
    expected = picture + (np.float32(0.7) * mask)[..., None] * (colour - picture)
    blended = picture.copy()
    scenes._blend(blended, mask, colour, 0.7)
    np.testing.assert_array_equal(blended, expected)
    part = picture[5:20, 7:30]  # not contiguous
    np.testing.assert_array_equal(scenes.less_than(colour, part), colour - part)

    look = person.draw_look(rng, 400, 400, frown=True, grain=True)
    background = rng.uniform(0, 255, (400, 400, 3)).astype(np.float32)
    x = (np.arange(400, dtype=np.float32) - look.centre[0])[None, :] / look.face_px
    y = (np.arange(400, dtype=np.float32) - look.centre[1])[:, None] / look.face_px
    inside = np.clip((1.1 - np.hypot(x, (y + 0.1) / 1.1)) / 0.5, 0, 1)
    cover = (inside**2 * (3 - 2 * inside))[..., None]
    expected = (background + cover * (np.asarray(look.glow) - background)).astype(np.float32)
    np.testing.assert_allclose(person.draw_glow(background, look), expected, atol=1e-4)
