"""From the weights that a spec asks for to the file that has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from emofuse.errors import WeightsError, did_you_mean
from emofuse.specs import FileWeights, RandomWeights, RegistryWeights, WeightsSpec
from emofuse.weights.content import hash_file, why_no_model
from emofuse.weights.registry import REGISTRY
from emofuse.weights.store import find_stored, how_to_get, stored_weights


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Weights that are there: a file and its hash, or a seed.

    Attributes:
        kind: where they come from, as in the spec.
        name: of the registry, of the file, or `random`.
        path: the file; None for random weights.
        sha256: of the file, 64 hex digits; None for random weights.
        seed: of random weights; None for a file.
    """

    kind: Literal["registry", "file", "random"]
    name: str
    path: Path | None = None
    sha256: str | None = None
    seed: int | None = None


def resolve_weights(spec: WeightsSpec) -> ResolvedWeights:
    """Finds the file of a spec's weights. Random weights only where the spec says `random`.

    Raises:
        WeightsError: the file is missing, changed or not the one asked for; names the command that helps.
    """
    match spec:
        case RandomWeights():
            return ResolvedWeights("random", "random", seed=spec.seed)
        case FileWeights():
            return _resolve_file(spec)
        case RegistryWeights():
            return _resolve_stored(spec.name)


def _resolve_file(spec: FileWeights) -> ResolvedWeights:
    path = spec.path.expanduser()
    if not path.is_file():
        raise WeightsError(f"no file of weights at {path}: correct weights.path in the spec")
    reason = why_no_model(path)
    if reason is not None:
        raise WeightsError(f"{path} {reason}")
    sha256 = _hash_once(path)
    if spec.sha256 is not None and sha256 != spec.sha256:
        raise WeightsError(f"{path}: the spec says SHA-256 {spec.sha256}, the file has {sha256}")
    return ResolvedWeights("file", path.name, path, sha256)


def _resolve_stored(name: str) -> ResolvedWeights:
    stored = find_stored(name)
    if stored is None:
        known = {*REGISTRY, *(other.name for other in stored_weights())}
        if name not in REGISTRY:
            hint = did_you_mean(name, known) or "."
            raise WeightsError(f"no weights named {name!r}{hint} See: emofuse weights list")
        raise WeightsError(f"the weights {name!r} are not on this machine. Get them: {how_to_get(name)}")
    if not stored.is_unchanged() and _hash_once(stored.path) != stored.sha256:
        raise WeightsError(
            f"the weights {name!r} are damaged: {stored.path} is not the file that was checked when it came. Get them "
            f"again: {how_to_get(name)}"
        )
    return ResolvedWeights("registry", name, stored.path, stored.sha256)


def _hash_once(path: Path) -> str:
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_of(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    """Size and time are part of the key: a file that changes is hashed again."""
    return hash_file(path)
