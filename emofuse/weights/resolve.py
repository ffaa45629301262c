"""Finding the file of the weights that a spec names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from emofuse.checksum import hash_file
from emofuse.errors import WeightsError, did_you_mean
from emofuse.machine.home import NoHomeError, without_tilde
from emofuse.specs import FileWeights, HubWeights, RandomWeights, RegistryWeights, WeightsSpec
from emofuse.weights.content import why_no_model
from emofuse.weights.hub import fetch_command
from emofuse.weights.registry import REGISTRY
from emofuse.weights.store import find_stored, how_to_get, stored_weights, weights_dir


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Weights that are ready to load: a file and its hash, or a seed.

    Attributes:
        kind: the kind of the spec.
        name: the name of the registry entry or of the file, REPO/FILE of the hub, or `random`.
        path: the file; None for random weights.
        sha256: the SHA-256 of the file, 64 hex digits; None for random weights.
        seed: the seed of random weights; None for a file.
    """

    kind: Literal["registry", "file", "hub", "random"]
    name: str
    path: Path | None = None
    sha256: str | None = None
    seed: int | None = None


def resolve_weights(spec: WeightsSpec) -> ResolvedWeights:
    """Find the file of a spec's weights; random weights are used only where the spec says `random`.

    Raises:
        WeightsError: the file is missing, changed or another one; the message names the command that helps.
    """
    match spec:
        case RandomWeights():
            return ResolvedWeights("random", "random", seed=spec.seed)
        case FileWeights():
            return _resolve_file(spec)
        case HubWeights():
            return _resolve_hub(spec)
        case RegistryWeights():
            return _resolve_stored(spec.name)


def locate_file(spec: FileWeights, beside: Sequence[Path] = ()) -> FileWeights:
    """Return weights of a file as they are recorded: the absolute path at which the file is now, and its hash.

    If the spec states a hash and the file at its path is gone or another one, the file with that hash is searched in
    the folder of the path, in the folders `beside` and in the folder of weights. A file with another hash is never
    used.

    Args:
        spec: the weights, with the hash if it is known.
        beside: further folders to search.

    Raises:
        WeightsError: there is no such file; the message names the path, the hash and what to do.
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
    moved = next((other for other in _candidates(path, places) if _hash_once(other) == spec.sha256), None)
    if moved is not None:
        return FileWeights(path=moved, sha256=spec.sha256)
    what = f"the spec says SHA-256 {spec.sha256}, "
    what += f"the file has {_hash_once(path)}" if is_there else "and there is no such file"
    raise WeightsError(
        f"{path}: {what}; there is none with this hash in {', '.join(map(str, places))}. Put the file back, or keep it "
        "in the folder of weights: emofuse weights import PATH --as NAME"
    )


def _candidates(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Iterate over files that may be a moved file: first those with its name, then those with its suffix."""
    yield from (folder / path.name for folder in folders if (folder / path.name).is_file())
    for folder in folders:
        if folder.is_dir():
            yield from (other for other in sorted(folder.iterdir()) if other.suffix == path.suffix and other.is_file())


def _resolve_file(spec: FileWeights) -> ResolvedWeights:
    located = locate_file(spec)
    return ResolvedWeights("file", located.path.name, located.path, located.sha256)


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
            f"the weights {name!r} are damaged: {stored.path} is not the file that was checked when it was added. "
            f"Get them again: {how_to_get(name)}"
        )
    return ResolvedWeights("registry", name, stored.path, stored.sha256)


def _resolve_hub(spec: HubWeights) -> ResolvedWeights:
    """Find the file by its hash, under any name: it may have been fetched from the hub or imported."""
    name = f"{spec.repo}/{spec.file}"
    for stored in stored_weights():
        if stored.sha256 != spec.sha256:
            continue
        if stored.is_unchanged() or _hash_once(stored.path) == spec.sha256:
            return ResolvedWeights("hub", name, stored.path, spec.sha256)
        raise WeightsError(
            f"the weights {name!r} are damaged: {stored.path} is not the file that was checked when it was added. "
            f"Get them again: {fetch_command(spec)}"
        )
    raise WeightsError(f"the weights {name!r} are not on this machine. Get them: {fetch_command(spec)}")


def _hash_once(path: Path) -> str:
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_of(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    """Return the SHA-256 of a file; size and time are part of the key, so that a changed file is hashed again."""
    return hash_file(path)
