"""The preset of a torchvision network in two parts: resize and crop of one picture, normalisation of a batch.

The first part turns a picture of any size into a small uint8 square, on the CPU. The second part turns a whole batch of
squares into float32, on the network's device. A GPU therefore receives a quarter of the bytes, once for all networks
that share the square. Together the parts equal torchvision's own preset, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from emofuse.streams.base import SampleBatch
from emofuse.streams.networks.torchvision_parts import functional

_LONGEST = 50  # largest ratio of the sides that is resized whole (see _middle)


class PicturePreset(Protocol):
    """The way from samples to the normalised pictures of a network, in two parts."""

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the pictures that the network sees."""
        ...

    def cut_all(self, batch: SampleBatch, device: torch.device) -> torch.Tensor:
        """Return the pictures (n, 3, h, w) uint8 of n >= 1 samples on the device."""
        ...

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalise (n, 3, h, w) uint8 to float32, on the device of the input."""
        ...


@dataclass(frozen=True)
class Preset:
    """Resize, centre crop and normalisation of a classification network.

    Attributes:
        transform: the `ImageClassification` that torchvision publishes for the weights.
    """

    transform: Any

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the square."""
        height, width = (*self.transform.crop_size, *self.transform.crop_size)[:2]
        return height, width

    @property
    def square(self) -> Hashable:
        """The parameters of the uint8 square: presets with equal parameters share the squares of a batch."""
        preset = self.transform
        return (*preset.resize_size, *preset.crop_size, preset.interpolation, preset.antialias)

    def cut(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Resize an (H, W, 3) uint8 RGB picture and cut it to its middle, (3, h, w) uint8."""
        preset = self.transform
        resized = functional.resize(
            _middle(image), preset.resize_size, interpolation=preset.interpolation, antialias=preset.antialias
        )
        cut: torch.Tensor = functional.pil_to_tensor(functional.center_crop(resized, preset.crop_size))
        return cut

    def cut_all(self, batch: SampleBatch, device: torch.device) -> torch.Tensor:
        """Return the squares (n, 3, h, w) uint8 of n >= 1 pictures on the device, computed once for all networks."""
        return batch.once((self.square, device), lambda: send([self.cut(sample.image) for sample in batch], device))

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalise (n, 3, h, w) uint8 to float32, on the device of the input."""
        return normalise(pictures, self.transform.mean, self.transform.std)


@dataclass(frozen=True)
class StepsPreset:
    """The preprocessing of a network of another library: its own steps of PIL pictures, then mean and deviation.

    Attributes:
        steps: the library's transforms of a PIL picture, up to the tensor.
        size: the height and width of the pictures that they return.
        mean: the mean of each channel, of values from 0 to 1.
        std: the standard deviation of each channel.
        cuts_middle: whether the steps show the middle square alone, so that a very long picture may be cut first.
    """

    steps: tuple[Callable[[Image.Image], Image.Image], ...]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cuts_middle: bool = True

    def cut(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Pass an (H, W, 3) uint8 RGB picture through the steps, (3, h, w) uint8."""
        picture = _middle(image) if self.cuts_middle else Image.fromarray(np.ascontiguousarray(image))
        for step in self.steps:
            picture = step(picture)
        cut: torch.Tensor = functional.pil_to_tensor(picture)
        return cut

    def cut_all(self, batch: SampleBatch, device: torch.device) -> torch.Tensor:
        """Return the pictures (n, 3, h, w) uint8 of n >= 1 samples, computed once for networks with the same steps."""
        key = ("steps", repr(self.steps), self.cuts_middle, device)
        return batch.once(key, lambda: send([self.cut(sample.image) for sample in batch], device))

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalise (n, 3, h, w) uint8 to float32, on the device of the input."""
        return normalise(pictures, self.mean, self.std)


def squares_of_faces(batch: SampleBatch, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return the aligned faces of a batch, resized to the size of a network, bilinear with antialiasing.

    Args:
        batch: the samples, at least one with a crop. Networks of the same size share the result.
        size: the height and width that the network sees.
        device: the device of the network.

    Returns:
        (m, 3, h, w) uint8 of the m samples with a crop, in their order.
    """

    def cut() -> torch.Tensor:
        crops = [sample.crop for sample in batch if sample.crop is not None]
        return send([functional.pil_to_tensor(_resized(crop, size)) for crop in crops], device)

    return batch.once(("faces", size, device), cut)


def _resized(crop: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    height, width = size
    picture = Image.fromarray(crop)
    return picture if crop.shape[:2] == size else picture.resize((width, height), Image.Resampling.BILINEAR)


def normalise(pictures: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    """Normalise (n, 3, h, w) uint8 to float32 by the mean and deviation of each channel of values from 0 to 1."""
    scaled = functional.convert_image_dtype(pictures, torch.float32)
    normalised: torch.Tensor = functional.normalize(scaled, mean, std)
    return normalised


def picture_steps(transform: Any) -> tuple[Callable[[Image.Image], Image.Image], ...]:
    """Return the steps of a library's transform that come before the conversion to a tensor."""
    steps: list[Callable[[Image.Image], Image.Image]] = []
    for step in transform.transforms:
        if "ToTensor" in type(step).__name__ or "ToNumpy" in type(step).__name__:
            return tuple(steps)
        if type(step).__name__ != "MaybeConvertMode":  # every picture is RGB here
            steps.append(step)
    raise ValueError(f"the transform has no step that makes a tensor: {transform}")


def send(pictures: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stack tensors of one shape on a device. A copy to a GPU starts from page-locked memory and is not waited for."""
    if device.type == "cpu":
        return torch.stack(pictures)
    return torch.stack(pictures).pin_memory().to(device, non_blocking=True)


def _middle(image: npt.NDArray[np.uint8]) -> Image.Image:
    """Return the picture for the preset, cut to its middle if it is more than 50 times as long as wide.

    The centre crop shows no more than that. Resizing the whole picture would take gigabytes: 30000 x 1 pixels become
    7.7 million x 256. The result can be shifted by a fraction of a pixel against that of the whole picture.
    """
    height, width = image.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return Image.fromarray(np.ascontiguousarray(image[top : height - top, left : width - left]))
