"""The 52 expression coefficients of MediaPipe's face landmarker (blendshapes, named as in Apple's ARKit)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from emofuse.specs.streams import StreamSpecBase
from emofuse.status import Status
from emofuse.streams.base import NEEDS_BLENDSHAPES, VECTOR, Rows, Sample
from emofuse.streams.faces.blendshape_names import BLENDSHAPES


class BlendshapesSpec(StreamSpecBase):
    """52 expression coefficients of the face, such as `mouthSmileLeft` and `browInnerUp`, each from 0 to 1.

    They need the weights `face_landmarker`, whose bundle holds the network that estimates them from the mesh. With
    `face: {detector: landmarker}` they come with the mesh; on the faces of another detector the landmarker runs too.
    """

    needs: ClassVar[frozenset[str]] = NEEDS_BLENDSHAPES
    stored_shape: ClassVar[tuple[int, ...]] = (len(BLENDSHAPES),)

    kind: Literal["blendshapes"] = "blendshapes"

    def make(self, device: str) -> BlendshapesStream:  # noqa: ARG002 - it runs on the CPU
        """Return the extractor."""
        return BlendshapesStream()


class BlendshapesStream:
    """The expression coefficients of the landmarker -> 52 values, named by `columns`; left and right are the subject's.

    Holds no per-sample state: one instance serves every block of a worker.
    """

    shape = (len(BLENDSHAPES),)
    dimensions = VECTOR
    dtype: np.dtype[np.floating[Any]] = np.dtype(np.float32)
    needs = NEEDS_BLENDSHAPES
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = BLENDSHAPES

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the coefficients of n samples.

        Returns:
            features (n, 52) float32; status (n,) uint8: NO_DETECTION without a face.
        """
        rows = Rows.empty(len(samples), self.shape, self.dtype, Status.NO_DETECTION)
        for index, sample in enumerate(samples):
            if sample.face is not None and sample.face.blendshapes is not None:
                rows.features[index] = sample.face.blendshapes
                rows.status[index] = Status.OK
        return rows

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
