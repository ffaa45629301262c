"""Backbones and head in one graph: from the small uint8 picture that the networks see to the outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from emofuse.errors import ResultsError
from emofuse.onnx_export.graph import ModelGraph
from emofuse.specs import CacheSpec, StreamSpec
from emofuse.streams.backbones import BackboneSpec, BackboneStream, Places365Spec
from emofuse.streams.base import Sample, SampleBatch
from emofuse.streams.networks.presets import squares_of_faces
from emofuse.training.trained import TrainedHead

PIXELS = "pixels"
_WRONG = "--with-backbone: {}. Export the head alone, and extract its streams with emofuse"
_CPU = torch.device("cpu")


class PictureGraph(nn.Module):
    """Networks and head as one module: pixels (B, H, W, 3) uint8 RGB -> outputs (B, C).

    The picture is already cut as the networks' preset cuts it (see `cut`). Its normalisation is part of the graph. Its
    resizing is not, because every library of pictures resizes otherwise.

    Attributes:
        region: `image` for whole pictures, `face` for aligned faces.

    Args:
        trained: the model.
        spec: the cache spec of its streams.

    Raises:
        ResultsError: a stream is no backbone of pictures, or the backbones see different pictures.
        WeightsError: the weights of a backbone are missing.
    """

    def __init__(self, trained: TrainedHead, spec: CacheSpec) -> None:
        super().__init__()
        self.head = ModelGraph(trained)
        named = {each.name: each for each in spec.streams}
        specs = [named[each.name] for each in self.head.inputs]
        problems = [problem for each in specs if (problem := _problem(each, spec))]
        if problems:
            raise ResultsError(_WRONG.format("; ".join(problems)))
        self._streams: list[BackboneStream] = [each.make("cpu") for each in specs]
        self.networks = nn.ModuleList(stream.network for stream in self._streams)
        self._stored = [torch.float16 if each.dtype == "float16" else torch.float32 for each in specs]
        self.region = _region(specs[0])
        seen = {(_region(each), str(self._cut_of(stream))) for each, stream in zip(specs, self._streams, strict=True)}
        if len(seen) > 1:
            sizes = ", ".join(
                f"{each.name} {'x'.join(map(str, stream.preset.size))} of the {_region(each)}"
                for each, stream in zip(specs, self._streams, strict=True)
            )
            raise ResultsError(_WRONG.format(f"the backbones see different pictures ({sizes})"))

    @staticmethod
    def _cut_of(stream: BackboneStream) -> object:
        """Return the settings that determine the picture of a network."""
        return getattr(stream.preset, "square", getattr(stream.preset, "steps", stream.preset.size))

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the picture."""
        return self._streams[0].preset.size

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the outputs (B, C) of pixels (B, H, W, 3) uint8."""
        pictures = pixels.permute(0, 3, 1, 2)
        present = pixels[:, 0, 0, 0] >= 0  # every picture is there
        arrays = []
        for stream, stored, each in zip(self._streams, self._stored, self.head.inputs, strict=True):
            # A cache rounds features to its type, and heads have learned from these.
            features = stream.forward(pictures).to(stored).to(torch.float32)
            arrays += [features, present]
            if each.is_sequence:
                arrays.append(present.unsqueeze(1).expand(-1, features.shape[1]))
        outputs: Tensor = self.head(*arrays)
        return outputs

    def cut(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """Return the pictures (n, H, W, 3) uint8 that the networks see.

        Args:
            images: pictures (h, w, 3) uint8 RGB of any size; for `region: face` the aligned faces.
        """
        if self.region == "face":
            cut = squares_of_faces(SampleBatch.of([Sample(crop=image) for image in images]), self.size, _CPU)
        else:
            cut = self._streams[0].preset.cut_all(SampleBatch.of([Sample(image=image) for image in images]), _CPU)
        pictures: npt.NDArray[np.uint8] = np.ascontiguousarray(cut.permute(0, 2, 3, 1).numpy())
        return pictures


def _problem(stream: StreamSpec, spec: CacheSpec) -> str | None:
    """Return why a stream cannot be part of one graph from a picture; None if it can."""
    if not isinstance(stream, BackboneSpec | Places365Spec):
        return f"stream {stream.name!r} ({stream.kind}) is no backbone"
    if spec.clip is not None:
        return f"stream {stream.name!r} sees the frames of clips"
    if isinstance(stream, BackboneSpec) and stream.input == "mel":
        return f"stream {stream.name!r} sees the spectrogram of a sound"
    if stream.precision != "float32":
        return f"stream {stream.name!r} runs in {stream.precision}"
    return None


def _region(stream: StreamSpec) -> str:
    return str(getattr(stream, "region", "image"))
