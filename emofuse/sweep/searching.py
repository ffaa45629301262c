"""The search of a sweep and its choice, on the training and validation rows of a split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from emofuse.cache.reader import Cache
from emofuse.datasets.split_needs import USES
from emofuse.errors import TrainingError
from emofuse.machine.devices import resolve_device
from emofuse.specs import SweepSpec
from emofuse.sweep.choice import Choice, choose
from emofuse.sweep.configurations import StreamType, baseline_streams
from emofuse.sweep.options import Say, SearchPlan, SweepOptions
from emofuse.sweep.rows import ResultsFolder
from emofuse.sweep.search import ConfigurationSearch, SearchResult
from emofuse.sweep.strategies import make_strategy
from emofuse.sweep.summary import describe_losses
from emofuse.sweep.trainers import LocalTrainer, Trainer
from emofuse.training.data import TrainingData
from emofuse.training.machine import Machine, default_memory_bytes
from emofuse.training.rows import run_splits, targets_of


def search_and_choose(
    cache: Cache, spec: SweepSpec, rows: ResultsFolder, options: SweepOptions, *, plan: SearchPlan | None, say: Say
) -> tuple[SweepSpec, SearchResult, Choice]:
    """Search on the training and validation rows of the sweep's split, and choose.

    Returns:
        The sweep with its number of folds, the result of the search, and a choice with finalists.

    Raises:
        TrainingError: every configuration had a run that diverged.
        EmofuseError: a step failed. Finished results are kept.
    """
    spec = with_groups(cache, spec)
    result = _search(cache, spec, rows, options, plan)
    for line in result.describe():
        say(f"search: {line}")
    baseline = baseline_streams(spec, cache.streams) if plan is None or plan.has_baseline else None
    choice = choose(result.scored, spec.select, spec.final.best_of, baseline)
    for note in describe_losses(choice):
        say(f"choice: {note}")
    if not choice.finalists:
        raise TrainingError(
            f"sweep {spec.name!r}: every configuration had a run that diverged, so none can be chosen. "
            "Lower its learning rates"
        )
    return spec, result, choice


@contextmanager
def open_trainer(cache: Cache, spec: SweepSpec, options: SweepOptions) -> Iterator[Trainer]:
    """Open the trainer of a search: this process, or the workers of a scheduler.

    Raises:
        DeviceError: the device does not exist.
        BuildError: the scheduler does not answer, or its workers cannot be used.
    """
    if options.scheduler is not None:
        from emofuse.sweep.cluster import dask_trainer

        with dask_trainer(
            options.scheduler, cache, spec.base, device=options.device, memory_bytes=options.memory_bytes
        ) as workers:
            yield workers
        return
    device = torch.device(resolve_device(options.device))
    memory_bytes = options.memory_bytes or default_memory_bytes(device)
    data = TrainingData.of(
        cache,
        spec.base.split,
        target=spec.base.target,
        weight_column=spec.base.weight_column,
        memory_bytes=memory_bytes,
    )
    yield LocalTrainer(data, Machine.of(device))


def _search(
    cache: Cache, spec: SweepSpec, rows: ResultsFolder, options: SweepOptions, plan: SearchPlan | None
) -> SearchResult:
    """Search; the features are freed at the end, before the finalists are trained."""
    with open_trainer(cache, spec, options) as trainer:
        check_split_rows(trainer.data)
        strategy = plan.make(spec, trainer, rows) if plan else make_strategy(spec, stream_types(cache))
        return ConfigurationSearch(spec, strategy, rows, trainer).run()


def stream_types(cache: Cache) -> dict[str, StreamType]:
    """Return the type of every stream of a cache, in the cache's order."""
    return {name: StreamType.of(stream.kind, stream.layout.shape) for name, stream in cache.streams.items()}


def with_groups(cache: Cache, spec: SweepSpec) -> SweepSpec:
    """Return the sweep with a fold for each group of the training and validation rows, where groups are left out."""
    if spec.folds is None or spec.folds.kind != "leave_one_group_out":
        return spec
    targets = targets_of(cache, spec.base.target, spec.base.weight_column)
    learned = np.isin(run_splits(cache, spec.base.split, targets), ["train", "val"]) & (targets.labels >= 0)
    groups = len(set(cache.groups[learned].tolist()) - {""})
    return spec.model_copy(update={"folds": spec.folds.with_groups(max(groups, 1))})


def check_split_rows(data: TrainingData) -> None:
    """Check, before hours of search, that final runs can be trained and scored. Test targets are not read."""
    lacking, rows = {}, {}
    for split, use in USES.items():
        of_split = data.splits == split
        if split != "test":
            of_split &= data.labels >= 0
        if not (of_split & ~data.features.unreadable(data.features.streams)).any():
            lacking[split], rows[split] = use, int(of_split.sum())
    data.check_splits(lacking, rows)
