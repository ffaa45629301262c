"""The public exceptions of emofuse.

They have one base class, so that a caller can catch `EmofuseError` and the command line can print the message alone.
Each error also inherits the builtin that describes it best, so that code which does not know emofuse catches it too.
A message says where, what was found, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from emofuse.wording import count_of


class EmofuseError(Exception):
    """Base class of everything emofuse raises on purpose."""


class SpecError(EmofuseError, ValueError):
    """A specification (YAML file or Python object) is wrong. Lists all its faults at once."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where = where
        self.problems = tuple(problems)
        super().__init__(f"{where}, {count_of(len(self.problems), 'problem')}: {' | '.join(self.problems)}")


class PluginError(EmofuseError, ImportError):
    """A user's kind cannot be used: its file or package is missing, changed, faulty, or clashes with another."""


class DatasetError(EmofuseError, ValueError):
    """A dataset cannot be turned into a manifest. Lists the bad rows with their numbers."""


class DecodeError(EmofuseError, ValueError):
    """An image cannot be decoded; the message is the reason kept beside the row."""


class WeightsError(EmofuseError, RuntimeError):
    """Pretrained weights are missing, damaged, or not what the registry says they are."""


class StreamError(EmofuseError, RuntimeError):
    """A stream cannot run at all. A single row that fails is a status instead."""


class CacheError(EmofuseError, RuntimeError):
    """A feature cache is missing, damaged, or not a cache of this version."""


class StoreError(EmofuseError):
    """An object store does not answer, refuses, or cannot be used from here.

    It inherits no builtin: code that catches OSError or RuntimeError would take it for a missing or damaged file.
    """


class StaleCacheError(CacheError):
    """The cache was made from another specification than the one asked for now."""


class UnwritableCacheError(CacheError):
    """A cache cannot be written: the disk is full, or read-only."""


class IncompleteCacheError(CacheError):
    """Blocks that are needed have not been computed yet."""


class BuildError(EmofuseError, RuntimeError):
    """A build cannot run where it was asked to: no scheduler, no workers, or workers of another version."""


class DeviceError(EmofuseError, RuntimeError):
    """A device was asked for that is unknown, or that this machine does not have."""


class TrainingError(EmofuseError, RuntimeError):
    """A run cannot be trained as asked (no rows, one class, diverged)."""


class ProfileError(EmofuseError, RuntimeError):
    """A configuration cannot be measured: it cannot run here, or its process died."""


class ResultsError(EmofuseError, RuntimeError):
    """A folder of results is missing, damaged or of another version."""


class TrackingError(EmofuseError, RuntimeError):
    """An experiment tracker cannot be used, or has not taken all runs. Trained runs are saved in any case."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the known word nearest to a wrong one, or "" if none is near."""
    close = difflib.get_close_matches(word, sorted(known))
    if not close:
        return ""
    # Of several that are near, one of the same letters in another order: `lpb` is `lbp` and not `lpq`.
    nearest = next((name for name in close if sorted(name) == sorted(word)), close[0])
    return f", did you mean {nearest!r}?"
