"""From the weights that a spec asks for to the file that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from emofuse.checksum import hash_file
from emofuse.errors import WeightsError, did_you_mean
from emofuse.home import NoHomeError, without_tilde
from emofuse.specs import FileWeights, RandomWeights, RegistryWeights, WeightsSpec
from emofuse.weights.content import why_no_model
from emofuse.weights.registry import REGISTRY
from emofuse.weights.store import find_stored, how_to_get, stored_weights, weights_dir


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


def locate_file(spec: FileWeights, beside: Sequence[Path] = ()) -> FileWeights:
    """Weights of a file as they are recorded: its absolute path, where it is now, and its hash.

    A file of a known hash that is not where the spec says any more, or is another one now, is looked for by that hash:
    in its folder, in others and in the folder of weights. No other file is ever taken.

    Args:
        spec: with its hash, if it is known.
        beside: folders to look in as well.

    Raises:
        WeightsError: no such file; names the path, the hash and what to do.
    """
    try:
        path = without_tilde(spec.path).absolute()
    except NoHomeError as error:
        raise WeightsError(f"weights.path: {error}") from None
    if path.is_file() and (reason := why_no_model(path)) is not None:
        raise WeightsError(f"{path} {reason}")
    is_there = path.is_file()
    if spec.sha256 is None:
        if not is_there:
            raise WeightsError(f"no file of weights at {path}: correct weights.path in the spec")
        return FileWeights(path=path, sha256=_hash_once(path))
    if is_there and _hash_once(path) == spec.sha256:
        return FileWeights(path=path, sha256=spec.sha256)
    places = list(dict.fromkeys([path.parent, *(folder.absolute() for folder in beside), weights_dir().absolute()]))
    found = next((other for other in _candidates(path, places) if _hash_once(other) == spec.sha256), None)
    if found is not None:
        return FileWeights(path=found, sha256=spec.sha256)
    what = f"the spec says SHA-256 {spec.sha256}, "
    what += f"the file has {_hash_once(path)}" if is_there else "and there is no such file"
    raise WeightsError(
        f"{path}: {what}; nor is one of this hash in {', '.join(map(str, places))}. Put the file back, or keep it in "
        "the folder of weights: emofuse weights import PATH --as NAME"
    )


def _candidates(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Files of some folders that may be a file that has moved: those of its name first, then those of its suffix."""
    yield from (folder / path.name for folder in folders if (folder / path.name).is_file())
    for folder in folders:
        if folder.is_dir():
            yield from (other for other in sorted(folder.iterdir()) if other.suffix == path.suffix and other.is_file())


def _resolve_file(spec: FileWeights) -> ResolvedWeights:
    found = locate_file(spec)
    return ResolvedWeights("file", found.path.name, found.path, found.sha256)


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
