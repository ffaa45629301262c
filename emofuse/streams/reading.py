"""The reading of one sample: its file is opened once, and decoded only as far as some stream needs.

The frames of a clip are handed on one by one, so that memory holds no whole clip unless a stream needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from emofuse.datasets.names import NameKind, kind_of_name
from emofuse.datasets.sources import Source
from emofuse.errors import DecodeError
from emofuse.media.audio import decode_sound, read_sound
from emofuse.media.clip import Clip
from emofuse.media.decode import read_image
from emofuse.media.files import FileSums, OpenFile, open_source
from emofuse.media.sound import Sound
from emofuse.media.video import iterate_frames
from emofuse.specs import ClipSpec, DecodeSpec

OnPicture = Callable[[int, float, npt.NDArray[np.uint8]], None]
"""Called with the step, the time in seconds and the picture (H, W, 3) uint8 RGB of every decoded frame."""


@dataclass
class ReadSample:
    """What was read of one sample.

    Attributes:
        sums: the files that were read, for the record of the cache; None if not all of the sample's files were.
        picture_problem: the reason in one line why it has no picture or no frames; None if it has, or needs none.
        sound_problem: the same for the sound.
        sound: the sound, if streams need it.
        clip: all frames at once, if streams need them.
    """

    sums: FileSums | None = None
    picture_problem: str | None = None
    sound_problem: str | None = None
    sound: Sound | None = None
    clip: Clip | None = None


class SampleReader:
    """The reader of the samples of one cache spec.

    Args:
        needs: what the streams need of a sample, out of `emofuse.specs.streams.NEEDS`.
        decode: the limits of what is decoded.
        clip: the choice of frames; None for pictures.
    """

    def __init__(self, needs: frozenset[str], decode: DecodeSpec, clip: ClipSpec | None) -> None:
        self._sees = bool(needs - {"audio"})
        self._keeps_frames = "frames" in needs
        self._hears = "audio" in needs
        self._decode = decode
        self._clip = clip

    def read(self, source: Source, on_picture: OnPicture, *, with_sums: bool) -> ReadSample:
        """Read one sample.

        Args:
            source: its source.
            on_picture: receives the picture, or every chosen frame. If a clip is damaged behind some frame, it has
                received the frames before.
            with_sums: whether files are hashed for the record of the cache.
        """
        sums = FileSums()
        sample = ReadSample()
        on_read = sums.add if with_sums else None
        if self._sees and self._clip is None:
            try:
                on_picture(0, 0.0, read_image(source, self._decode, on_read))
            except DecodeError as error:
                sample.picture_problem = self._reason(source, error, NameKind.CLIP)
            on_read = None
        own_sound = self._hears and source.audio_path is None
        if (self._sees and self._clip is not None) or own_sound:
            try:
                opened = open_source(source, "clip" if self._sees else "sound", on_read)
            except DecodeError as error:
                if self._clip is not None and self._sees:
                    sample.picture_problem = str(error)
                sample.sound_problem = str(error) if own_sound else None
            else:
                with opened:
                    self._read_open(opened, source, sample, on_picture)
        if self._hears and not own_sound:
            self._decode_sound(sample, partial(read_sound, source, self._decode, sums.add if with_sums else None))
        sample.sums = sums if sums.files == (1 if source.audio_path is None else 2) else None
        return sample

    def _read_open(self, opened: OpenFile, source: Source, sample: ReadSample, on_picture: OnPicture) -> None:
        if self._sees and self._clip is not None:
            kept: list[tuple[float, npt.NDArray[np.uint8]]] = []
            try:
                for step, (time, image) in enumerate(iterate_frames(opened, source, self._clip, self._decode)):
                    on_picture(step, time, image)
                    if self._keeps_frames:
                        kept.append((time, image))
            except DecodeError as error:
                sample.picture_problem = self._reason(source, error, NameKind.IMAGE)
            else:
                times = np.array([time for time, _ in kept], dtype=np.float64)
                sample.clip = Clip(tuple(image for _, image in kept), times) if kept else None
        if self._hears and source.audio_path is None:
            self._decode_sound(sample, partial(decode_sound, opened, source, self._decode))

    @staticmethod
    def _decode_sound(sample: ReadSample, decode: Callable[[], Sound]) -> None:
        try:
            sample.sound = decode()
        except DecodeError as error:
            sample.sound_problem = str(error)

    @staticmethod
    def _reason(source: Source, error: DecodeError, other: NameKind) -> str:
        """Return the reason of an error, with a hint where the file is of the kind that the spec does not expect."""
        if kind_of_name(source.member or source.path.name) is not other:
            return str(error)
        if other is NameKind.CLIP:
            return f"a clip, and the cache spec has no `clip`: set `clip: {{frames: 16}}` ({error})"
        return f"a picture, and the cache spec has `clip`, which is for clips ({error})"
