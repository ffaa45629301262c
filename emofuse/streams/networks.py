"""Kinds of streams that run a network. The networks, and torch with them, are loaded when a stream is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, RegistryWeights, WeightsSpec


class BackboneSpec(StreamSpecBase):
    """Pooled features of a torchvision classification model, with that model's own resize, crop and normalisation."""

    uses_gpu: ClassVar[bool] = True

    kind: Literal["backbone"] = "backbone"
    model: str
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def _default_name(cls, _data: Mapping[str, Any]) -> str:
        return str(_data.get("model", "backbone"))

    def make(self, device: str) -> Any:
        """The extractor, its network loaded."""
        from emofuse.streams.backbones import make_backbone

        return make_backbone(self, device)

    def weights_wanted(self) -> WeightsSpec:
        """The spec's, or the registry's own of the model."""
        from emofuse.weights import default_weights

        return self.weights or default_weights(self.model)


class Places365Spec(StreamSpecBase):
    """2048 pooled features of the Places365 ResNet-50 (Zhou et al., TPAMI 2018)."""

    uses_gpu: ClassVar[bool] = True
    stored_shape: ClassVar[tuple[int, ...]] = (2048,)

    kind: Literal["places365"] = "places365"
    weights: WeightsSpec = RegistryWeights(name="places365")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"

    def make(self, device: str) -> Any:
        """The extractor, its network loaded."""
        from emofuse.streams.backbones import make_places365

        return make_places365(self, device)


class ObjectsSpec(StreamSpecBase):
    """The five most confident YOLOv5 objects, six values each: centre, size, class probability, confidence."""

    uses_gpu: ClassVar[bool] = True
    stored_shape: ClassVar[tuple[int, ...]] = (30,)

    kind: Literal["objects"] = "objects"
    model: Literal["yolov5n", "yolov5s"] = "yolov5n"
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    image_px: int = Field(640, ge=32, multiple_of=32)
    min_confidence: float = Field(0.25, gt=0, lt=1)

    def make(self, device: str) -> Any:
        """The extractor, its network loaded."""
        from emofuse.streams.objects import make_objects

        return make_objects(self, device)

    def weights_wanted(self) -> WeightsSpec:
        """The spec's, or the registry's own of the model."""
        from emofuse.weights import default_weights

        return self.weights or default_weights(self.model)
