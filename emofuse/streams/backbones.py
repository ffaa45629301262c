"""Pooled features of torchvision's classification networks, and of the Places365 ResNet-50.

A row holds what the plain network computes from torchvision's own preset (resize, centre crop, normalisation) of the
picture, cut before the classifier. Torchvision's metadata says which preset belongs to which weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, RegistryWeights, WeightsSpec
from emofuse.streams.base import NEEDS_IMAGE, VECTOR, Rows, Sample, SampleBatch

if TYPE_CHECKING:
    import torch
    from torch import nn

_PLACES365_CLASSES = 365
_CPU_BATCH = 4  # the fastest on one core: 16 falls out of its cache (benchmarks/steps.py)
_GPU_BATCH = 64


class BackboneSpec(StreamSpecBase):
    """Pooled features of a torchvision classification model, with that model's own resize, crop and normalisation."""

    uses_gpu: ClassVar[bool] = True

    kind: Literal["backbone"] = "backbone"
    model: str
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:
        return str(data.get("model", "backbone"))

    def make(self, device: str) -> BackboneStream:
        """Return the extractor with its network loaded, see `make_backbone`."""
        return make_backbone(self, device)

    def weights_wanted(self) -> WeightsSpec:
        """Return the spec's weights, or the registry's default weights of the model."""
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

    def make(self, device: str) -> BackboneStream:
        """Return the extractor with its network loaded, see `make_places365`."""
        return make_places365(self, device)


class BackboneStream:
    """One frozen network without its classifier -> one pooled vector a picture.

    Holds no per-sample state: one instance serves every block of a worker. float32 runs without TF32 on every device.
    In bfloat16 the weights and all values between layers are bfloat16, and sums within a layer are float32.

    Attributes:
        network: the torchvision network without its classifier.
        shape: (D,), the width of the network's pooled vectors.
    """

    dimensions = VECTOR
    dtype = np.dtype(np.float32)
    needs = NEEDS_IMAGE
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, transform: Any, device: str, precision: Precision = "float32") -> None:
        import torch

        from emofuse.streams.networks.classification import cut_head, to_device
        from emofuse.streams.networks.presets import Preset

        self.shape = (cut_head(network),)
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.network = to_device(network, device).to(self._dtype)
        self._preset = Preset(transform)
        self._device = torch.device(device)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else _GPU_BATCH

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the pooled features of n pictures.

        Returns:
            features (n, D) float32, every row OK.
        """
        if not samples:
            return Rows.ok(np.zeros((0, *self.shape), dtype=self.dtype))
        import torch

        pictures = self._preset.cut_all(SampleBatch.of(samples), self._device)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            pooled = torch.cat([self._forward(part) for part in torch.split(pictures, self._batch)])
            return Rows.ok(pooled.cpu().numpy())

    def close(self) -> None:
        """Do nothing: the garbage collector releases the network."""

    def _forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Compute (B, D) float32 from (B, 3, H, W) uint8, both on the device."""
        import torch

        batch = self._preset.normalise(pictures).to(self._dtype, memory_format=torch.channels_last)
        pooled: torch.Tensor = self.network(batch).flatten(1).float()
        return pooled


def make_backbone(spec: BackboneSpec, device: str) -> BackboneStream:
    """Make the stream of a torchvision model by name.

    Raises:
        SpecError: torchvision has no such classification model.
        StreamError: the model cannot be cut before its classifier, or the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    from emofuse.streams.networks.classification import check_model, make_network, make_preset
    from emofuse.weights import resolve_weights

    check_model(spec.model)
    weights = resolve_weights(spec.weights_wanted())
    network, transform = make_network(spec.model, weights), make_preset(spec.model, weights)
    return BackboneStream(network, transform, device, spec.precision)


def make_places365(spec: Places365Spec, device: str) -> BackboneStream:
    """Make the stream of the Places365 ResNet-50 (365 classes): 2048 values before its classifier.

    Raises:
        StreamError: the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    from emofuse.streams.networks.classification import make_network, make_preset
    from emofuse.weights import resolve_weights

    weights = resolve_weights(spec.weights)
    network = make_network("resnet50", weights, classes=_PLACES365_CLASSES)
    return BackboneStream(network, make_preset("resnet50", weights), device, spec.precision)
