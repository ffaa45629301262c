"""Build what a cache lacks and open it, for commands that go on with its features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from emofuse.cache.reader import Cache, open_cache
from emofuse.datasets.manifest import Manifest
from emofuse.extraction.face_shares import describe_face_shares
from emofuse.extraction.options import BuildOptions
from emofuse.extraction.run import build_cache
from emofuse.extraction.tally import BuildSummary
from emofuse.progress import Progress
from emofuse.specs import CacheSpec


def build_and_open(
    path: Path,
    manifest: Manifest,
    spec: CacheSpec,
    options: BuildOptions,
    *,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> tuple[Cache, BuildSummary]:
    """Build what is missing of a cache, say what was done, and open it.

    Args:
        path: the path of the cache; the folders above it are made.
        manifest: the rows.
        spec: the streams.
        options: the options of the build.
        say: receives a line for each change since the last build, for the build, and for each note on it.
        progress: receives the progress of the build.

    Raises:
        EmofuseError: see `build_cache`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = build_cache(path, manifest, spec, options, progress)
    for change in summary.changes:
        say(f"since the last build: {change}")
    cache = open_cache(path)
    for line in (f"{summary.describe()}, {path}", *summary.notes, *describe_face_shares(cache, spec)):
        say(f"cache: {line}")
    return cache, summary
