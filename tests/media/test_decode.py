from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin
from skimage import data

from emofuse.errors import DecodeError
from emofuse.media.decode import decode_image, read_image
from emofuse.specs import DecodeSpec

SPEC = DecodeSpec()

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest puts its own filters over those of decode.py


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()).resize((61, 47))


def saved(image, format_name, **options):
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_come_back_as_they_were(photo, format_name):
    picture = photo.quantize(200).convert("RGB") if format_name == "GIF" else photo
    pixels = decode_image(saved(picture, format_name), SPEC)
    assert (pixels.shape, pixels.dtype) == ((47, 61, 3), np.uint8)
    assert np.array_equal(pixels, np.asarray(picture))
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_other_colour_modes_become_rgb(photo, mode):
    format_name = "TIFF" if mode in {"CMYK", "YCbCr"} else "PNG"
    pixels = decode_image(saved(photo.convert(mode), format_name), SPEC)
    assert (pixels.shape, pixels.dtype) == ((47, 61, 3), np.uint8)


def test_lab_is_converted_through_its_profile(shared_data):
    lab = read_image(shared_data / "robustness" / "hopper.Lab.tif", SPEC)
    rgb = read_image(shared_data / "robustness" / "hopper.tif", SPEC)
    assert np.abs(lab.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_over_white(mode):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    assert decode_image(saved(picture.convert(mode), "PNG"), SPEC).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_a_palette_entry_marked_transparent_becomes_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    assert decode_image(saved(picture, "PNG", transparency=1), SPEC).tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 255, 256, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16)
    expected = [0, 0, 1, 0x12, 0x80, 0xFF]
    for format_name in ("PNG", "TIFF"):
        assert decode_image(saved(Image.fromarray(values), format_name), SPEC)[0, :, 0].tolist() == expected


def test_16_bit_colour_is_scaled_like_its_8_bit_twin(shared_data):
    folder = shared_data / "robustness"
    deep = read_image(folder / "tiff_16bit_RGB.tiff", SPEC)
    assert np.array_equal(deep, read_image(folder / "tiff_16bit_RGB_target.png", SPEC))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.4, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 512.0, 65535.0]], np.float32), [0, 2, 255]),
        (np.array([[-10.0, 0.0, 10.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 200.0]], np.float32), [0, 0, 200]),
        (np.array([[-7.0, -7.0]], np.float32), [0, 0]),
        (np.array([[0, 1, 200]], np.int32), [0, 1, 200]),
        (np.array([[0, 1 << 15, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 1 << 20, 1 << 21]], np.int32), [0, 128, 255]),
    ],
)
def test_grey_without_a_stated_white_is_scaled_by_its_range(values, expected):
    assert decode_image(saved(Image.fromarray(values), "TIFF"), SPEC)[0, :, 1].tolist() == expected


def test_of_an_animation_the_first_frame_is_used():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for format_name in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format_name == "WEBP" else {}
        content = saved(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
        assert decode_image(content, SPEC)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_orientation_comes_out_upright(photo, format_name, orientation):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    lying = photo if undo is None else photo.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format_name, {})
    pixels = decode_image(saved(lying, format_name, exif=exif, **options), SPEC)
    assert pixels.shape == (47, 61, 3)
    assert np.abs(pixels.astype(int) - np.asarray(photo)).mean() < 3


def test_real_photographs_of_every_orientation_agree(shared_data):
    upright = read_image(shared_data / "robustness" / "exif_orientation_1.jpg", SPEC).astype(int)
    assert upright.shape == (1800, 1200, 3)
    for orientation in (0, 2, 3, 4, 5, 6, 7, 8):
        pixels = read_image(shared_data / "robustness" / f"exif_orientation_{orientation}.jpg", SPEC)
        assert pixels.shape == (1800, 1200, 3)
        assert np.abs(pixels - upright).mean() < 3


def test_damaged_metadata_does_not_cost_the_picture(photo):
    content = saved(photo, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    assert decode_image(content, SPEC).shape == (47, 61, 3)


@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {}),
        ("PPM", {}),
    ],
)
def test_a_file_cut_off_anywhere_is_refused(photo, format_name, options):
    content = saved(photo, format_name, **options)
    for size in range(1, len(content) - 2, 37):
        with pytest.raises(DecodeError):
            decode_image(content[:size], SPEC)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_a_file_whose_rest_is_zeros_is_refused(photo, format_name):
    content = saved(photo, format_name)
    for size in range(len(content) // 2, len(content) - 2, 37):
        with pytest.raises(DecodeError):
            decode_image(content[:size] + bytes(len(content) - size), SPEC)


def test_zeros_that_pillow_would_take_for_picture_are_named(photo):
    content = saved(photo, "JPEG")
    size = len(content) - 300
    with pytest.raises(DecodeError, match=r"^cut off: the end mark of JPEG is missing$"):
        decode_image(content[:size] + bytes(300), SPEC)


def test_bytes_behind_a_whole_picture_are_ignored(photo):
    for format_name in ("JPEG", "PNG"):
        assert decode_image(saved(photo, format_name) + b"trailing notes", SPEC).shape == (47, 61, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"^empty file$"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            r"^git-lfs pointer text .* run `git lfs pull`",
        ),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", r"^an HTML page instead of a picture"),
        (b"<HTML><body>404</body>", r"^an HTML page instead of a picture"),
        (b"some other text", r"^no picture of a known format \(JPEG, PNG, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", r"^no picture of a known format"),
        (b"\0" * 4096, r"^no picture of a known format"),
    ],
)
def test_what_is_no_picture_is_named(content, reason):
    with pytest.raises(DecodeError, match=reason):
        decode_image(content, SPEC)


def test_a_damaged_picture_says_what_the_parser_said(photo):
    with pytest.raises(DecodeError, match=r"^cannot be decoded: image file is truncated \(\d+ bytes not processed\)$"):
        decode_image(saved(photo, "JPEG")[:-200], SPEC)


def test_too_many_pixels_are_refused_before_decoding(photo, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DecodeError, match=r"^61 x 47 = 2,867 pixels, more than max_pixels = 2,866$"):
        decode_image(saved_without_load(photo), DecodeSpec(max_pixels=2866))


def saved_without_load(photo):
    return b"P6 61 47 255\n" + bytes(61 * 47 * 3)


def test_exactly_max_pixels_are_accepted(photo):
    assert decode_image(saved(photo, "PNG"), DecodeSpec(max_pixels=61 * 47)).shape == (47, 61, 3)


def test_pillows_own_limit_is_an_error_without_a_warning(photo, monkeypatch):
    content = saved(photo, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DecodeError, match=r"^more than 2,000 pixels, the limit of Pillow itself$"):
        decode_image(content, SPEC)


def test_importing_the_module_mutes_pillows_warnings():
    code = (
        "import io; from PIL import Image; from emofuse.media.decode import decode_image;"
        "from emofuse.specs import DecodeSpec;"
        "file = io.BytesIO(); Image.new('L', (50, 50)).save(file, 'PNG'); Image.MAX_IMAGE_PIXELS = 2000;"
        "assert decode_image(file.getvalue(), DecodeSpec()).shape == (50, 50, 3)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_any_exception_of_a_parser_becomes_one_line(photo, monkeypatch):
    content = saved(photo, "PNG")

    def fail(self, *_):
        raise ValueError("two\n  lines")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DecodeError, match=r"^cannot be decoded: two lines$"):
        decode_image(content, SPEC)


def test_memory_that_a_damaged_header_asks_for_is_about_the_file(photo, monkeypatch):
    content = saved(photo, "PNG")

    def fail(self, *_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DecodeError, match=r"^cannot be decoded: needs more memory than there is$"):
        decode_image(content, SPEC)


def test_a_missing_file_and_a_folder_have_their_reasons(tmp_path):
    with pytest.raises(DecodeError, match=r"^no such file$"):
        read_image(tmp_path / "absent.jpg", SPEC)
    with pytest.raises(DecodeError, match=r"^cannot be read: Is a directory$"):
        read_image(tmp_path, SPEC)


def test_a_file_too_long_for_any_allowed_picture_is_not_read(tmp_path):
    path = tmp_path / "long.jpg"
    with path.open("wb") as file:
        file.truncate((1 << 24) + 16 * 100 + 1)
    with pytest.raises(DecodeError, match=r"^16,778,817 bytes, more than any picture of max_pixels = 100 has$"):
        read_image(path, DecodeSpec(max_pixels=100))


def test_every_file_that_breaks_readers_is_an_array_or_one_reason(shared_data):
    decoded, refused = 0, {}
    for path in sorted((shared_data / "robustness").iterdir()):
        try:
            pixels = read_image(path, SPEC)
        except DecodeError as error:
            refused[path.name] = str(error)
        else:
            decoded += 1
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert pixels.dtype == np.uint8
    assert decoded > 130
    assert {"truncated_jpeg.jpg", "broken.png", "decompression_bomb.gif", "truncated_image.png"} <= set(refused)
    assert all("\n" not in reason and "/" not in reason for reason in refused.values())


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DecodeError, match=r"^not a file \(a named pipe, socket or device\)$"):
        read_image(tmp_path / "pipe.jpg", SPEC)


@pytest.mark.parametrize("what", ["ztxt", "xmp", "profile", "behind"])
def test_a_png_with_metadata_that_pillow_refuses_is_read(what):
    picture = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    notes, options = PngImagePlugin.PngInfo(), {}
    if what == "xmp":
        notes.add_itxt("XML:com.adobe.xmp", "<x>" + "y" * 2_000_000 + "</x>", zip=True)
    elif what == "profile":
        options["icc_profile"] = bytes(2_000_000)
    else:
        notes.add_text("workflow", "x" * 2_000_000, zip=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=notes, exif=exif, **options)
    data = file.getvalue()
    if what == "behind":
        data = _with_texts_behind_pixels(data)
    assert (decode_image(data, SPEC) == np.asarray(picture)[::-1, ::-1]).all()
    with pytest.raises(DecodeError, match=r"cut off|cannot be decoded"):
        decode_image(data[:-20], SPEC)


def _with_texts_behind_pixels(data):
    chunks, start = [], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        chunks.append(data[start:end])
        start = end
    texts = [chunk for chunk in chunks if chunk[4:8] == b"zTXt"]
    rest = [chunk for chunk in chunks if chunk[4:8] != b"zTXt"]
    return data[:8] + b"".join([*rest[:-1], *texts, rest[-1]])
