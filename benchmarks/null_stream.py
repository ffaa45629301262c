"""A stream without work, to measure everything except extraction; workers import it from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.streams.base import NEEDS_IMAGE, Rows, Sample


class NullSpec(CustomStreamSpec):
    """The spec of a stream of eight zeros an image."""

    kind: Literal["null"] = "null"

    def make(self, device: str) -> NullStream:  # noqa: ARG002 - the signature is that of all streams
        """Return the stream."""
        return NullStream()


class NullStream:
    """A stream of eight zeros an image."""

    shape = (8,)
    dimensions = ("feature",)
    dtype = np.dtype("float32")
    needs = NEEDS_IMAGE
    flag_names = ()
    columns = ()

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return zeros."""
        return Rows.ok(np.zeros((len(samples), *self.shape), dtype=np.float32))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
