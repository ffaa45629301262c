"""What several parts of an analysis share: read or solved once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from emofuse.analysis.answers import Ints, TestedConfiguration, TestedRows, read_tested
from emofuse.analysis.cached_rows import rows_of_samples
from emofuse.analysis.scoring import Scoring
from emofuse.analysis.solved_outputs import SolvedOptions
from emofuse.analysis.sources import Source
from emofuse.analysis.subsets import SolvedAnswers, official_test, solve_subsets
from emofuse.errors import ResultsError
from emofuse.report.configurations import ReportedConfiguration
from emofuse.specs import FeaturesSpec, OuterFoldsSplit, RunSpec, TargetSpec, parse_spec
from emofuse.statistics import Resampling
from emofuse.training.targets import THE_LABEL

Floats = npt.NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ExplainOptions:
    """The options of an analysis.

    Attributes:
        parts: the names of the parts; all that the source allows unless given.
        configuration: the name of the configuration to look at; the best by its validation score unless given.
        cache: the cache of the runs; looked for beside them unless given.
        out: the folder of the analysis; beside the source unless given.
        streams: the streams whose worth is measured; those of the configuration, or all of the cache, unless given.
        rows: `test` answers the test rows of the dataset's split, `folds` every row in outer folds; by default the
            rows that the runs have tested, or of a cache the test rows, if there are some.
        folds: the number of outer folds.
        draws: the number of shuffles of each kind.
        seed: the seed of all draws.
        resamples: the number of bootstrap resamples.
        most_rows: the largest number of rows that attributions and maps of features look at.
        device: the device of the heads.
        umap: whether maps by UMAP are made beside those by t-SNE.
    """

    parts: Sequence[str] = ()
    configuration: str | None = None
    cache: Path | None = None
    out: Path | None = None
    streams: Sequence[str] = ()
    rows: Literal["test", "folds"] | None = None
    folds: int = 5
    draws: int = 10
    seed: int = 0
    resamples: int = 2_000
    most_rows: int = 2_000
    device: str = "cpu"
    umap: bool = False

    @property
    def resampling(self) -> Resampling:
        """The number of resamples and the seed."""
        return Resampling(self.resamples, self.seed)


class Analysis:
    """A source with its options, and what its parts have in common.

    Args:
        source: what is analysed.
        options: the options.
        say: receives a line on what is left out.
    """

    def __init__(self, source: Source, options: ExplainOptions, say: Say = lambda _: None) -> None:
        self.source, self.options, self.say = source, options, say

    @property
    def chosen(self) -> ReportedConfiguration:
        """The configuration that is looked at.

        Raises:
            ResultsError: the source is a cache alone.
        """
        if self.source.chosen is None:
            raise ResultsError(f"{self.source.path}: no runs in it")
        return self.source.chosen

    @property
    def runs(self) -> Path:
        """The folder of the runs.

        Raises:
            ResultsError: the source is a cache alone.
        """
        if self.source.runs is None:
            raise ResultsError(f"{self.source.path}: no runs in it")
        return self.source.runs

    @property
    def spec(self) -> RunSpec:
        """The spec of the first run of the configuration."""
        return parse_spec(RunSpec, dict(self.chosen.spec), self.chosen.label)

    @cached_property
    def tested(self) -> dict[str, TestedConfiguration]:
        """Label -> the answers of the chosen configuration and of all others that tested the same rows."""
        results = self.source.results
        if results is None:
            raise ResultsError(f"{self.source.path}: no runs in it")
        others = [item for item in results.configurations if item.label != self.chosen.label]
        read = read_tested([self.chosen, *others], self.runs)
        ids = read[0].mean.sample_id
        return {each.label: each for each in read if np.array_equal(each.mean.sample_id, ids)}

    @property
    def answered(self) -> TestedConfiguration:
        """The answers of the chosen configuration."""
        return self.tested[self.chosen.label]

    @cached_property
    def solved(self) -> SolvedAnswers:
        """The answers of solved models of all subsets of the streams."""
        cache = self.source.need_cache("solving models of all subsets")
        streams = tuple(self.options.streams)
        features: FeaturesSpec | None = None
        target: TargetSpec = THE_LABEL
        if self.source.chosen is not None:
            spec = self.spec
            streams, features, target = streams or self.chosen.streams, spec.features, spec.target
        return solve_subsets(cache, streams, self._how(), features=features, target=target)

    @property
    def scoring(self) -> Scoring:
        """The scores of the target."""
        return Scoring("class" if self.source.chosen is None else self.chosen.target.kind, self.classes)

    @property
    def has_classes(self) -> bool:
        """Whether rows have a class."""
        return self.source.chosen is None or self.source.chosen.target.has_classes

    def _how(self) -> SolvedOptions:
        """Return how subsets are solved: on the rows that the runs tested, as far as one split has them."""
        plain = SolvedOptions(folds=self.options.folds, seed=self.options.seed)
        if self.options.rows == "folds":
            return plain
        if self.options.rows is None and self.source.chosen is not None:
            split = self.spec.split
            if isinstance(split, OuterFoldsSplit):
                return replace(plain, folds=split.count, seed=split.seed + split.repeat)
            return replace(plain, split=split)
        cache = self.source.need_cache("solving models of all subsets")
        own = official_test(cache)
        if own is None and self.options.rows == "test":
            raise ResultsError(f"{cache.path}: the dataset's split has no test rows with a label; use --rows folds")
        return replace(plain, split=own)

    @cached_property
    def mean(self) -> TestedRows:
        """The answers that are looked at sample by sample: of the configuration, or of the model of all streams."""
        if self.source.chosen is not None:
            return self.answered.mean
        solved, cache = self.solved, self.source.need_cache("its samples")
        return TestedRows(
            (), (), cache.sample_ids[solved.rows], solved.label, solved.unit, solved.everything, solved.target
        )

    @property
    def label(self) -> str:
        """The name of the model that is looked at."""
        return self.chosen.label if self.source.chosen is not None else "The solved model of all streams"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, columns or labels."""
        return tuple(self.chosen.runs[0].classes) if self.source.chosen is not None else self.solved.subsets.classes

    @property
    def grouped(self) -> bool:
        """Whether resamples draw whole groups."""
        return self.answered.grouped if self.source.chosen is not None else self.solved.subsets.grouped

    @cached_property
    def rows(self) -> Ints | None:
        """The rows of the cache of `mean`; None without a cache."""
        return None if self.source.cache is None else rows_of_samples(self.source.cache, self.mean.sample_id)

    @cached_property
    def paths(self) -> Mapping[str, str]:
        """Sample -> the path of its file; nothing without a cache."""
        cache = self.source.cache
        if cache is None or self.rows is None:
            return {}
        of_rows = cache.manifest.table["path"][self.rows].to_list()
        return {str(sample): str(path or "") for sample, path in zip(self.mean.sample_id, of_rows, strict=True)}

    def right(self, tested: TestedConfiguration) -> Floats:
        """Return the share of the repeats that are right in each sample of `mean`, (n,)."""
        place = np.searchsorted(tested.mean.sample_id, np.concatenate([rows.sample_id for rows in tested.repeats]))
        hits = np.concatenate([rows.outputs.argmax(axis=1) == rows.label for rows in tested.repeats])
        counts = np.bincount(place, minlength=len(tested.mean.sample_id))
        share: Floats = np.bincount(place, weights=hits, minlength=len(counts)) / counts
        return share
