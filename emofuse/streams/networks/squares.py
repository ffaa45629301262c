"""The squares that networks of classification see, cut from pictures by Pillow and NumPy alone.

They equal those of torchvision's presets bit for bit (a test holds them), and an extraction process whose networks are
kept as compiled ones does not import PyTorch for them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from emofuse.streams.base import SampleBatch

_LONGEST = 50  # largest ratio of the sides that is resized whole (see `middle`)


@dataclass(frozen=True)
class Square:
    """The resize and centre crop of one preset.

    Attributes:
        resize_size: the length of the shorter side, or height and width.
        crop_size: the height and width of what is cut, or one number for both.
        interpolation: the name of the interpolation, `bilinear` or `bicubic`.
        antialias: whether it smooths; Pillow always does.
    """

    resize_size: tuple[int, ...]
    crop_size: tuple[int, ...]
    interpolation: str
    antialias: bool | None

    @classmethod
    def of_preset(cls, preset: Any) -> Self:
        """Return the square of a preset of torchvision."""
        resize, crop = tuple(preset.resize_size), tuple(preset.crop_size)
        return cls(resize, crop, preset.interpolation.value, preset.antialias)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return the square that `facts` described."""
        return cls(**{**facts, "resize_size": tuple(facts["resize_size"]), "crop_size": tuple(facts["crop_size"])})

    def facts(self) -> dict[str, Any]:
        """Return a description that JSON can hold."""
        return asdict(self)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the square."""
        height, width = (*self.crop_size, *self.crop_size)[:2]
        return height, width

    @property
    def key(self) -> Hashable:
        """What decides the square: presets with equal keys share the squares of a batch."""
        return ("square", self)

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize an (H, W, 3) uint8 RGB picture and cut it to its middle, (3, h, w) uint8."""
        picture = self._resized(middle(image))
        height, width = self.size
        wide, high = max(width - picture.width, 0), max(height - picture.height, 0)
        if wide or high:
            whole = Image.new("RGB", (picture.width + wide, picture.height + high))
            whole.paste(picture, (wide // 2, high // 2))
            picture = whole
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        return np.asarray(picture.crop((left, top, left + width, top + height))).transpose(2, 0, 1)

    def cut_all(self, batch: SampleBatch) -> npt.NDArray[np.uint8]:
        """Return the squares (n, 3, h, w) uint8 of n >= 1 pictures, computed once for all networks."""
        return batch.once(self.key, lambda: np.stack([self.cut(sample.image) for sample in batch]))

    def _resized(self, picture: Image.Image) -> Image.Image:
        if len(self.resize_size) == 2:
            height, width = self.resize_size
        else:
            short, long = sorted(picture.size)
            new_short, new_long = self.resize_size[0], int(self.resize_size[0] * long / short)
            tall = picture.height >= picture.width
            height, width = (new_long, new_short) if tall else (new_short, new_long)
        if (width, height) == picture.size:
            return picture
        return picture.resize((width, height), Image.Resampling[self.interpolation.upper()])


def faces_of(batch: SampleBatch, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the aligned faces of a batch, resized to the size of a network, bilinear with antialiasing.

    Args:
        batch: the samples, at least one with a crop. Networks of the same size share the result.
        size: the height and width that the network sees.

    Returns:
        (m, 3, h, w) uint8 of the m samples with a crop, in their order.
    """

    def cut() -> npt.NDArray[np.uint8]:
        crops = [sample.crop for sample in batch if sample.crop is not None]
        return np.stack([np.asarray(_resized_face(crop, size)).transpose(2, 0, 1) for crop in crops])

    return batch.once(("faces", size), cut)


def middle(image: npt.NDArray[np.uint8]) -> Image.Image:
    """Return the picture for the preset, cut to its middle if it is more than 50 times as long as wide.

    The centre crop shows no more than that. Resizing the whole picture would take gigabytes: 30000 x 1 pixels become
    7.7 million x 256. The result can be shifted by a fraction of a pixel against that of the whole picture.
    """
    height, width = image.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return Image.fromarray(np.ascontiguousarray(image[top : height - top, left : width - left]))


def _resized_face(crop: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    height, width = size
    picture = Image.fromarray(crop)
    return picture if crop.shape[:2] == size else picture.resize((width, height), Image.Resampling.BILINEAR)
