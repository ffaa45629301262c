"""Conformance checks of streams, heads, datasets and metrics. The kinds of emofuse pass them, and yours should too.

from typing import Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.status import Status
from emofuse.streams.base import Rows
from emofuse.testing import check_stream


class MeanColour:
    \"\"\"Mean red, green and blue, 0 to 1.\"\"\"

    shape = (3,)
    dimensions = ("feature",)
    dtype = np.dtype(np.float32)
    needs = frozenset({"image"})
    flag_names = ()
    columns = ("red", "green", "blue")

    def extract(self, samples):
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.OK)
        for index, sample in enumerate(samples):
            rows.features[index] = sample.image.mean(axis=(0, 1)) / 255
        return rows

    def close(self):
        pass


class MeanColourSpec(CustomStreamSpec):
    kind: Literal["mean_colour"] = "mean_colour"

    def make(self, device):
        return MeanColour()


def test_mean_colour_is_a_stream():
    check_stream(MeanColourSpec())
"""

from __future__ import annotations

from emofuse.testing.datasets import check_dataset
from emofuse.testing.heads import check_head
from emofuse.testing.metrics import check_metric
from emofuse.testing.samples import example_face, example_samples, example_sound
from emofuse.testing.streams import check_stream

__all__ = [
    "check_dataset",
    "check_head",
    "check_metric",
    "check_stream",
    "example_face",
    "example_samples",
    "example_sound",
]
