"""What is cached: streams, their weights, how images are decoded and faces found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, InstanceOf, SerializeAsAny, Tag, model_validator

from emofuse.specs.base import Spec


class RegistryWeights(Spec):
    """Weights by their name in the registry (`emofuse weights list`)."""

    kind: Literal["registry"] = "registry"
    name: str


class FileWeights(Spec):
    """Weights from a file of the user's. `sha256`, when given, is checked."""

    kind: Literal["file"] = "file"
    path: Path
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class RandomWeights(Spec):
    """Seeded random weights: for demonstrations and tests only; every report made from them says so."""

    kind: Literal["random"] = "random"
    seed: int = 0


def is_random(weights: Mapping[str, Any] | None) -> bool:
    """Whether weights, as caches and runs record them (plain data with a `kind`, or None), are random ones."""
    return weights is not None and weights["kind"] == "random"


WeightsSpec = Annotated[RegistryWeights | FileWeights | RandomWeights, Field(discriminator="kind")]


_BLOCK_ROWS = 256
_BLOCKS_AT_MOST = 4096
STREAM_NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]*$"
StoredDtype = Literal["float16", "float32"]


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


class StreamSpecBase(Spec):
    """What all streams have: a name in the cache (the kind unless given) and a stored dtype.

    `version` is raised whenever the stream's code gives other bytes for the same spec; it is part of the digest.
    """

    version: ClassVar[int] = 1
    needs_face: ClassVar[bool] = False

    kind: str
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    dtype: Literal["float16", "float32"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            return {**data, "name": cls._default_name(data)}
        return data

    @classmethod
    def _default_name(cls, _data: Mapping[str, Any]) -> str:
        return str(cls.model_fields["kind"].default)


class LbpSpec(StreamSpecBase):
    """Local binary patterns of the face region: 256 bins at radius 1 and 256 at radius 2, 512 stored.

    The face region is the square box around the landmarks, resized to `region_px`. Without a face the whole image
    takes its place (`whole_image`, flagged in the cache) or the row has no LBP (`no_detection`).
    """

    needs_face: ClassVar[bool] = True
    kind: Literal["lbp"] = "lbp"
    region_px: int = Field(128, ge=8)
    without_face: Literal["whole_image", "no_detection"] = "no_detection"


class LandmarksSpec(StreamSpecBase):
    """468 aligned face landmarks, 1404 values."""

    needs_face: ClassVar[bool] = True
    kind: Literal["landmarks"] = "landmarks"


class ActionUnitsSpec(StreamSpecBase):
    """30 raw geometric measurements of facial action units."""

    needs_face: ClassVar[bool] = True
    kind: Literal["action_units"] = "action_units"


Precision = Literal["float32", "bfloat16"]
"""Of a network's weights and activations. bfloat16 is for GPUs, and CPUs that multiply it (AVX512-BF16, AMX): there it
is some three times as fast. Elsewhere it is slower. Features then differ by about half a percent of their length."""


class BackboneSpec(StreamSpecBase):
    """Pooled features of a torchvision classification model, with that model's own resize, crop and normalisation."""

    kind: Literal["backbone"] = "backbone"
    model: str
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def _default_name(cls, _data: Mapping[str, Any]) -> str:
        return str(_data.get("model", "backbone"))


class Places365Spec(StreamSpecBase):
    """2048 pooled features of the Places365 ResNet-50 (Zhou et al., TPAMI 2018)."""

    kind: Literal["places365"] = "places365"
    weights: WeightsSpec = RegistryWeights(name="places365")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"


class ObjectsSpec(StreamSpecBase):
    """The five most confident YOLOv5 objects, six values each: centre, size, class probability, confidence."""

    kind: Literal["objects"] = "objects"
    model: Literal["yolov5n", "yolov5s"] = "yolov5n"
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    image_px: int = Field(640, ge=32, multiple_of=32)
    min_confidence: float = Field(0.25, gt=0, lt=1)


class ImportedSpec(StreamSpecBase):
    """Vectors of another tool, put into the cache by `emofuse cache import`: a build leaves them as they are.

    In a cache spec it stands for a stream that must be there. `sha256`, when given, is that of its content and is
    checked.
    """

    kind: Literal["imported"] = "imported"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    source: str = Field("", description="name of the file that it came from, for people")
    dataset: str = Field("", description="name of the array in that file, for people")


class CustomStreamSpec(StreamSpecBase):
    """Base class of a stream of one's own, used from Python only (YAML names no code).

    Subclass it with a `kind`, its parameters, and `make(device)`; raise `version` whenever the code gives other bytes.
    Set `uses_gpu` to False if it never does: a cluster then computes it where there is no GPU.
    """

    uses_gpu: ClassVar[bool] = True

    def make(self, device: str) -> Any:
        """The stream itself, an object with the members of `emofuse.streams.base.Stream`."""
        raise NotImplementedError(f"{type(self).__name__}.make(device) must return the stream")


def _stream_tag(value: Any) -> str:
    if isinstance(value, CustomStreamSpec):
        return "custom"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return str(kind)


StreamSpec = Annotated[
    Annotated[LbpSpec, Tag("lbp")]
    | Annotated[LandmarksSpec, Tag("landmarks")]
    | Annotated[ActionUnitsSpec, Tag("action_units")]
    | Annotated[BackboneSpec, Tag("backbone")]
    | Annotated[Places365Spec, Tag("places365")]
    | Annotated[ObjectsSpec, Tag("objects")]
    | Annotated[ImportedSpec, Tag("imported")]
    | Annotated[SerializeAsAny[InstanceOf[CustomStreamSpec]], Tag("custom")],
    Discriminator(_stream_tag),
]


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
