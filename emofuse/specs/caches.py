"""The spec of a cache: its streams, the decoding of images, the detection of faces, and augmented views."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from emofuse.specs.base import ExtendedSpec, Spec
from emofuse.specs.streams import StreamSpec
from emofuse.specs.weights import FileWeights, HubWeights, RegistryWeights

_BLOCK_ROWS = 256
_BLOCKS_AT_MOST = 4096
_CLIP_ROWS = 16


class DecodeSpec(ExtendedSpec):
    """The decoding of a file to RGB or sound. It is part of every stream's digest."""

    added: ClassVar[frozenset[str]] = frozenset({"max_sound_s", "pca_variance"})
    max_pixels: int = Field(100_000_000, ge=1, description="larger pictures are refused before they are decoded")
    max_sound_s: float = Field(600.0, gt=0, description="longer sounds are refused, unless a span of them is given")
    pca_variance: float | None = Field(
        None, gt=0, lt=1, description="rebuild each channel from the components that hold this share of its variance"
    )


class FaceSpec(ExtendedSpec):
    """The detection and alignment of faces. It is part of the digest of every stream that looks at faces.

    `face_mesh` is MediaPipe Face Mesh of 0.10.x, whose wheel contains the model. `landmarker` is the Tasks face
    landmarker, which needs the weights `face_landmarker`. Both give the same 468 points. `yunet` (OpenCV) and
    `retinaface` (batch-face) find a box and five points, also of small and turned faces. Where a stream needs the 468
    points, Face Mesh lays them on the enlarged box.

    The aligned face is a square picture. `five_point` maps eyes, nose tip and mouth corners to fixed places by a
    similarity; `mesh` turns the eyes to a horizontal line and cuts the square around the mesh; `box` cuts the square
    around the box of the detector, without a turn.
    """

    added: ClassVar[frozenset[str]] = frozenset(
        {"weights", "detect_px", "align", "size_px", "margin", "which", "min_px", "upscale_below_px", "turned"}
    )

    detector: Literal["face_mesh", "landmarker", "yunet", "retinaface"] = "face_mesh"
    min_confidence: float = Field(0.5, gt=0, lt=1)
    weights: RegistryWeights | FileWeights | HubWeights | None = Field(
        None, discriminator="kind", description="of yunet and retinaface; the registry's unless given"
    )
    detect_px: int | None = Field(
        None, ge=64, description="the long side to which yunet (320) and retinaface (640) reduce larger pictures"
    )
    align: Literal["five_point", "mesh", "box"] = "five_point"
    size_px: int = Field(224, ge=16, le=1024, description="the side of the aligned face")
    margin: float | None = Field(
        None,
        ge=0,
        le=2,
        description="added on each side, as a share of the side; five_point 0, others 0.1 unless given",
    )
    which: Literal["largest", "central", "all"] = Field(
        "largest", description="the face of a picture with several; `all` gives each face a row"
    )
    min_px: int = Field(0, ge=0, description="faces whose box has a shorter side are ignored")
    upscale_below_px: int = Field(0, ge=0, description="pictures with a shorter side are enlarged to it for detection")
    turned: bool = Field(
        False, description="look in the picture turned by 90, 180 and 270 degrees too; takes four times as long"
    )

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.detector in {"face_mesh", "landmarker"}:
            given = [name for name in ("weights", "detect_px") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{' and '.join(given)}: options of yunet and retinaface, got {self.detector}")
        return self

    @property
    def crop_margin(self) -> float:
        """The margin of the aligned face on each side, as a share of the side."""
        if self.margin is not None:
            return self.margin
        return 0.0 if self.align == "five_point" else 0.1


class ClipSpec(Spec):
    """The frames of a clip that image streams see, which gives each of them a time axis.

    Without `every`, the clip is divided into `frames` equal parts, and the frame that is shown in the middle of each is
    taken. With `every: k` it is every k-th frame, at most `frames` of them, and padding after the last one.
    `over_time: mean` stores the mean over the frames with features in place of the sequence.
    """

    frames: int = Field(16, ge=1, description="the number of steps, T")
    every: int | None = Field(None, ge=1, description="take every k-th frame instead of frames uniform in time")
    over_time: Literal["sequence", "mean"] = "sequence"


class SoundAugmentSpec(Spec):
    """The augmented views of a sound: a shift in time, a gain, and white noise in a part of the views."""

    shift_s: float = Field(0.1, ge=0, le=60, description="the largest shift in seconds, in either direction")
    gain_db: float = Field(6.0, ge=0, le=60, description="the largest gain in decibels, in either direction")
    noise: float = Field(0.5, ge=0, le=1, description="the probability of noise")
    snr_db: float = Field(20.0, ge=-20, le=100, description="the power of the sound over that of the noise in decibels")


class AugmentSpec(ExtendedSpec):
    """The augmented views of a picture: the paper's flip, rotation and padded random crop, seeded; and of a sound."""

    added: ClassVar[frozenset[str]] = frozenset({"sound"})

    flip: float = Field(0.5, ge=0, le=1, description="the probability of mirroring left and right")
    rotation_deg: float = Field(10.0, ge=0, le=180, description="the largest rotation in degrees, in either direction")
    padding: float = Field(0.125, ge=0, lt=1, description="the largest shift, as a share of the width and height")
    seed: int = 0
    sound: SoundAugmentSpec = SoundAugmentSpec()


class CacheSpec(ExtendedSpec):
    """The content of a cache: its streams, the decoding of images, the detection of faces, and the rows of a block.

    Without `block_rows`, an existing cache keeps its own and a new one follows `rows_of_a_block`. `views` is 1 for the
    samples alone and 1 + V for the samples with V augmented views of each, drawn as `augment` describes. With `clip`,
    samples are clips: image streams see the frames that it chooses, and have a time axis. Streams of sound need none.
    """

    added: ClassVar[frozenset[str]] = frozenset({"clip"})
    name: str = "cache"
    block_rows: int | None = Field(None, ge=1)
    views: int = Field(1, ge=1)
    augment: AugmentSpec = AugmentSpec()
    decode: DecodeSpec = DecodeSpec()
    face: FaceSpec = FaceSpec()
    clip: ClipSpec | None = None
    streams: tuple[StreamSpec, ...] = Field(min_length=1)

    def rows_of_a_block(self, rows: int) -> int:
        """Return the number of rows of a block, for a new cache of `rows` rows if the spec leaves it open.

        It is 256 for up to a million rows, and a multiple of 256 beyond, so that there are at most 4096 blocks. A block
        is a file in each folder of a stream, and shared file systems are slow to list folders with more files. Of clips
        with T frames, 256 / T rows count instead of 256, at least 16: a build that is stopped loses a block.
        """
        if self.block_rows is not None:
            return self.block_rows
        least = _BLOCK_ROWS if self.clip is None else max(_CLIP_ROWS, _BLOCK_ROWS // self.clip.frames)
        return least * max(1, -(-rows // (least * _BLOCKS_AT_MOST)))

    @model_validator(mode="after")
    def _clips_have_one_face(self) -> Self:
        if self.clip is not None and self.face.which == "all":
            raise ValueError("face.which: `all` gives each face of a picture a row; of clips set largest or central")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [stream.name for stream in self.streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stream names must differ, these are used twice: {', '.join(twice)}")
        return self
