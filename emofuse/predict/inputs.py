"""The inputs of a prediction: files and folders, a camera by its number, or the address of a video stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from emofuse.datasets.media_members import media_members
from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.sources import Source
from emofuse.errors import DatasetError, DecodeError
from emofuse.media.frames import FrameChoice, NumberedFrame, read_frames, read_live_frames
from emofuse.predict.camera import read_camera
from emofuse.predict.files import find_images
from emofuse.specs import DecodeSpec

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "tcp", "udp")
TIMEOUT_S = 15.0
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.+")
_SPELT = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d*)?|\.\d+)s?")


@dataclass(frozen=True)
class Camera:
    """A camera of this machine by its number, 0 for the first one."""

    index: int

    def __str__(self) -> str:
        return f"camera {self.index}"


@dataclass(frozen=True)
class Address:
    """An address that sends a video."""

    url: str

    def __str__(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.url)  # without a password


VideoInput = Path | Camera | Address


def parse_input(text: str) -> VideoInput:
    """Return the input that an argument names: a number is a camera, `rtsp://...` an address, anything else a path.

    A file whose name is a number is written as a path: `./0`.

    Raises:
        DatasetError: the address is of a kind that cannot be read.
    """
    if text.isdecimal():
        return Camera(int(text))
    address = _ADDRESS.fullmatch(text)
    if address is None:
        return Path(text)
    if address[1].lower() not in SCHEMES:
        raise DatasetError(f"{text}: cannot be read, expected an address of {', '.join(SCHEMES)}, or a file")
    return Address(text)


def is_live(source: VideoInput) -> bool:
    """Return whether frames that are not taken in time are lost, as those of a camera."""
    return isinstance(source, Camera) or (isinstance(source, Address) and not source.url.lower().startswith("http"))


def video_frames(
    source: VideoInput, choice: FrameChoice, decode: DecodeSpec, *, timeout_s: float = TIMEOUT_S
) -> Iterator[NumberedFrame]:
    """Iterate over the frames of a video, camera or address, in the order of time.

    Raises:
        DecodeError: it cannot be opened or read, or ends by a fault. The message is one line without its name.
        StreamError: PyAV is not installed.
    """
    match source:
        case Camera(index):
            return read_camera(index, choice)
        case Address(url):
            return read_live_frames(url, choice, decode, timeout_s=timeout_s)
        case _:
            return read_frames(source, choice, decode)


def find_inputs(
    texts: list[str], kinds: frozenset[NameKind], *, say: Callable[[str], None]
) -> tuple[list[Path | Source], list[VideoInput]]:
    """Return the files that are predicted as wholes, and the videos that are predicted frame by frame.

    Args:
        texts: the arguments.
        kinds: the kinds of files that the run was trained on. A run on images predicts videos frame by frame.
        say: receives a line for each kind of file of a folder that was left out.

    Raises:
        DatasetError: there is no such file, or a folder without any.
    """
    files: list[Path | Source] = []
    videos: list[VideoInput] = []
    sees_frames = NameKind.IMAGE in kinds
    for text in texts:
        source = parse_input(text)
        if not isinstance(source, Path):
            if not sees_frames:
                raise DatasetError(
                    f"{source}: the run predicts whole {' or '.join(sorted(kinds))}s, which a live source has none of. "
                    "Take a run on images"
                )
            videos.append(source)
            continue
        members = media_members(source, kinds)
        if members is not None:
            files += members
            continue
        for path in find_images(source, kinds | {NameKind.CLIP} if sees_frames else kinds, say=say):
            if sees_frames and isinstance(path, Path) and kind_of_name(path.name) is NameKind.CLIP:
                videos.append(path)
            else:
                files.append(path)
    return files, videos


def parse_seconds(text: str, name: str) -> float:
    """Return a time such as `0.5s`, `500ms`, `12.5` or `1:02:03` in seconds.

    Raises:
        DecodeError: it is no time.
    """
    text = text.strip()
    if text.endswith("ms") and re.fullmatch(r"\d+(\.\d*)?", text[:-2]):
        return float(text[:-2]) / 1000
    spelt = _SPELT.fullmatch(text)
    if spelt is None:
        raise DecodeError(f"{name}: {text!r} is no time, expected seconds such as 0.5s, 12.5 or 1:02:03")
    first, second, seconds = spelt.groups()
    total = 0.0
    for part in (first, second, seconds):
        total = total if part is None else 60 * total + float(part)
    return total


def parse_every(text: str) -> tuple[int, float | None]:
    """Return `5` as every fifth frame, (5, None), and `0.2s` as a frame every 0.2 seconds, (1, 0.2).

    Raises:
        DecodeError: it is neither, or zero.
    """
    text = text.strip()
    if text.isdecimal() and int(text) > 0:
        return int(text), None
    if text.endswith("s"):
        seconds = parse_seconds(text, "--every")
        if seconds > 0:
            return 1, seconds
    raise DecodeError(f"--every: {text!r} is neither a number of frames, such as 5, nor a time, such as 0.2s")
