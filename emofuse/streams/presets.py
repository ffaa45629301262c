"""What a network of torchvision looks at: its preset, in the part that a picture needs and the part that a batch needs.

The first part makes a small uint8 square of a picture of any size and runs on the CPU; the second makes float32 of a
whole batch of squares where the network runs. So a quarter of the bytes goes to a GPU, once for all networks that look
at the same square. Together they are torchvision's own preset, bit for bit.
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

from emofuse.streams.base import Batch

_LONGEST = 50  # times as long as wide (see _middle)


@dataclass(frozen=True)
class Preset:
    """Resize, centre crop and normalisation of a classification network.

    Attributes:
        transform: torchvision's `ImageClassification`, as its weights publish it.
    """

    transform: Any

    @property
    def square(self) -> Hashable:
        """What decides the uint8 square of a picture: presets that agree in it share it."""
        own = self.transform
        return (*own.resize_size, *own.crop_size, own.interpolation, own.antialias)

    def cut(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w) uint8: the picture resized and cut to its middle."""
        own = self.transform
        resized = functional.resize(
            _middle(image), own.resize_size, interpolation=own.interpolation, antialias=own.antialias
        )
        cut: torch.Tensor = functional.pil_to_tensor(functional.center_crop(resized, own.crop_size))
        return cut

    def cut_all(self, batch: Batch, device: torch.device) -> torch.Tensor:
        """(n, 3, h, w) uint8 on the device, n >= 1, made and sent there once for all networks that look at it."""
        return batch.once((self.square, device), lambda: send([self.cut(sample.image) for sample in batch], device))

    def normalise(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) uint8 -> float32, where it lies."""
        scaled = functional.convert_image_dtype(pictures, torch.float32)
        normalised: torch.Tensor = functional.normalize(scaled, self.transform.mean, self.transform.std)
        return normalised


def send(pictures: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stacks tensors of one shape on a device. To a GPU from page-locked memory, without waiting for the copy."""
    if device.type == "cpu":
        return torch.stack(pictures)
    return torch.stack(pictures).pin_memory().to(device, non_blocking=True)


def _middle(image: npt.NDArray[np.uint8]) -> Image.Image:
    """The picture for the preset, cut to the middle if it is more than 50 times as long as wide.

    The centre crop sees no more of it, and resizing the whole would take gigabytes: 30000 x 1 pixels become 7.7 million
    x 256. The resized middle can differ from the whole's by a fraction of a pixel.
    """
    height, width = image.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return Image.fromarray(np.ascontiguousarray(image[top : height - top, left : width - left]))
