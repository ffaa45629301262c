"""The preset of a torchvision network in two parts: resize and crop of one picture, normalisation of a batch.

The first part turns a picture of any size into a small uint8 square, on the CPU. The second part turns a whole batch of
squares into float32, on the network's device. A GPU therefore receives a quarter of the bytes, once for all networks
that share the square. Together the parts equal torchvision's own preset, bit for bit.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import functional

from emofuse.streams.base import SampleBatch

_LONGEST = 50  # largest ratio of the sides that is resized whole (see _middle)


@dataclass(frozen=True)
class Preset:
    """Resize, centre crop and normalisation of a classification network.

    Attributes:
        transform: the `ImageClassification` that torchvision publishes for the weights.
    """

    transform: Any

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
        scaled = functional.convert_image_dtype(pictures, torch.float32)
        normalised: torch.Tensor = functional.normalize(scaled, self.transform.mean, self.transform.std)
        return normalised


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
