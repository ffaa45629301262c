"""The source of a sample: a file, a member of one, or a span of one, with its sound beside it if need be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """The place of one sample on a disk or a store.

    Attributes:
        path: the file: a picture, a video, a sound, or an archive.
        member: the name of the file inside of a tar archive at `path`; None for a file itself.
        audio_path: the file with the sound, where it lies apart; None if the sound is that of `path`.
        start_s: the begin of an utterance in a longer file, in seconds from its start; None for the start.
        end_s: the end of the utterance; None for the end of the file.
    """

    path: Path
    member: str | None = None
    audio_path: Path | None = None
    start_s: float | None = None
    end_s: float | None = None

    @classmethod
    def of(cls, path: Path | Source | None) -> Source | None:
        """Return the source of a whole file; a source, and None, is returned itself."""
        return cls(path) if path is not None and not isinstance(path, Source) else path

    @property
    def is_span(self) -> bool:
        """Whether the sample is a part of a longer file."""
        return self.start_s is not None or self.end_s is not None
