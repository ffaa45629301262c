"""The picture of one row of a cache, and the face in it as extraction has found it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emofuse.cache.reader import Cache
from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.roots import follows_links, open_files
from emofuse.datasets.sources import Source, sources_of
from emofuse.errors import DecodeError, StreamError
from emofuse.media.decode import read_image
from emofuse.specs import CacheSpec
from emofuse.specs.streams import NEEDS_CROP, NEEDS_FACE
from emofuse.streams.base import Face
from emofuse.streams.faces import make_face_detector
from emofuse.streams.landmarks import align

Matrix = npt.NDArray[np.float64]
_SAME_MESH = 0.05
"""The largest mean distance of a mesh from the cached one, in distances between the eyes; libraries differ by less."""


class Photograph:
    """The picture of one row.

    Faces are found by the detector and the options of the cache, so that they are those that streams have seen.

    Attributes:
        image: the picture, (H, W, 3) uint8 RGB, upright.
        spec: the spec of the cache, whose weight files are at their present places.

    Args:
        image: the picture.
        spec: the spec of the cache.
        box: the left, top, width and height of the face that the row means; None where the spec chooses.
    """

    def __init__(
        self, image: npt.NDArray[np.uint8], spec: CacheSpec, box: tuple[float, float, float, float] | None = None
    ) -> None:
        self.image, self.spec = image, spec
        self._box = (
            None if box is None else np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], dtype=np.float32)
        )
        self._faces: dict[frozenset[str], Face | None] = {}

    def find_face(self, needs: frozenset[str]) -> Face | None:
        """Return the face that streams with these needs have seen; None where none is found.

        Args:
            needs: what the streams need of a sample, `NEEDS_FACE` or `NEEDS_CROP`.

        Raises:
            StreamError: the detector cannot run on this machine.
            WeightsError: its model is missing.
        """
        if needs not in self._faces:
            detector = make_face_detector(self.spec.face, needs)
            try:
                self._faces[needs] = detector.detect(self.image, self._box)
            finally:
                detector.close()
        return self._faces[needs]

    def find_crop(self) -> Face:
        """Return the face whose aligned picture networks of faces have seen.

        Raises:
            StreamError: there is none.
        """
        face = self.find_face(NEEDS_CROP)
        if face is None or (self.spec.face.align == "mesh" and face.points is None):
            raise StreamError("no face is found in the picture, although the row has one; is it another picture?")
        return face

    def find_mesh(self, aligned: npt.NDArray[np.floating] | None = None) -> npt.NDArray[np.float32] | None:  # type: ignore[type-arg]
        """Return the mesh of the face in pixels of the picture, (468, 3) float32; None where none is found.

        Args:
            aligned: the cached landmarks of the row, (1404,). A mesh that is not theirs is not returned.
        """
        face = self.find_face(NEEDS_FACE)
        if face is None or face.points is None:
            return None
        if aligned is not None and aligned.size == face.points.size:
            far = np.linalg.norm(align(face.points)[:, :2] - aligned.reshape(-1, 3)[:, :2], axis=1).mean()
            if not far <= _SAME_MESH:
                return None
        return face.points


def open_photograph(cache: Cache, row: int, spec: CacheSpec, root: Path | None = None) -> Photograph:
    """Read the picture of a row.

    Args:
        cache: the cache with its manifest.
        row: the row.
        spec: the spec of the cache, whose weight files are at their present places.
        root: the folder of the pictures; that of the manifest unless given. Files are also looked for in it by their
            names alone.

    Raises:
        DecodeError: there is no such file, it is no picture, or it cannot be read.
    """
    manifest = cache.manifest
    folder = Path(root or manifest.root)
    table = manifest.table[row : row + 1]
    (source,) = sources_of(table, folder, open_files(folder, follow_links=follows_links(manifest)))
    if source is None or not source.path.is_file():
        by_name = folder / Path(str(table["path"][0])).name
        if not by_name.is_file():
            path = folder / str(table["path"][0]) if source is None else source.path
            raise DecodeError(f"no picture at {path}; name the folder of the pictures: --image-root")
        source = Source(by_name) if source is None else replace(source, path=by_name)
    if spec.clip is not None or kind_of_name(source.member or source.path.name) in {NameKind.CLIP, NameKind.SOUND}:
        raise DecodeError("the sample is a clip or a sound, and heat and faces are drawn on pictures alone")
    return Photograph(read_image(source, spec.decode), spec, source.face_box)
