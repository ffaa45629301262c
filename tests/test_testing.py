"""The conformance check accepts a good stream and says clearly what is wrong with a bad one."""

from __future__ import annotations

import pickle
from typing import ClassVar, Literal

import numpy as np
import pytest
from shaped_streams import SHAPES, Strips

from emofuse.specs import CustomStreamSpec, Variant
from emofuse.status import Status, Step
from emofuse.streams.base import NEEDS_FACE, NEEDS_IMAGE, Rows, Sample
from emofuse.testing import check_stream, example_face, example_samples


class MeanColour:
    """Mean red, green and blue, 0 to 1."""

    shape = (3,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("red", "green", "blue")

    def __init__(self):
        self.closed = False

    def extract(self, samples):
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            rows.features[index] = sample.image.mean(axis=(0, 1)) / 255
        return rows

    def close(self):
        self.closed = True


class MeanColourSpec(CustomStreamSpec):
    kind: Literal["mean_colour"] = "mean_colour"
    made: ClassVar[list[MeanColour]] = []

    def make(self, device):
        self.made.append(MeanColour())
        return self.made[-1]


def faults_of(stream, **options):
    with pytest.raises(AssertionError) as error:
        check_stream(stream, **options)
    return str(error.value)


def changed(change):
    """MeanColour whose rows are changed by a function of (rows, samples)."""

    class Changed(MeanColour):
        def extract(self, samples):
            rows = super().extract(samples)
            return change(rows, samples) or rows

    return Changed()


def test_a_spec_of_ones_own_passes_and_its_stream_is_closed():
    check_stream(MeanColourSpec())
    assert MeanColourSpec.made[-1].closed


def test_a_stream_passes_without_a_spec_and_stays_open():
    stream = MeanColour()
    check_stream(stream)
    assert not stream.closed


def test_a_stream_may_look_at_the_face_alone():
    class Nose(MeanColour):
        needs = NEEDS_FACE
        columns = ()

        def extract(self, samples):
            rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
            for index, sample in enumerate(samples):
                if sample.face is not None:
                    rows.features[index] = sample.face.points[1]
                    rows.status[index] = Status.OK
            return rows

    check_stream(Nose())


def test_ones_own_samples_are_used():
    with pytest.raises(AssertionError, match="divide"):
        check_stream(raises_on_dark(), samples=[Sample(np.zeros((4, 4, 3), np.uint8))] * 2)
    check_stream(raises_on_dark(), samples=[Sample(np.full((4, 4, 3), 9, np.uint8))] * 2)


def raises_on_dark():
    def change(rows, samples):
        if any(sample.image.max() == 0 for sample in samples):
            raise ZeroDivisionError("cannot divide")

    return changed(change)


def test_the_faults_are_counted_and_the_stream_named():
    class TwoFaults(MeanColour):
        columns = ("red", "red")
        flag_names = tuple("abcdefghi")

    assert faults_of(TwoFaults()) == (
        "TwoFaults breaks the contract of a stream, 3 faults: flag_names: a uint8 holds at most 8 flags, got 9 | "
        "columns must be empty or name all 3 values, got 2 names | columns: a name is used twice"
    )


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"shape": 3}, "shape and dimensions must be tuples, got 3 and ('feature',)"),
        ({"shape": (0,)}, "shape must be one or more ints >= 1, got (0,)"),
        ({"shape": (1, 3)}, "dimensions must name each of the 2 axes of shape differently, got ('feature',)"),
        ({"dimensions": ("view",)}, "dimensions: 'view' is an axis that the cache adds itself"),
        ({"dimensions": ("time",)}, "dimensions: a sequence needs an axis behind 'time'"),
        ({"dtype": np.float32}, "dtype must be a floating np.dtype, got <class 'numpy.float32'>"),
        ({"dtype": np.dtype(np.int64)}, "dtype must be a floating np.dtype, got dtype('int64')"),
        ({"shape": (4,)}, "columns must be empty or name all 4 values, got 3 names"),
    ],
)
def test_wrong_members_are_named(members, fault):
    stream = type("Wrong", (MeanColour,), members)()
    assert fault in faults_of(stream)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda rows, samples: Rows(rows.features[:, :2], rows.status, rows.flags),
            "features of the block of all samples must be (8, 3) float32, got (8, 2) float32",
        ),
        (
            lambda rows, samples: Rows(rows.features.astype(np.float64), rows.status, rows.flags),
            "features of an empty block must be (0, 3) float32, got (0, 3) float64",
        ),
        (
            lambda rows, samples: Rows(rows.features, rows.status.astype(np.int64), rows.flags),
            "status of the block of all samples must be (8,) uint8, got (8,) int64",
        ),
        (
            lambda rows, samples: rows.status.fill(0),
            "status 0: a stream may return OK 1, NO_DETECTION 2 or FAILED 4",
        ),
        (lambda rows, samples: rows.status.fill(3), "status 3: a stream may return OK 1"),
        (lambda rows, samples: rows.status.fill(2), "features are not zero where the status is not OK in"),
        (lambda rows, samples: rows.features.fill(np.nan), "features are not finite where the status is OK in"),
        (lambda rows, samples: rows.flags.fill(1), "flags has bits beyond the 0 of flag_names in"),
    ],
)
def test_wrong_rows_are_named(change, fault):
    assert fault in faults_of(changed(change))


@pytest.mark.parametrize("spec", SHAPES, ids=lambda spec: spec.kind)
def test_sequences_and_maps_pass(spec):
    check_stream(spec)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda rows, samples: Rows(rows.features, rows.status, rows.flags),
            "mask of the block of all samples must be (8, 3) uint8, got None",
        ),
        (
            lambda rows, samples: Rows(rows.features, rows.status, rows.flags, rows.mask[:, :2]),
            "mask of an empty block must be (0, 3) uint8, got (0, 2) uint8",
        ),
        (
            lambda rows, samples: Rows(rows.features, rows.status, rows.flags, rows.mask == Step.OK),
            "mask of the block of all samples must be (8, 3) uint8, got (8, 3) bool",
        ),
        (
            lambda rows, samples: rows.mask.fill(7),
            "step 7 is unknown: a mask may hold PADDING 0, OK 1 or NO_DETECTION 2",
        ),
        (lambda rows, samples: rows.mask.fill(Step.PADDING), "a row is OK without an OK step"),
        (lambda rows, samples: rows.status.fill(Status.FAILED), "or has an OK step and is not OK"),
        (lambda rows, samples: rows.mask[:, 0].fill(Step.PADDING), "features are not zero at steps that are not OK"),
        (lambda rows, samples: rows.features[:, 0].fill(np.nan), "features are not finite where the status is OK"),
        (
            lambda rows, samples: (
                rows.mask[:, -1:].fill(Step.NO_DETECTION if len(samples) == 3 else Step.PADDING)
                or rows.features[:, -1:].fill(0)
            ),
            "statuses, flags or masks differ when the samples are extracted in blocks of 3",
        ),
    ],
)
def test_wrong_masks_of_sequences_are_named(change, fault):
    class Changed(Strips):
        def extract(self, samples):
            rows = super().extract(samples)
            return change(rows, samples) or rows

    assert fault in faults_of(Changed())


def test_a_mask_is_a_fault_of_a_stream_that_is_no_sequence():
    fault = "mask of an empty block must be None, because the first dimension is not 'time'"
    masked = changed(
        lambda rows, samples: Rows(rows.features, rows.status, rows.flags, np.ones((len(samples), 3), np.uint8))
    )
    assert fault in faults_of(masked)


def test_an_exception_is_named_with_the_block_that_caused_it():
    def change(rows, samples):
        if not samples:
            raise IndexError("nothing to stack")

    assert faults_of(changed(change)).endswith("1 fault: extract raised IndexError on an empty block: nothing to stack")


def test_a_stream_that_remembers_is_found_out():
    seen = []

    def change(rows, samples):
        seen.extend(samples)
        rows.features[:] += len(seen)

    faults = faults_of(changed(change))
    assert "the same block gives other bytes the second time" in faults
    assert "when the samples are extracted one by one" in faults


def test_a_stream_that_reuses_its_array_is_found_out():
    kept = np.zeros((8, 3), np.float32)

    def change(rows, samples):
        if len(samples) != 8:
            return None
        kept[:] = rows.features
        return Rows(kept, rows.status, rows.flags)

    assert "a later call changed the arrays that an earlier one returned" in faults_of(changed(change))


def test_a_stream_that_depends_on_the_block_is_found_out():
    def normalise(rows, samples):
        rows.features[:] -= rows.features.mean(axis=0) if len(samples) else 0

    faults = faults_of(changed(normalise))
    assert "features differ by" in faults
    assert "one by one, allowed" in faults
    assert "in blocks of 3, allowed" in faults


def test_rounding_within_the_tolerance_is_allowed():
    def round_by_size(rows, samples):
        rows.features[:] *= 1 + 1e-6 * len(samples)

    check_stream(changed(round_by_size))
    assert "features differ by" in faults_of(changed(round_by_size), tolerance=1e-7)


def test_statuses_that_depend_on_the_block_are_found_out():
    def drop_first(rows, samples):
        rows.status[:1] = Status.FAILED
        rows.features[:1] = 0

    assert "statuses, flags or masks differ when the samples are extracted backwards" in faults_of(changed(drop_first))


class HalfSpec(MeanColourSpec):
    dtype: Literal["float16", "float32"] = "float16"

    def make(self, device):
        return changed(lambda rows, samples: rows.features.__imul__(1e7) is None)


def test_values_must_fit_into_the_stored_dtype():
    assert "features do not fit into the stored float16" in faults_of(HalfSpec())


class OldSpec(MeanColourSpec):
    version: ClassVar[int] = 0


def test_a_version_below_one_is_a_fault():
    assert "version must be >= 1, got 0" in faults_of(OldSpec())


class MisdeclaredSpec(MeanColourSpec):
    stored_shape: ClassVar[tuple[int, ...]] = (4,)
    variants: ClassVar[tuple[Variant, ...]] = (Variant("first", (1, 2), 3),)

    @classmethod
    def derive(cls, stored, choice):
        return stored[:1] if choice["first"] == 1 else stored[choice["none"]]


def test_a_spec_that_misdeclares_the_shape_and_variants_of_its_stream_is_a_fault():
    faults = faults_of(MisdeclaredSpec())
    assert "the spec declares ((4,), ('feature',)), its stream ((3,), ('feature',))" in faults
    assert "variant first: the default 3 is not among its values" in faults
    assert "variant first: derive returned 1 rows for 2" in faults
    assert "variant first: derive raised KeyError for 2: 'none'" in faults


def test_a_spec_that_no_worker_can_receive_is_a_fault():
    class LocalSpec(MeanColourSpec):
        pass

    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(LocalSpec())
    assert "the spec cannot be pickled, so no worker can receive it" in faults_of(LocalSpec())


def test_example_samples_are_the_same_every_time_and_hold_what_they_say():
    one, other = example_samples(), example_samples()
    assert len(one) == 8
    assert sum(sample.face is not None for sample in one) == 5
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.image, second.image)
        assert (first.image.ndim, first.image.shape[2], first.image.dtype) == (3, 3, np.uint8)
    assert example_face().points.shape == (468, 3)
