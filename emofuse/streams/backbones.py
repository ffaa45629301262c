"""Features of networks of torchvision, timm and open_clip, and of the Places365 ResNet-50.

A row holds what the plain network computes from its library's own preprocessing (resize, crop, normalisation) of the
picture, cut before the classifier: the pooled vector, the last map, or the tokens. A network may also see the picture
of a log-mel spectrogram of the sound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.audio import MelSettings
from emofuse.specs.streams import StreamSpecBase
from emofuse.specs.weights import Precision, RegistryWeights, WeightsSpec
from emofuse.status import Status, Step
from emofuse.streams.base import NEEDS_AUDIO, NEEDS_CROP, NEEDS_IMAGE, TIME, Rows, Sample, SampleBatch, is_sequence
from emofuse.streams.shared_networks import shared_network

if TYPE_CHECKING:
    import torch

    from emofuse.streams.networks.outputs import Output, PictureNetwork
    from emofuse.streams.networks.presets import PicturePreset
    from emofuse.streams.networks.shared_backbones import SharedBackbone
    from emofuse.streams.networks.spectrogram_pictures import SpectrogramPictures
    from emofuse.weights import ResolvedWeights

_LIBRARIES = ("torchvision", "timm", "open_clip")
_PLACES365_CLASSES = 365
_DIMENSIONS: dict[str, tuple[str, ...]] = {
    "pooled": ("feature",),
    "map": ("channel", "y", "x"),
    "tokens": ("time", "feature"),
}
"""The names of the axes of a row. Tokens are a sequence whose steps are positions of the picture, row by row."""


class BackboneSpec(StreamSpecBase):
    """Features of a network of pictures, with that model's own resize, crop and normalisation.

    `model` is a classification model of torchvision (`resnet50`), `timm/NAME` or `open_clip/NAME`; timm and open_clip
    are extras. timm's names may have the tag of published weights (`timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k`),
    those of open_clip are written `open_clip/NAME/TAG`: the tag decides the preprocessing, and the activation of models
    that OpenAI trained.

    With `region: face` the network sees the aligned face (see `FaceSpec`), resized to the network's input without a
    crop, so that nothing of it is cut off. A picture without a face gives a row without features.

    `output` is `pooled`, a vector; `map`, the last map (channel, y, x); or `tokens`, the sequence of a transformer's
    tokens. With `layer`, the name of a layer or block as PyTorch gives it (`layer3`, `features.13`, `blocks.5`), it is
    the output of that layer, and `pooled` is its mean over the picture; for torchvision and timm.

    With `input: mel` the network sees the log-mel spectrogram of the sound in place of a picture: grey, low bands at
    the bottom, white at the loudest value and black 80 dB below it, resized to the network's input without a crop.
    `mel` has the settings of the spectrogram, and `windows` the number of equal parts of its length that the network
    sees one by one, as the steps of a sequence.
    """

    uses_gpu: ClassVar[bool] = True
    added: ClassVar[frozenset[str]] = frozenset({"output", "layer", "region", "input", "mel", "windows"})

    kind: Literal["backbone"] = "backbone"
    model: str
    weights: WeightsSpec | None = Field(None, description="the registry's weights of the model unless given")
    precision: Precision = "float32"
    dtype: Literal["float16", "float32"] = "float16"
    output: Literal["pooled", "map", "tokens"] = "pooled"
    region: Literal["image", "face"] = Field("image", description="the whole picture, or the aligned face")
    layer: str | None = Field(None, min_length=1, description="the layer whose output is taken; the last unless given")
    input: Literal["image", "mel"] = "image"
    mel: MelSettings | None = Field(None, description="the spectrogram of `input: mel`; defaults unless given")
    windows: int = Field(1, ge=1, le=1024, description="the steps of a sequence of `input: mel`; 1 for a vector")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # other kinds need the same for all their specs
        """What the stream uses of a sample: its picture, its aligned face, or its sound."""
        if self.input == "mel":
            return NEEDS_AUDIO
        return NEEDS_CROP if self.region == "face" else NEEDS_IMAGE

    @property
    def library(self) -> str:
        """The library of the model: `torchvision`, `timm` or `open_clip`."""
        library, slash, _ = self.model.partition("/")
        return library if slash else "torchvision"

    @property
    def model_name(self) -> str:
        """The name of the model in its library."""
        return self.model.partition("/")[2] if "/" in self.model else self.model

    @classmethod
    def _default_name(cls, data: Mapping[str, Any]) -> str:
        name = str(data.get("model", "backbone")).partition("/")[2] or str(data.get("model", "backbone"))
        name = f"{name}-{data['layer']}" if data.get("layer") else name
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
        if data.get("input") == "mel":
            return f"{name}-mel"
        return f"{name}-face" if data.get("region") == "face" else name

    @model_validator(mode="before")
    @classmethod
    def _fill_mel(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("input") == "mel" and data.get("mel") is None:
            return {**data, "mel": {}}  # written out, so that the digest holds the settings
        return data

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.library not in _LIBRARIES:
            hint = did_you_mean(self.library, _LIBRARIES) or f", expected {', '.join(_LIBRARIES)}"
            raise ValueError(f"model: {self.library!r} is no library of models{hint}")
        if self.layer is not None and self.library == "open_clip":
            raise ValueError("layer: layers are for models of torchvision and timm, not for those of open_clip")
        if self.input == "image" and (self.mel is not None or self.windows > 1):
            raise ValueError("mel and windows are settings of input: mel")
        if self.input == "mel" and self.region == "face":
            raise ValueError("region: face is for pictures, got input: mel")
        if self.windows > 1 and self.output != "pooled":
            raise ValueError(f"windows give a sequence of pooled vectors: output must be pooled, got {self.output}")
        if self.windows > 1 and self.spectrogram.samples // self.windows < self.spectrogram.window:
            raise ValueError(
                f"windows: each of {self.windows} parts of {self.spectrogram.seconds:g} s is under window_s"
            )
        return self

    @property
    def spectrogram(self) -> MelSettings:
        """The settings of the spectrogram of `input: mel`."""
        return self.mel or MelSettings()

    def make(self, device: str) -> BackboneStream:
        """Return the extractor with its network loaded, see `make_backbone`."""
        return make_backbone(self, device)

    def weights_wanted(self) -> WeightsSpec:
        """Return the spec's weights, or the registry's default weights of the model."""
        from emofuse.weights import default_weights

        return self.weights or default_weights(self.model)

    def identity_values(self) -> dict[str, Any]:
        """Return the preprocessing of a model of timm or open_clip."""
        values: dict[str, Any] = {}
        if self.library == "timm":
            from emofuse.streams.networks.timm_networks import timm_preprocessing

            values["preprocessing"] = timm_preprocessing(self.model_name)
        elif self.library == "open_clip":
            from emofuse.streams.networks.open_clip_networks import open_clip_preprocessing

            values["preprocessing"] = open_clip_preprocessing(self.model_name)
        return values


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
    """One frozen network without its classifier -> one row a picture.

    Holds no per-sample state: one instance serves every block of a worker.

    Attributes:
        shape: (D,) for pooled vectors, (C, h, w) for maps, (N, D) for tokens, (windows, D) for windows of a sound.
        dimensions: the names of the axes of `shape`.
        needs: {"image"}, {"image", "crop"} for a network that sees faces, {"audio"} for one that sees spectrograms.
    """

    dtype = np.dtype(np.float32)
    flag_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __init__(
        self,
        shared: SharedBackbone,
        output: Output = "pooled",
        *,
        region: Literal["image", "face"] = "image",
        spectrogram: SpectrogramPictures | None = None,
    ) -> None:
        self._seen: Hashable = region if spectrogram is None else spectrogram.settings
        self._windows = 1 if spectrogram is None else spectrogram.windows
        shape = shared.ask(output, self._seen)
        self.shape = shape if self._windows == 1 else (self._windows, *shape)
        self.dimensions = _DIMENSIONS[output] if self._windows == 1 else (TIME, *_DIMENSIONS[output])
        self._sees_faces = region == "face"
        self.needs = NEEDS_CROP if self._sees_faces else NEEDS_IMAGE if spectrogram is None else NEEDS_AUDIO
        self._shared, self._output = shared, output
        self._spectrogram = spectrogram

    def extract(self, samples: Sequence[Sample]) -> Rows:
        """Return the features of n samples.

        Returns:
            features (n, *shape) float32. Every picture is OK. A sample without a face is NO_DETECTION for a network of
            faces, and one without a sound for a network of spectrograms.
        """
        if self._spectrogram is not None:
            return self._extract_sounds(samples, self._spectrogram)
        if self._sees_faces:
            return self._extract_faces(SampleBatch.of(samples))
        if not samples:
            return Rows.empty_of(self, 0, Status.OK)
        batch = SampleBatch.of(samples)
        return self._rows(self._shared.run_pictures(batch, self._seen)[self._output])

    @property
    def network(self) -> Any:
        """The network without its classifier. It is made now if a compiled form of it has served so far."""
        return self._shared.network

    @property
    def runtime(self) -> str:
        """What computes the network: `torch`, or `openvino` with its version."""
        return self._shared.runtime

    @property
    def preset(self) -> PicturePreset:
        """The resize, crop and normalisation of the network."""
        return self._shared.preset

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the output (B, *shape) float32 of pictures (B, 3, H, W) uint8 that are cut to the network's size."""
        return self._shared.forward(pictures, {self._output})[self._output]

    def close(self) -> None:
        """Do nothing: the garbage collector releases the network."""

    def _rows(self, features: npt.NDArray[np.float32]) -> Rows:
        """Return rows that are all OK, as all steps of their sequences are."""
        mask = np.full(features.shape[:2], Step.OK, dtype=np.uint8) if is_sequence(self.dimensions) else None
        return Rows.ok(features, mask)

    def _extract_faces(self, batch: SampleBatch) -> Rows:
        """Run the network on the aligned faces."""
        rows = Rows.empty_of(self, len(batch), Status.NO_DETECTION)
        places = [index for index, sample in enumerate(batch) if sample.crop is not None]
        if places:
            rows.put(places, self._rows(self._shared.run_faces(batch, self._seen)[self._output]))
        return rows

    def _extract_sounds(self, samples: Sequence[Sample], spectrogram: SpectrogramPictures) -> Rows:
        """Run the network on the pictures of the spectrograms; each window of a sequence is one picture."""
        import torch

        from emofuse.streams.networks.presets import send

        batch, device = SampleBatch.of(samples), self._shared.device
        rows = Rows.empty_of(self, len(samples), Status.NO_DETECTION)
        pictures = spectrogram.pictures(batch)
        places = [(index, step) for index, parts in enumerate(pictures) for step in range(len(parts))]
        if not places:
            return rows
        features = self._shared.run(
            batch,
            self._seen,
            lambda: send([torch.from_numpy(pictures[index][step]) for index, step in places], device),
        )[self._output]
        sounding = sorted({index for index, _ in places})
        rows.status[sounding] = Status.OK
        if self._windows == 1:
            rows.features[sounding] = features
            if rows.mask is not None:
                rows.mask[sounding] = Step.OK
            return rows
        for (index, step), values in zip(places, features, strict=True):
            rows.features[index, step] = values
            if rows.mask is not None:
                rows.mask[index, step] = Step.OK
        return rows


def make_backbone(spec: BackboneSpec, device: str) -> BackboneStream:
    """Make the stream of a model by name.

    Raises:
        SpecError: the library has no such model.
        StreamError: the library is not installed, the model has no such output or layer or cannot be cut before its
            classifier, or the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    from emofuse.weights import REGISTRY, resolve_weights

    if all(entry.model != spec.model for entry in REGISTRY.values()):
        check_model, _ = _library_functions(spec.library)
        check_model(spec.model_name)  # a wrong name is said before weights are looked for
    weights = resolve_weights(spec.weights_wanted())

    def make() -> PictureNetwork:
        _, make_network = _library_functions(spec.library)
        return make_network(spec.model_name, weights)

    shared = _shared_backbone(spec.model, weights, device, spec.precision, make, layer=spec.layer)
    sounds = None
    if spec.input == "mel":
        from emofuse.streams.networks.spectrogram_pictures import SpectrogramPictures

        sounds = SpectrogramPictures(spec.spectrogram, spec.windows, shared.size)
    return BackboneStream(shared, spec.output, region=spec.region, spectrogram=sounds)


def _shared_backbone(
    model: str,
    weights: ResolvedWeights,
    device: str,
    precision: Precision,
    make: Callable[[], PictureNetwork],
    *,
    layer: str | None = None,
) -> SharedBackbone:
    """Return the network of these weights, which streams share; the name of the weights may decide its preset.

    Streams of an inner layer share a network of their own, because it stops at that layer.
    """
    from emofuse.streams.networks.shared_backbones import SharedBackbone

    def make_cut() -> PictureNetwork:
        network = make()
        if layer is None:
            return network
        from emofuse.streams.networks.layers import at_layer

        return at_layer(network, model, layer)

    def make_shared() -> SharedBackbone:
        name = model if layer is None else f"{model} up to {layer}"
        identity = network_identity(model, layer, weights)
        return SharedBackbone(make_cut, device, precision, name, identity=identity)

    key = ("backbone", model, layer, weights.kind, weights.name, weights.sha256, weights.seed, device, precision)
    return shared_network(key, make_shared)


def network_identity(model: str, layer: str | None, weights: ResolvedWeights) -> dict[str, Any]:
    """Return what decides the values that a network computes, as JSON holds it."""
    named = None if weights.kind == "file" else weights.name  # the hash of a file says what it is
    return {"model": model, "layer": layer, "name": named, "sha256": weights.sha256, "seed": weights.seed}


def _library_functions(library: str) -> tuple[Callable[[str], object], Callable[..., PictureNetwork]]:
    """Return the functions of a library that check the name of a model, and that make it."""
    if library == "timm":
        from emofuse.streams.networks.timm_networks import make_timm_network, timm_preprocessing

        return timm_preprocessing, make_timm_network
    if library == "open_clip":
        from emofuse.streams.networks.open_clip_networks import make_open_clip_network, open_clip_preprocessing

        return open_clip_preprocessing, make_open_clip_network
    from emofuse.streams.networks.classification import check_model
    from emofuse.streams.networks.outputs import make_torchvision_network

    return check_model, make_torchvision_network


def make_places365(spec: Places365Spec, device: str) -> BackboneStream:
    """Make the stream of the Places365 ResNet-50 (365 classes): 2048 values before its classifier.

    Raises:
        StreamError: the device cannot be used.
        WeightsError: the weights are missing, damaged, or another model's.
    """
    from emofuse.weights import resolve_weights

    weights = resolve_weights(spec.weights)

    def make() -> PictureNetwork:
        from emofuse.streams.networks.outputs import make_torchvision_network

        return make_torchvision_network("resnet50", weights, classes=_PLACES365_CLASSES)

    shared = _shared_backbone("places365", weights, device, spec.precision, make)
    return BackboneStream(shared)
