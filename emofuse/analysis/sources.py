"""What an analysis is about: a saved run, a folder of runs (of a pipeline or sweep), or a cache alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emofuse.analysis.cached_rows import rows_of_samples
from emofuse.cache.reader import Cache, open_cache
from emofuse.errors import CacheError, ResultsError
from emofuse.report.configurations import ReportedConfiguration, Results
from emofuse.report.grouping import find_configuration, group_runs
from emofuse.report.records import read_records
from emofuse.results import ResultPaths, folder_of_runs, read_predictions, read_record, run_dir, runs_of_folder
from emofuse.results.paths import CACHE_NAME


@dataclass(frozen=True)
class Source:
    """What is analysed.

    Attributes:
        path: the path that was given.
        out: the folder of the analysis, unless another is named.
        runs: the folder of the runs; None for a cache alone.
        results: the configurations of the runs; None for a cache alone.
        chosen: the configuration that is looked at; None for a cache alone.
        cache: the cache; None if it was not found, so that only saved predictions can be looked at.
    """

    path: Path
    out: Path
    runs: Path | None
    results: Results | None
    chosen: ReportedConfiguration | None
    cache: Cache | None

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this source from others, plain JSON. Names of folders are no part of it."""
        return {
            "configuration": None if self.chosen is None else self.chosen.label,
            "runs": [] if self.chosen is None else sorted(run.digest for run in self.chosen.runs),
            "streams": {} if self.cache is None else {name: each.digest for name, each in self.cache.streams.items()},
        }

    def need_cache(self, purpose: str) -> Cache:
        """Return the cache.

        Raises:
            ResultsError: there is none.
        """
        if self.cache is None:
            raise ResultsError(
                f"{self.path}: {purpose} needs the cache that the runs were trained on, and there is no features.zarr "
                "beside them. Name it: --cache"
            )
        return self.cache


def open_source(path: Path, *, cache: Path | None = None, configuration: str | None = None) -> Source:
    """Open what is to be analysed.

    Args:
        path: the folder of a run, of a pipeline or sweep, of runs, or a cache.
        cache: the cache of the runs; looked for beside them unless given.
        configuration: the name of the configuration to look at; the best by its validation score unless given.

    Raises:
        ResultsError: there are no runs, several datasets, or no configuration of this name.
        CacheError: the cache is damaged.
    """
    if (path / "zarr.json").is_file() or path.suffix == ".zarr":
        return Source(path, path.with_name(f"{path.stem}.analysis"), None, None, None, open_cache(path))
    is_run = (path / "run.json").is_file()
    runs = path.absolute().parent if is_run else runs_of_folder(path)
    records = read_records(runs, [str(read_record(path).digest)] if is_run else None)
    results = group_runs(records, str(runs))
    if configuration is not None:
        chosen = find_configuration(results.configurations, configuration, str(runs), "configuration")
    else:
        chosen = results.ranked[0]
    beside = [ResultPaths(folder).cache for folder in (path, runs, runs.parent)]
    found = cache or next((each for each in beside if (each / "zarr.json").is_file()), None)
    opened = _cache_of_pipeline(runs, chosen) if found is None else open_cache(found)
    out = ResultPaths(path if is_run else folder_of_runs(runs)).analysis
    return Source(path, out, runs, results, chosen, opened)


def _cache_of_pipeline(runs: Path, chosen: ReportedConfiguration) -> Cache | None:
    """Return the cache of a pipeline beside a sweep whose streams and samples are those of the runs; None without."""
    record = chosen.runs[0]
    for path in sorted(runs.absolute().parent.parent.glob(f"*/{CACHE_NAME}")):
        try:
            cache = open_cache(path)
            digests = {name: stream.digest for name, stream in cache.streams.items()}
            if all(digests.get(name) == stream["digest"] for name, stream in record.streams.items()):
                rows_of_samples(cache, read_predictions(run_dir(runs, record.digest)).sample_id)
                return cache
        except (CacheError, ResultsError):
            continue
    return None
