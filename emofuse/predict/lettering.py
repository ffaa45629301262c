"""Text on pictures: antialiased, in any script that the font of Matplotlib has. A piece of text is drawn once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_CACHED = 1024


def text_size(text: str, size_px: int) -> tuple[int, int]:
    """Return the width and height of a line of text, in pixels."""
    height, width = _glyphs(text, size_px).shape
    return width, height


def put_text(image: npt.NDArray[np.uint8], text: str, place: tuple[int, int], *, size_px: int, colour: Colour) -> None:
    """Draw a line of text at a left and top on a picture (H, W, 3) uint8. Parts beyond the border are left out."""
    left, top = place
    mask = _glyphs(text, size_px)
    height, width = image.shape[:2]
    top_cut, left_cut = max(0, -top), max(0, -left)
    mask = mask[top_cut : max(top_cut, height - top), left_cut : max(left_cut, width - left)]
    if not mask.size:
        return
    part = image[top + top_cut : top + top_cut + mask.shape[0], left + left_cut : left + left_cut + mask.shape[1]]
    share = mask[:, :, None].astype(np.uint16)
    part[:] = ((part * (255 - share) + np.array(colour, dtype=np.uint16) * share) // 255).astype(np.uint8)


@lru_cache(maxsize=_CACHED)
def _glyphs(text: str, size_px: int) -> npt.NDArray[np.uint8]:
    """Return how much of each pixel of a line of text is covered, (h, w) uint8."""
    font = _font(size_px)
    ascent, descent = font.getmetrics()
    width = max(1, round(font.getlength(text)) + 1)
    drawn = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(drawn).text((0, 0), text, fill=255, font=font)
    return np.asarray(drawn, dtype=np.uint8)


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
