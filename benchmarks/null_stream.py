"""A stream that looks at nothing, for measurements of all that is not extraction; workers import it from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from emofuse.specs import CustomStreamSpec
from emofuse.streams.base import Rows, Sample


class NullSpec(CustomStreamSpec):
    """Eight zeros an image."""

    kind: Literal["null"] = "null"

    def make(self, device: str) -> NullStream:  # noqa: ARG002 - the signature is that of all streams
        """The stream itself."""
        return NullStream()


class NullStream:
    """Eight zeros an image."""

    shape = (8,)
    dimensions = ("feature",)
    dtype = np.dtype("float32")
    needs_face = False
    flag_names = ()
    columns = ()

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Zeros."""
        return Rows.ok(np.zeros((len(samples), *self.shape), dtype=np.float32))

    def close(self) -> None:
        """Has nothing to release."""
