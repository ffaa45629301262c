"""What the rows of a cache are called: images, faces, clips, sounds, or samples where they are of several kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from emofuse.errors import EmofuseError
from emofuse.specs.caches import CacheSpec
from emofuse.specs.streams import ImportedSpec, looks_at_faces


@dataclass(frozen=True)
class Noun:
    """The word for a row.

    Attributes:
        one: the word.
        many: its plural.
        article: `a` or `an`.
    """

    one: str
    many: str
    article: str = "a"

    @property
    def an(self) -> str:
        """The word with its article."""
        return f"{self.article} {self.one}"


IMAGE = Noun("image", "images", "an")
FACE = Noun("face", "faces")
CLIP = Noun("clip", "clips")
SOUND = Noun("sound", "sounds")
SAMPLE = Noun("sample", "samples")


def noun_of(spec: CacheSpec) -> Noun:
    """Return what the rows of a cache are called."""
    streams = [stream for stream in spec.streams if not isinstance(stream, ImportedSpec)]
    if spec.clip is not None:
        return CLIP
    hears = ["audio" in stream.needs for stream in streams]
    if not streams or len(set(hears)) > 1:
        return SAMPLE
    if hears[0]:
        return SOUND
    has_row_for_each_face = spec.face.which == "all" and any(looks_at_faces(stream.needs) for stream in streams)
    return FACE if has_row_for_each_face else IMAGE


def common_noun(specs: Iterable[Mapping[str, Any]]) -> Noun:
    """Return what the rows of several caches are called, whose specs are plain data as runs record them.

    Where the kind of a stream is not known any more (a plugin's), or rows are of several kinds, they are samples.
    """
    nouns = {_noun_of_record(spec) for spec in specs}
    return nouns.pop() if len(nouns) == 1 else SAMPLE


def _noun_of_record(spec: Mapping[str, Any]) -> Noun:
    try:
        return noun_of(CacheSpec.model_validate(spec))
    except (ValidationError, EmofuseError, KeyError, TypeError, ValueError):
        return CLIP if spec.get("clip") else SAMPLE
