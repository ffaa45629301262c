"""The preset of a torchvision network in two parts: resize and crop of one picture, normalisation of a batch.

The first part turns a picture of any size into a small uint8 square, on the CPU. The second part turns a whole batch of
squares into float32, on the network's device. A GPU therefore receives a quarter of the bytes, once for all networks
that share the square. Together the parts equal torchvision's own preset, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from emofuse.streams.base import SampleBatch
from emofuse.streams.networks.squares import Square, faces_of, middle
from emofuse.streams.networks.torchvision_parts import functional


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
    def square(self) -> Square:
        """The resize and crop."""
        return Square.of_preset(self.transform)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the square."""
        return self.square.size

    def cut(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Resize an (H, W, 3) uint8 RGB picture and cut it to its middle, (3, h, w) uint8."""
        return torch.from_numpy(self.square.cut(image).copy())

    def cut_all(self, batch: SampleBatch, device: torch.device) -> torch.Tensor:
        """Return the squares (n, 3, h, w) uint8 of n >= 1 pictures on the device, computed once for all networks."""
        square = self.square
        return batch.once((square.key, device), lambda: on_device(square.cut_all(batch), device))

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
        picture = middle(image) if self.cuts_middle else Image.fromarray(np.ascontiguousarray(image))
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
    return batch.once(("faces", size, device), lambda: on_device(faces_of(batch, size), device))


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


def on_device(pictures: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Return an array of pictures on a device. A copy to a GPU starts from page-locked memory and is not waited for."""
    tensor = torch.from_numpy(pictures)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
