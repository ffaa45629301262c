"""Reference models: what a user would do without a fusion network, on the same features, splits and rows.

    runs of a pipeline -> all their streams, and those of the baseline -> for each set: logistic regression on all of it
    side by side, averaged logistic regressions, kernel ridge regression -> runs beside the others

They are runs with `reference: true`, solved by the exact heads. Nothing is chosen by them. A reference model that
cannot be solved is left out with a note, and never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emofuse.errors import EmofuseError
from emofuse.results import RunRecord
from emofuse.specs import (
    AveragedLogisticHeadSpec,
    FeaturesSpec,
    HeadSpec,
    KernelRidgeHeadSpec,
    LogisticHeadSpec,
    RunSpec,
    SplitSpec,
    TrainSpec,
)
from emofuse.specs.runs import settled
from emofuse.specs.streams import Value, Variant, variants_of
from emofuse.training.runs import OnRun, train_runs

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

MODELS: dict[str, HeadSpec] = {
    "Logistic regression": LogisticHeadSpec(),
    "Averaged logistic regressions": AveragedLogisticHeadSpec(),
    "Kernel ridge regression": KernelRidgeHeadSpec(),
}
"""Name -> head of each reference model."""

_FAILURES = (EmofuseError, MemoryError, RuntimeError)
"""The errors of a model that cannot be solved; torch raises RuntimeError where memory is lacking."""


@dataclass(frozen=True)
class ReferencePlan:
    """The reference models to solve.

    Attributes:
        runs: their runs, one for each split of the baseline; those of a model are neighbours.
        notes: one sentence on each thing that is left out.
    """

    runs: tuple[RunSpec, ...]
    notes: tuple[str, ...] = ()


def plan_references(cache: Cache, runs: Sequence[RunSpec], baseline: str) -> ReferencePlan:
    """Return the reference models of some runs.

    They have all streams of the runs, and once more those of the baseline if these are fewer. Split, fold, second
    training and the score that chooses are those of the baseline. Seeds of training change nothing in a model that is
    solved, so that each has one run for each split.

    Args:
        cache: the cache of the features.
        runs: all repeats of all configurations.
        baseline: the name of the baseline among them.
    """
    first_of: dict[str, RunSpec] = {}
    repeats: dict[SplitSpec, RunSpec] = {}  # the first run of the baseline for each split
    for run in runs:
        first_of.setdefault(run.name, run)
        if run.name == baseline:
            repeats.setdefault(run.split, run)
    of_baseline = first_of[baseline]
    used = dict.fromkeys(stream for run in first_of.values() for stream in run.features.streams)
    kinds = {stream: cache.streams[stream].kind for stream in used}
    vectors = [stream for stream in used if len(cache.streams[stream].layout.shape) == 1]
    notes = _left_out([stream for stream in used if stream not in vectors], vectors)
    of_the_baseline = [stream for stream in of_baseline.features.streams if stream in vectors]
    subsets = {f"all {len(vectors)} streams": (vectors, list(first_of.values()))} if vectors else {}
    if of_the_baseline and len(of_the_baseline) < len(vectors):
        subsets[f"streams of {baseline}"] = (of_the_baseline, [of_baseline])
    planned = []
    for words, (streams, owners) in subsets.items():
        features = _features(streams, owners, kinds)
        for name, head in MODELS.items():
            if len(streams) == 1 and isinstance(head, AveragedLogisticHeadSpec):
                continue  # the mean of one regression is that regression
            planned += [
                RunSpec(
                    name=f"{name} ({words})" if len(subsets) > 1 else name,
                    features=features,
                    head=head,
                    train=TrainSpec(select=repeat.train.select, seed=repeat.train.seed),
                    split=repeat.split,
                    fold=repeat.fold,
                    refit=repeat.refit,
                    reference=True,
                )
                for repeat in repeats.values()
            ]
    return ReferencePlan(tuple(planned), notes)


def train_references(
    cache: Cache,
    plan: ReferencePlan,
    runs: Path,
    *,
    device: str = "auto",
    memory_bytes: int | None = None,
    on_run: Callable[[RunRecord, bool], None] | None = None,
) -> tuple[list[RunRecord], list[str]]:
    """Solve reference models, or read those that exist.

    Args:
        cache: the cache of the features.
        plan: the models.
        runs: the folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: the memory that training may use.
        on_run: called with each record, and whether this call solved it.

    Returns:
        The records of the models that are there, and one sentence on everything that is left out.
    """
    notes = list(plan.notes)
    if not plan.runs:
        return [], notes
    solved: dict[int, RunRecord] = {}

    def solve(indices: Sequence[int]) -> None:
        def take(place: int, record: RunRecord, trained_now: bool) -> None:
            if indices[place] not in solved and on_run is not None:
                on_run(record, trained_now)
            solved[indices[place]] = record

        of_call: OnRun = take
        specs = [plan.runs[index] for index in indices]
        train_runs(cache, specs, runs, device=device, memory_bytes=memory_bytes, on_run=of_call)

    try:
        solve(range(len(plan.runs)))
    except _FAILURES:  # one that is too large must not take the others with it
        for name in dict.fromkeys(run.name for run in plan.runs):
            of_model = [index for index, run in enumerate(plan.runs) if run.name == name]
            try:
                solve(of_model)
            except _FAILURES as error:
                for index in of_model:  # a mean over some of the splits would not be comparable
                    solved.pop(index, None)
                notes.append(f"{name} is left out, because it could not be solved: {_reason(error)}")
    return [solved[index] for index in sorted(solved)], notes


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if lines[0].endswith(".") else f"{lines[0]}."


def _left_out(others: Sequence[str], vectors: Sequence[str]) -> tuple[str, ...]:
    """Return what to say of streams that are no vectors."""
    if not others:
        return ()
    if not vectors:
        return ("There is no reference model: these models take vectors alone, and no stream of the runs is one.",)
    return (f"Reference models take vectors alone; they are solved without {', '.join(others)}.",)


def _features(streams: Sequence[str], owners: Sequence[RunSpec], kinds: dict[str, str]) -> FeaturesSpec:
    """Return the features of streams, each in the variant of the widest of the runs that have it."""
    widest = sorted(owners, key=lambda run: -len(run.features.streams))
    variants: dict[str, dict[str, Value]] = {}
    for stream in streams:
        features = next(run.features for run in widest if stream in run.features.streams)
        chosen = {each.name: _value(features, stream, each) for each in variants_of(kinds[stream])}
        if chosen:
            variants[stream] = chosen
    neutral = next((run.features.neutral_label for run in widest if run.features.neutral_label), None)
    return settled(FeaturesSpec(streams=tuple(streams), variants=variants, neutral_label=neutral), kinds)


def _value(features: FeaturesSpec, stream: str, variant: Variant) -> Value:
    """Return the value of a stream's variant in a run."""
    of_stream = features.variants.get(stream, {})
    return of_stream.get(variant.name, features.factors.get(variant.factor, variant.default))
