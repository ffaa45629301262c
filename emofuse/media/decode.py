"""From a file or bytes to RGB: one picture in, one upright array or one reason out.

Pillow decodes, because it refuses a file that was cut off where OpenCV pads it with grey in silence. On top of it:

- The pixel count is read from the header and checked before anything is decoded.
- A PNG that Pillow refuses for long texts or a long colour profile is read without them.
- The EXIF (or XMP) orientation is applied. A picture whose metadata cannot be parsed is taken as upright.
- Of an animation the first frame is used.
- Transparent parts are laid over white, the page that such pictures are mostly drawn for.
- 16-bit channels keep their high byte: scaled, not clipped. 32-bit grey: see `_grey_from_range`.
- CMYK, YCbCr and palettes are converted by Pillow, CIE Lab through its colour profile. Embedded colour profiles are
  not applied: the backbones were trained on pictures decoded in the same way.
- Only the formats of `FORMATS` are tried. Pillow knows more; some of those start another program (EPS) or carry no
  picture at all.

Importing this module mutes Pillow's warnings (damaged metadata, large pictures): what they warn of is judged here.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from emofuse.datasets.files import is_lfs_pointer
from emofuse.datasets.names import SUFFIXES
from emofuse.datasets.png import without_long_metadata
from emofuse.errors import DecodeError
from emofuse.specs import DecodeSpec
from emofuse.stores import is_remote

VERSION = 1
"""Raised whenever the same bytes of a file give another array; part of every stream's digest."""

FORMATS = tuple(SUFFIXES)

warnings.filterwarnings("ignore", module=r"PIL\.")

# Uncompressed RGBA of 32-bit floats takes 16 bytes a pixel: a longer file is no picture of at most `max_pixels`.
_BYTES_PER_PIXEL = 16
_HEADER_BYTES = 1 << 24

# EXIF orientation -> (transpose, reverse rows, reverse columns), in this order.
_TO_UPRIGHT = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


OnRead = Callable[[os.stat_result, bytes], None]
"""Called with the status of a file, taken before it was read, and with its bytes."""


def read_image(path: Path, spec: DecodeSpec, on_read: OnRead | None = None) -> npt.NDArray[np.uint8]:
    """Read and decode one file.

    Args:
        path: the file.
        spec: the limits of what is decoded.
        on_read: receives the bytes before they are decoded, so that nobody has to read the file again to hash them.

    Returns:
        (H, W, 3) uint8 RGB, upright, contiguous.

    Raises:
        DecodeError: the file is missing, unreadable, or no whole picture. The message is one line without the path.
    """
    try:
        status = path.stat()
        if not is_remote(path) and not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise DecodeError("not a file (a named pipe, socket or device)")  # which would be waited for
        size = status.st_size
        if size > longest_file(spec):
            raise DecodeError(f"{size:,} bytes, more than any picture of max_pixels = {spec.max_pixels:,} has")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DecodeError("no such file") from None
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror or error}") from error
    if on_read is not None:
        on_read(status, data)
    return decode_image(data, spec)


def longest_file(spec: DecodeSpec) -> int:
    """Bytes that the file of a picture of at most `spec.max_pixels` can have; a longer one is not read."""
    return _BYTES_PER_PIXEL * spec.max_pixels + _HEADER_BYTES


def decode_image(data: bytes, spec: DecodeSpec) -> npt.NDArray[np.uint8]:
    """Decodes the bytes of one file.

    Returns:
        (H, W, 3) uint8 RGB, upright, contiguous.

    Raises:
        DecodeError: no whole picture of at most `spec.max_pixels`. The message is one line.
    """
    _check_is_no_text(data)
    try:
        return _decode_despite_metadata(data, spec)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise DecodeError(f"no picture of a known format ({known}), or its header is damaged") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DecodeError(f"more than {limit:,} pixels, the limit of Pillow itself") from None
    except MemoryError:
        # Mostly a damaged header that asks for an absurd buffer, so it is about this file and not about the machine.
        raise DecodeError("cannot be decoded: needs more memory than there is") from None
    except Exception as error:  # Pillow's parsers raise anything on damaged files (SyntaxError, struct.error, ...)
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DecodeError(f"cannot be decoded: {text}") from error


def _check_is_no_text(data: bytes) -> None:
    """Names the files that often lie where a picture should be."""
    if not data:
        raise DecodeError("empty file")
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if is_lfs_pointer(start):
        raise DecodeError("git-lfs pointer text instead of the picture: run `git lfs pull` in the dataset")
    if start.startswith((b"<!doctype html", b"<html")):
        raise DecodeError("an HTML page instead of a picture (a failed download?)")


def _decode_despite_metadata(data: bytes, spec: DecodeSpec) -> npt.NDArray[np.uint8]:
    """Tries a PNG again without its texts and profile: Pillow refuses long ones, which nobody asked for."""
    try:
        return _decode(data, spec)
    except (ValueError, SyntaxError, OSError) as error:
        shorter = None if isinstance(error, DecodeError) else without_long_metadata(data)
        if shorter is None:
            raise
        return _decode(shorter, spec)


def _decode(data: bytes, spec: DecodeSpec) -> npt.NDArray[np.uint8]:
    Image.init()
    file = io.BytesIO(data)
    with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        width, height = image.size
        if width * height > spec.max_pixels:
            count = f"{width} x {height} = {width * height:,} pixels"
            raise DecodeError(f"{count}, more than max_pixels = {spec.max_pixels:,}")
        header_end = file.tell()
        image.load()
        _check_is_whole(data, image.format, header_end)
        return _upright(np.array(_to_rgb(image)), _orientation(image))


def _check_is_whole(data: bytes, format_name: str | None, header_end: int) -> None:
    """Finds the format's end mark behind the header.

    Pillow notices a file that ends too early, but not one whose rest is zeros, as a broken download leaves behind when
    its space was reserved first. JPEG's end mark cannot occur within its compressed data; a thumbnail's lies before.
    """
    marks = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}
    mark = marks.get(format_name or "")
    if mark is not None and data.find(mark, header_end) < 0:
        raise DecodeError(f"cut off: the end mark of {format_name} is missing")


def _orientation(image: Image.Image) -> int:
    """EXIF or XMP orientation, 1 (upright) where there is none or the metadata cannot be parsed.

    Read after the picture was loaded: a TIFF is turned by Pillow as it loads, and then no longer says otherwise.
    """
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - damaged metadata raises anything, and viewers show such a picture as it lies
        return 1
    return found if isinstance(found, int) else 1


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Applies an EXIF orientation to (H, W, 3); unknown values are left alone."""
    transpose, reverse_rows, reverse_columns = _TO_UPRIGHT.get(orientation, (False, False, False))
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if reverse_rows:
        pixels = pixels[::-1]
    if reverse_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode in mode RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        return Image.fromarray(_grey_from_range(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        if converted is None:
            raise DecodeError("cannot be decoded: its CIE Lab colours cannot be converted")
        return converted
    if image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        return over_white.convert("RGB")
    return image.convert("RGB")


def _grey_from_range(values: npt.NDArray[np.int32 | np.float32]) -> npt.NDArray[np.uint8]:
    """Grey of 32-bit integers or floats, whose white no header states, so the values themselves decide.

    Within 0..255 they are taken as they are, within 0..65535 as 16 bits, floats within 0..1 as a fraction; any other
    range is stretched from its smallest to its largest value. NaN and infinity are black.
    """
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(known.min()), float(known.max())
    if low < 0 or high > 65535:
        known = (known - low) / (high - low) * 255 if high > low else np.zeros_like(known)
    elif high > 255:
        known = np.floor(known / 256)
    elif high <= 1 and values.dtype.kind == "f":
        known = known * 255
    return np.rint(known).astype(np.uint8)
