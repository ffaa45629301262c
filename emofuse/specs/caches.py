"""What is cached: streams, how images are decoded and faces found, and their augmented views."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from emofuse.specs.base import Spec
from emofuse.specs.streams import StreamSpec

_BLOCK_ROWS = 256
_BLOCKS_AT_MOST = 4096


class DecodeSpec(Spec):
    """How a file becomes RGB. Part of every stream's digest."""

    max_pixels: int = Field(100_000_000, ge=1, description="larger pictures are refused before they are decoded")


class FaceSpec(Spec):
    """How faces are found. Part of the digest of every stream that looks at a face.

    `face_mesh` is MediaPipe Face Mesh of 0.10.x, whose model travels in its wheel. `landmarker` is the Tasks face
    landmarker, which needs the weights `face_landmarker`. Both give the same 468 points.
    """

    detector: Literal["face_mesh", "landmarker"] = "face_mesh"
    min_confidence: float = Field(0.5, gt=0, lt=1)


class AugmentSpec(Spec):
    """What the augmented views of a picture are: the paper's flip, rotation and padded random crop, seeded."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left and right")
    rotation_deg: float = Field(10.0, ge=0, le=180, description="turned by up to so many degrees either way")
    padding: float = Field(0.125, ge=0, lt=1, description="shifted by up to this share of the width and height")
    seed: int = 0


class CacheSpec(Spec):
    """What is cached: the streams, how images are decoded and faces found, and how many rows make a block.

    `block_rows` left out is that of the cache that is there, or else as `rows_of_a_block` chooses.
    `views` is 1 for the pictures as they are, 1 + V for V augmented views of each beside them, drawn as `augment` says.
    """

    name: str = "cache"
    block_rows: int | None = Field(None, ge=1)
    views: int = Field(1, ge=1)
    augment: AugmentSpec = AugmentSpec()
    decode: DecodeSpec = DecodeSpec()
    face: FaceSpec = FaceSpec()
    streams: tuple[StreamSpec, ...] = Field(min_length=1)

    def rows_of_a_block(self, rows: int) -> int:
        """How many rows make a block of a new cache of `rows` rows, where the spec leaves it open.

        256 up to a million rows. Beyond that, multiples of it that make at most 4096 blocks: a block is a file in each
        of its stream's folders, and a folder of more is slow to list on shared file systems.
        """
        if self.block_rows is not None:
            return self.block_rows
        return _BLOCK_ROWS * max(1, -(-rows // (_BLOCK_ROWS * _BLOCKS_AT_MOST)))

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [stream.name for stream in self.streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stream names must differ, these are used twice: {', '.join(twice)}")
        return self
