"""The spec of a pipeline: dataset, cache, runs, report."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from emofuse.errors import did_you_mean
from emofuse.specs.base import Spec
from emofuse.specs.caches import CacheSpec
from emofuse.specs.compared import Pairs, pair_problems
from emofuse.specs.datasets import DatasetSpec, OuterTestSpec, SplitSpec, StratifiedSplit
from emofuse.specs.reports import ReportSpec
from emofuse.specs.runs import RunSpec, variant_problems
from emofuse.specs.train import OnOff


class RepeatSpec(Spec):
    """The repeats of every run: one per seed and, with `split_seeds`, one per seed of the split.

    The split is the stratified `split`, except that a run with a `holdout` split keeps its kind, and with it the test
    rows.
    """

    seeds: tuple[int, ...] = Field((0,), min_length=1)
    split_seeds: tuple[int, ...] = ()
    split: StratifiedSplit = StratifiedSplit()


class PipelineSpec(Spec):
    """A pipeline from a dataset to its report: `emofuse run NAME` reads one from `pipelines/NAME.yaml`.

    `cache` names a file of `cache_specs/`, or is a cache spec itself. `defaults` fill what a run leaves out.
    With `references`, the report shows beneath the runs what logistic and kernel ridge regressions score.
    With `test`, every run is trained once for each outer fold, so that every row of the dataset is tested; the
    dataset's own split plays no part then.
    """

    name: str
    title: str = ""
    dataset: DatasetSpec
    cache: CacheSpec
    runs: tuple[RunSpec, ...] = Field(min_length=1)
    repeat: RepeatSpec = RepeatSpec()
    test: OuterTestSpec | None = Field(None, description="outer folds that test every row once in each repeat")
    metrics: tuple[str, ...] = Field((), description="the names of further metrics for the report")
    baseline: str | None = Field(None, description="the run that others are compared with; the first unless given")
    compare: Pairs = Field((), description="pairs of runs to compare beside those with the baseline: [[A, B], ...]")
    references: OnOff = Field(
        "on", description="whether reference models are solved on the same features and rows, for the report"
    )
    report: ReportSpec = ReportSpec()

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        known = {stream.name for stream in self.cache.streams}
        names = [run.name for run in self.runs]
        problems = [
            f"runs[{index}].features.streams: {stream!r} is not in the cache{did_you_mean(stream, known)}"
            for index, run in enumerate(self.runs)
            for stream in run.features.streams
            if stream not in known
        ]
        kinds = {stream.name: stream.kind for stream in self.cache.streams}
        for index, run in enumerate(self.runs):
            problems += [f"runs[{index}].{problem}" for problem in variant_problems(run.features, kinds)]
        problems += [
            f"runs[{index}].reference: is for the models that emofuse adds; switch these off by `references: off`"
            for index, run in enumerate(self.runs)
            if run.reference
        ]
        problems += self._contradictions_of_test() + self._differing_targets()
        first: dict[str, str] = {}
        for run in self.runs:
            same = first.setdefault(run.model_dump_json(exclude={"name"}), run.name)
            if same != run.name:
                problems.append(f"runs: {run.name!r} is the same run as {same!r} under another name")
        if len(set(names)) != len(names):
            problems.append("runs: two runs have the same name")
        if self.baseline is not None and self.baseline not in names:
            problems.append(f"baseline: {self.baseline!r} is not the name of a run{did_you_mean(self.baseline, names)}")
        problems += pair_problems(self.compare, names)
        if problems:
            raise ValueError(" | ".join(problems))
        return self

    def _contradictions_of_test(self) -> list[str]:
        """Return what contradicts `test`, which decides the split of every run."""
        if self.test is None:
            return []
        problems = [
            f"runs[{index}].split: `test` decides the split of every run, so leave it out ({run.split.kind} here)"
            for index, run in enumerate(self.runs)
            if run.split.kind != "official"
        ]
        if self.repeat.split_seeds:
            problems.append("repeat.split_seeds: `test` draws the splits, by its own `seed` and `repeats`; give either")
        return problems

    def _differing_targets(self) -> list[str]:
        """Return why the runs cannot be in one report: they learn targets of several kinds, or other columns."""
        by_target: dict[str, list[str]] = {}
        for run in self.runs:
            columns = getattr(run.target, "columns", ())  # a class may come from another column, with the same classes
            by_target.setdefault(f"{run.target.kind} {list(columns) if columns else ''}".strip(), []).append(run.name)
        if len(by_target) < 2:
            return []
        found = "; ".join(f"{target} for {', '.join(names)}" for target, names in by_target.items())
        return [f"runs: one report has runs of one target, got {found}. Give each target a pipeline of its own"]

    def splits_of(self, run: RunSpec) -> list[SplitSpec]:
        """Return the splits that a run is repeated on: outer folds, those of the split seeds, or its own."""
        if self.test is not None:
            return [*self.test.splits()]
        drawn = run.split if run.split.kind == "holdout" else self.repeat.split  # a holdout keeps its test rows
        return [drawn.model_copy(update={"seed": seed}) for seed in self.repeat.split_seeds] or [run.split]
