"""Decoding of a file or bytes to RGB: the result is one upright array or one reason why there is none.

Pillow decodes, because it refuses a file that was cut off, which OpenCV pads with grey without a warning. In addition:

- The pixel count is read from the header and checked before anything is decoded.
- A PNG that Pillow refuses because of long texts or a long colour profile is read without them.
- The EXIF (or XMP) orientation is applied. An image whose metadata cannot be parsed counts as upright.
- The first frame of an animation is used.
- Transparent parts are laid over white, the background that most such images are drawn for.
- 16-bit channels keep their high byte: they are scaled, not clipped. `_grey_from_range` converts 32-bit grey.
- Pillow converts CMYK, YCbCr and palettes; CIE Lab is converted through its colour profile. Embedded colour profiles
  are not applied, because the backbones were trained on images decoded in the same way.
- With `pca_variance`, each channel is rebuilt from its principal components at last (see `emofuse.media.channel_pca`).
- Only the formats of `FORMATS` are tried. Pillow knows more; some of them start another program (EPS) or hold no image.

Importing this module mutes Pillow's warnings (damaged metadata, large images), because it checks these itself.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from emofuse.datasets.names import SUFFIXES
from emofuse.datasets.png import without_long_metadata
from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media.channel_pca import keep_variance
from emofuse.media.files import OnRead, check_is_no_text, read_file
from emofuse.specs import DecodeSpec

VERSION = 1
"""The version of decoding, part of every stream's digest. It rises when the same bytes give another array."""

FORMATS = tuple(SUFFIXES)

warnings.filterwarnings("ignore", module=r"PIL\.")

# Uncompressed RGBA of 32-bit floats takes 16 bytes a pixel: a longer file is no image of at most `max_pixels`.
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


def read_image(source: Path | Source, spec: DecodeSpec, on_read: OnRead | None = None) -> npt.NDArray[np.uint8]:
    """Read and decode one file, or one member of a tar archive.

    Args:
        source: the file, or the source of a picture.
        spec: the limits of what is decoded.
        on_read: receives the bytes before they are decoded, so that nobody has to read the file again to hash them.

    Returns:
        (H, W, 3) uint8 RGB, upright, contiguous.

    Raises:
        DecodeError: the file is missing, unreadable, or no whole image. The message is one line without the path.
    """
    source = source if isinstance(source, Source) else Source(source)

    def check_length(size: int) -> None:
        if size > longest_file(spec):
            raise DecodeError(f"{size:,} bytes, more than any picture of max_pixels = {spec.max_pixels:,} has")

    return decode_image(read_file(source, on_read, check_length), spec)


def longest_file(spec: DecodeSpec) -> int:
    """Return the largest number of bytes of a file with at most `spec.max_pixels`; a longer file is not read."""
    return _BYTES_PER_PIXEL * spec.max_pixels + _HEADER_BYTES


def decode_image(data: bytes, spec: DecodeSpec) -> npt.NDArray[np.uint8]:
    """Decode the bytes of one file.

    Returns:
        (H, W, 3) uint8 RGB, upright, contiguous.

    Raises:
        DecodeError: the bytes are no whole image of at most `spec.max_pixels`. The message is one line.
    """
    check_is_no_text(data, "picture")
    try:
        pixels = _decode_despite_metadata(data, spec)
        return pixels if spec.pca_variance is None else keep_variance(pixels, spec.pca_variance)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise DecodeError(f"no picture of a known format ({known}), or its header is damaged") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DecodeError(f"more than {limit:,} pixels, the limit of Pillow itself") from None
    except MemoryError:
        # The cause is mostly a damaged header that asks for a huge buffer: the file and not the machine.
        raise DecodeError("cannot be decoded: needs more memory than there is") from None
    except Exception as error:  # Pillow's parsers raise anything on damaged files (SyntaxError, struct.error, ...)
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DecodeError(f"cannot be decoded: {text}") from error


def _decode_despite_metadata(data: bytes, spec: DecodeSpec) -> npt.NDArray[np.uint8]:
    """Decode, and try a PNG again without its texts and colour profile, which Pillow refuses if they are long."""
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
    """Raise unless the end mark of the format follows the header.

    Pillow notices a file that ends too early, but not a file that ends in zeros, which a broken download leaves if its
    space was reserved first. JPEG's end mark cannot occur in its compressed data, and that of a thumbnail precedes it.
    """
    marks = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}
    mark = marks.get(format_name or "")
    if mark is not None and data.find(mark, header_end) < 0:
        raise DecodeError(f"cut off: the end mark of {format_name} is missing")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF or XMP orientation, 1 (upright) if there is none or the metadata cannot be parsed.

    Call it after the image was loaded: Pillow turns a TIFF when it loads it, and then removes its orientation.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - damaged metadata raises anything, and viewers show such an image as it is
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Apply an EXIF orientation to (H, W, 3); unknown values change nothing."""
    transpose, reverse_rows, reverse_columns = _TO_UPRIGHT.get(orientation, (False, False, False))
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if reverse_rows:
        pixels = pixels[::-1]
    if reverse_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image of any mode in mode RGB."""
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
    """Return 8-bit grey of 32-bit integers or floats. No header states their white, so their range decides.

    Values within 0..255 are kept, values within 0..65535 count as 16 bits, and floats within 0..1 as a fraction. Any
    other range is stretched from its smallest to its largest value. NaN and infinity become black.
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
