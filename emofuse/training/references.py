"""Reference models: what a user would do without a fusion network, on the same features, splits and rows.

    runs -> all their streams, those of the baseline, the best single one -> for each set: logistic regression on all of
    it side by side, averaged logistic regressions, kernel ridge regression -> runs beside the others

They are runs with `reference: true`, solved by the exact heads. Nothing is chosen by them. The best single stream is
the one whose logistic regression scores best on the validation rows. A reference model that cannot be solved is left
out with a note, and never an error. The notes are kept beside the runs, for later reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from emofuse.errors import EmofuseError
from emofuse.results import RunRecord, write_reference_notes
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
from emofuse.specs.pca import PCA
from emofuse.specs.runs import settled
from emofuse.specs.streams import Value, Variant, variants_of
from emofuse.specs.target_options import target_problems
from emofuse.training.runs import train_runs

if TYPE_CHECKING:
    from emofuse.cache.reader import Cache

MODELS: dict[str, HeadSpec] = {
    "Logistic regression": LogisticHeadSpec(),
    "Averaged logistic regressions": AveragedLogisticHeadSpec(),
    "Kernel ridge regression": KernelRidgeHeadSpec(),
}
"""Name -> head of each reference model. The first one that can give the target finds the best single stream."""

MODEL_OF = {head.kind: name.lower() for name, head in MODELS.items()}

SINGLES = "single_streams"
"""The folder, within that of the runs, of the models of single streams among which validation rows choose."""

_FAILURES = (EmofuseError, MemoryError, RuntimeError)
"""The errors of a model that cannot be solved; torch raises RuntimeError where memory is lacking."""

_SCORES = {"macro_f1": "macro F1", "ccc": "CCC", "map": "mean average precision"}

OnReference = Callable[[RunRecord, bool], None]


@dataclass(frozen=True)
class ReferencePlan:
    """The reference models to solve.

    Attributes:
        runs: their runs, one for each split of the baseline; those of a model are neighbours.
        singles: the models of each stream alone, of which the best has its place among the references.
        notes: one sentence on each thing that is left out.
    """

    runs: tuple[RunSpec, ...]
    singles: tuple[RunSpec, ...] = ()
    notes: tuple[str, ...] = ()


class SolvedReferences(NamedTuple):
    """The records of reference models, and sentences on how they were chosen and on what is left out."""

    records: list[RunRecord]
    notes: list[str]


def plan_references(cache: Cache, runs: Sequence[RunSpec], baseline: str) -> ReferencePlan:
    """Return the reference models of some runs.

    They have all streams of the runs, and once more those of the baseline if these are fewer, and the best single
    stream, which is found when they are solved. Split, fold, second training and the score that chooses are those of
    the baseline; beside an ensemble of folds, which learns from the validation rows too, they are trained again on
    training and validation rows. Seeds of training change nothing in a model that is solved, so that each has one run
    for each split.

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
    if not vectors:
        return ReferencePlan((), (), notes)
    everything, several = list(first_of.values()), len(vectors) > 1
    words = f" (all {len(vectors)} streams)" if several else ""
    planned = list(_models(words, _features(vectors, everything, kinds), list(repeats.values())))
    of_the_baseline = [stream for stream in of_baseline.features.streams if stream in vectors]
    if of_the_baseline and len(of_the_baseline) < len(vectors):
        features = _features(of_the_baseline, [of_baseline], kinds)
        planned += _models(" (streams of the baseline)", features, list(repeats.values()))
    singles = [
        next(_models(f" ({stream} alone)", _features([stream], everything, kinds), [repeat]))
        for stream in (vectors if several else ())
        for repeat in repeats.values()
    ]
    return ReferencePlan(tuple(planned), tuple(singles), notes)


def _models(words: str, features: FeaturesSpec, repeats: Sequence[RunSpec]) -> Iterator[RunSpec]:
    """Yield the runs of all models on these features; `words` follow the name of each model."""
    for name, head in MODELS.items():
        if len(features.streams) == 1 and isinstance(head, AveragedLogisticHeadSpec):
            continue  # the mean of one regression is that regression
        for repeat in repeats:
            train = TrainSpec(select=repeat.train.select, seed=repeat.train.seed)
            if target_problems(repeat.target, head, train):
                continue  # logistic models give probabilities, and no numbers
            yield repeat.model_copy(
                update={
                    "name": f"{name}{words}",
                    "features": features,
                    "head": head,
                    "train": train,
                    "ensemble": None,
                    "refit": "train_val" if repeat.ensemble and repeat.ensemble.folds else repeat.refit,
                    "reference": True,
                }
            )


def train_references(
    cache: Cache,
    plan: ReferencePlan,
    runs: Path,
    *,
    device: str = "auto",
    memory_bytes: int | None = None,
    on_run: OnReference | None = None,
) -> SolvedReferences:
    """Solve reference models, or read those that exist, and keep the notes on them beside the runs.

    Args:
        cache: the cache of the features.
        plan: the models.
        runs: the folder of all runs.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_bytes: the memory that training may use.
        on_run: called with each record, and whether this call solved it.
    """

    def solve(specs: Sequence[RunSpec], folder: Path, report: OnReference | None) -> SolvedReferences:
        return _solve(cache, specs, folder, device=device, memory_bytes=memory_bytes, on_run=report)

    singles, faults = solve(plan.singles, runs / SINGLES, None)
    best, chosen = _best_single(plan, singles)
    records, more_faults = solve([*plan.runs, *best], runs, on_run)
    notes = [*plan.notes, *chosen, *faults, *more_faults]
    write_reference_notes(runs, notes)
    return SolvedReferences(records, notes)


def _best_single(plan: ReferencePlan, singles: Sequence[RunRecord]) -> tuple[list[RunSpec], list[str]]:
    """Return the models of the best single stream, and the sentence on how it was chosen.

    There are none if they are among the references already, as those of the baseline.
    """
    scores: dict[str, list[float]] = {}
    for record in singles:
        (stream,) = record.spec["features"]["streams"]
        scores.setdefault(stream, []).append(record.history[record.best_epoch - 1][f"val_{_select(record)}"])
    if not scores:
        return [], []
    select = _select(singles[0])
    means = {stream: fmean(of_splits) for stream, of_splits in scores.items()}
    best, *others = sorted(means, key=means.__getitem__, reverse=select != "loss")
    over = f", mean over {len(scores[best])} splits" * (len(scores[best]) > 1)
    second = f"; {others[0]} follows with {means[others[0]]:.3f}" if others else ""
    note = (
        f"The best single stream is {best}: its {MODEL_OF[singles[0].spec['head']['kind']]} has the "
        f"{'lowest' if select == 'loss' else 'highest'} {_SCORES.get(select, select)} on the validation rows "
        f"({means[best]:.3f}{over}{second})."
    )
    of_best = [run for run in plan.singles if run.features.streams == (best,)]
    there = any(run.features == of_best[0].features for run in plan.runs)
    words = f" (best single stream: {best})"
    return [] if there else list(_models(words, of_best[0].features, of_best)), [note]


def _select(record: RunRecord) -> str:
    return str(record.spec["train"]["select"])


def _solve(
    cache: Cache,
    specs: Sequence[RunSpec],
    runs: Path,
    *,
    device: str,
    memory_bytes: int | None,
    on_run: OnReference | None,
) -> SolvedReferences:
    """Solve models together or, if that fails, one by one."""
    if not specs:
        return SolvedReferences([], [])
    solved: dict[int, RunRecord] = {}
    faults: dict[str, list[str]] = {}

    def solve(indices: Sequence[int]) -> None:
        def take(place: int, record: RunRecord, trained_now: bool) -> None:
            if indices[place] not in solved and on_run is not None:
                on_run(record, trained_now)
            solved[indices[place]] = record

        chosen = [specs[index] for index in indices]
        train_runs(cache, chosen, runs, device=device, memory_bytes=memory_bytes, on_run=take)

    try:
        solve(range(len(specs)))
    except _FAILURES:  # one that is too large must not take the others with it
        for name in dict.fromkeys(run.name for run in specs):
            of_model = [index for index, run in enumerate(specs) if run.name == name]
            try:
                solve(of_model)
            except _FAILURES as error:
                for index in of_model:  # a mean over some of the splits would not be comparable
                    solved.pop(index, None)
                faults.setdefault(_reason(error), []).append(name)
    return SolvedReferences([solved[index] for index in sorted(solved)], [_fault(*fault) for fault in faults.items()])


def _fault(reason: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is left out, because it could not be solved: {reason}"
    return f"{', '.join(names[:-1])} and {names[-1]} are left out, because they could not be solved: {reason}"


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
        chosen |= {name: value for name, value in features.variants.get(stream, {}).items() if name == PCA}
        if chosen:
            variants[stream] = chosen
    neutral = next((run.features.neutral_label for run in widest if run.features.neutral_label), None)
    return settled(FeaturesSpec(streams=tuple(streams), variants=variants, neutral_label=neutral), kinds)


def _value(features: FeaturesSpec, stream: str, variant: Variant) -> Value:
    """Return the value of a stream's variant in a run."""
    of_stream = features.variants.get(stream, {})
    return of_stream.get(variant.name, features.factors.get(variant.factor, variant.default))
