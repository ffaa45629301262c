"""Streams that record on which kind of worker they ran. In a module of their own, so that workers can import them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.streams.base import NEEDS_IMAGE, Rows, Sample

KIND = "EMOFUSE_TEST_WORKER_KIND"


class NetworkSpec(CustomStreamSpec):
    """Says nothing of GPUs, so it may use one."""

    kind: Literal["network"] = "network"
    delay_s: float = 0.0

    def make(self, device: str) -> Where:
        return Where(self.delay_s)


class GeometrySpec(CustomStreamSpec):
    """Never uses a GPU."""

    uses_gpu: ClassVar[bool] = False
    kind: Literal["geometry"] = "geometry"
    delay_s: float = 0.0

    def make(self, device: str) -> Where:
        return Where(self.delay_s)


class Where:
    """1 on a worker that was started as one with a GPU, 0 elsewhere; and the mean red of the picture."""

    shape = (2,)
    dimensions = ("feature",)
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ()
    columns = ("on_gpu", "red")

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def extract(self, samples: Sequence[Sample]) -> Rows:
        time.sleep(self._delay_s)
        rows = Rows.ok(np.zeros((len(samples), 2), dtype=np.float32))
        for row, sample in enumerate(samples):
            rows.features[row] = os.environ.get(KIND) == "gpu", sample.image[..., 0].mean()
        return rows

    def close(self) -> None:
        pass
