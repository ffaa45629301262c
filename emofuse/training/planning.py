"""The plan of a training: which runs share a structure, which of them form a group, and how long each group takes.

A plan depends on the runs, the cache, the memory and the kind of device alone. What a machine was measured to do is for
the estimates that are shown; it moves no run to another group, so an interrupted sweep is cut as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emofuse.errors import TrainingError
from emofuse.progress import format_duration
from emofuse.specs import KernelRidgeHeadSpec, RunSpec
from emofuse.training.costs import TrainingCost, group_operations, head_cost
from emofuse.training.data import FEATURES_SHARE, TrainingData
from emofuse.training.exact import check_vectors, is_exact
from emofuse.training.exact_costs import exact_cost
from emofuse.training.halving import Halving, configurations_of
from emofuse.training.machine import Machine
from emofuse.training.optim import optimizer_key
from emofuse.training.rates import UPDATE_BYTES, Rates, nominal_rates
from emofuse.training.together import group_key
from emofuse.training.validation import eval_rows
from emofuse.training.variants import FeatureVariant

ROW_PASSES = 6
"""How often a step goes through what it keeps of a row: written, read, and the same for its gradient, with copies."""

HEADS_CPU = 25
"""More heads in a group make no head faster on a CPU: once shared work is spread over some twenty of them, what each
reads and writes counts, and more of them leave less of it in the caches."""

LONG_S, SHARED_SHARE = 120.0, 0.1
"""A group that takes longer than this takes no more heads once the work that they share is no more than this part of
its time: more of them would hardly be faster, and more would be lost if it is interrupted."""


LONGEST_S, LONGEST_ALONE = 300.0, 2.0
"""No group takes longer than this, which is what is lost if it is interrupted, or than so many times what its slowest
head takes alone, if that is more: then at least half of the speed of a group without end is kept."""


@dataclass(frozen=True)
class HeadGroup:
    """Runs that train at the same time.

    Attributes:
        members: their indices.
        parameters: of all together.
        memory_bytes: of all together, with their batches and features.
        seconds: estimated.
    """

    members: tuple[int, ...]
    parameters: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Structures of runs that share what `group_key` names, each in one or more groups, one group after another."""

    structures: Mapping[str, tuple[HeadGroup, ...]]
    memory_bytes: int

    @property
    def groups(self) -> tuple[HeadGroup, ...]:
        """All of them, in order."""
        return tuple(group for groups in self.structures.values() for group in groups)

    def __str__(self) -> str:
        groups = self.groups
        heads = sum(len(group.members) for group in groups)
        wide = max([len("structure"), *map(len, self.structures)])
        lines = [
            f"{'structure':<{wide}} {'heads':>6} {'groups':>6} {'parameters':>12} {'most memory':>12} {'about':>9}"
        ]
        for title, own in self.structures.items():
            count, parameters = sum(len(group.members) for group in own), sum(group.parameters for group in own)
            memory = max(group.memory_bytes for group in own)
            seconds = sum(group.seconds for group in own)
            lines.append(
                f"{title:<{wide}} {count:>6} {len(own):>6} {parameters / 1e6:>10.1f} M {memory / 1e9:>9.2f} GB "
                f"{format_duration(seconds):>9}"
            )
        lines.append(
            f"{heads} heads in {len(self.structures)} structures and {len(groups)} groups, about "
            f"{format_duration(sum(group.seconds for group in groups))}, within {self.memory_bytes / 1e9:.2f} GB"
        )
        return "\n".join(lines)


def plan_runs(
    data: TrainingData,
    specs: Sequence[RunSpec],
    *,
    machine: Machine,
    rates: Rates | None = None,
    halving: Halving | None = None,
) -> Plan:
    """Structures runs by `group_key` and cuts each group into groups that fit the memory. Trains and allocates nothing.

    Runs stay in their order. A group ends where the memory does, where more heads bring nothing, or where it would take
    too long; the folds and seeds of a configuration stay in one group unless they are too many for the memory or the
    time. Time is what a common machine takes: by what this one was measured to do, a group would be cut otherwise each
    time that it is measured, and with other neighbours rounding may differ.

    Args:
        data: of the runs' split.
        specs: all of them.
        machine: where they will train.
        rates: of that machine, for the estimates; those of a common one if not measured.
        halving: brackets of it are kept whole.

    Raises:
        SpecError: a stream that is not in the cache.
        TrainingError: folds or splits that the rows do not allow; a run, or a bracket, that does not fit the memory.
    """
    grouped: dict[str, list[int]] = {}
    for index, spec in enumerate(specs):
        grouped.setdefault(group_key(data, spec), []).append(index)
    structures: dict[str, tuple[HeadGroup, ...]] = {}
    for indices in grouped.values():
        if is_exact(specs[indices[0]].head):
            own = [specs[index] for index in indices]
            structures[f"{len(structures) + 1}: {_exact_title(own[0])}"] = (
                _exact_group(data, own, indices, rates or nominal_rates(machine)),
            )
            continue
        structure = _Structure(data, [specs[index] for index in indices], machine, halving)
        groups = structure.groups(rates or nominal_rates(machine))
        title = f"{len(structures) + 1}: {structure.title}"
        structures[title] = tuple(
            HeadGroup(tuple(indices[own] for own in group.members), group.parameters, group.memory_bytes, group.seconds)
            for group in groups
        )
    return Plan(structures, data.memory_bytes)


def _exact_group(data: TrainingData, specs: Sequence[RunSpec], indices: Sequence[int], rates: Rates) -> HeadGroup:
    """Exact heads of one kind are one group: they are solved one after another on matrices that they share."""
    check_vectors(specs[0].head, {variant.name: variant.shape for variant in data.all_variants(specs)})
    cost = exact_cost(data, specs, rates)
    if cost.memory_bytes > data.memory_bytes:
        spec = specs[0]
        raise TrainingError(
            f"{len(specs)} {spec.head.kind} heads (the first: run {spec.name!r}) need {cost.memory_bytes / 1e9:.3g} GB "
            f"with their features, and there are {data.memory_bytes / 1e9:.3g} GB. Give more memory, take fewer streams"
            f"{' or fewer landmarks' if isinstance(spec.head, KernelRidgeHeadSpec) else ''}, or a head that is trained"
        )
    return HeadGroup(tuple(indices), cost.parameters, cost.memory_bytes, cost.seconds)


def _exact_title(spec: RunSpec) -> str:
    head = spec.head.model_dump(exclude={"kind", "penalties"})
    sizes = "".join(f" {name} {value}" for name, value in head.items())
    return f"{spec.head.kind}{sizes}{f', {spec.fold.count} folds' if spec.fold else ''}, solved"


class _Structure:
    """Runs of one `group_key`."""

    def __init__(self, data: TrainingData, specs: Sequence[RunSpec], machine: Machine, halving: Halving | None) -> None:
        self._data = data
        self._specs = specs
        self._machine = machine
        self._halving = halving
        first = specs[0]
        self._streamed = data.window(first) is not None
        self._folds = data.folds(first)
        self._variants_of = [data.features.of(spec.features) for spec in specs]
        self._fold_of = [spec.fold.index if spec.fold else 0 for spec in specs]
        self._settings = [(fold, *optimizer_key(spec.train)) for fold, spec in zip(self._fold_of, specs, strict=True)]
        self._costs = [self._cost(index) for index in range(len(specs))]
        self._alone_s: dict[int, float] = {}
        self._rows = len(set().union(*(fold.train.tolist() for fold in self._folds)))

    @property
    def title(self) -> str:
        spec = self._specs[0]
        head = spec.head.model_dump(exclude={"kind", "dropout"})
        sizes = "".join(f" {name} {value}" for name, value in head.items())
        folds = f", {spec.fold.count} folds" if spec.fold else ""
        return f"{spec.head.kind}{sizes}, batch {spec.train.batch_size}{folds}{', streamed' * self._streamed}"

    def groups(self, rates: Rates) -> list[HeadGroup]:
        groups: list[HeadGroup] = []
        held: list[int] = []
        for unit in self._units():
            if held and not self._may_grow([*held, *unit], held):
                groups.append(self._closed(held, rates))
                held = []
            held += unit
        return [*groups, self._closed(held, rates)]

    def _units(self) -> list[list[int]]:
        """What stays together: a bracket, or the folds and seeds of a configuration; each fits the memory alone."""
        if self._halving is not None:
            units = [[index for own in bracket for index in own] for bracket in self._halving.brackets(self._specs)]
            for unit in units:
                self._check_fits(unit, f"a bracket of {self._halving.bracket} configurations, {len(unit)} heads,")
            return units
        units = []
        for configuration in configurations_of(self._specs):
            if self._fits(configuration) and self._is_bounded(configuration):
                units.append(configuration)
                continue
            for index in configuration:
                spec = self._specs[index]
                self._check_fits([index], f"run {spec.name!r} ({spec.head.kind}, {', '.join(spec.features.streams)})")
                units.append([index])
        return units

    def _may_grow(self, members: Sequence[int], before: Sequence[int]) -> bool:
        """Whether a group of these may take the place of one of fewer."""
        if not self._fits(members):
            return False
        if self._machine.device.type == "cpu" and len(members) > HEADS_CPU:
            return False
        shared, own = self._seconds(before, nominal_rates(self._machine))
        is_worth_it = shared + own <= LONG_S or shared > SHARED_SHARE * (shared + own)
        return is_worth_it and self._is_bounded(members)

    def _is_bounded(self, members: Sequence[int]) -> bool:
        """Whether a group of these is short enough to be lost."""
        rates = nominal_rates(self._machine)
        for index in members:
            if index not in self._alone_s:
                self._alone_s[index] = sum(self._seconds([index], rates))
        slowest = max(self._alone_s[index] for index in members)
        return sum(self._seconds(members, rates)) <= max(LONGEST_S, LONGEST_ALONE * slowest)

    def _fits(self, members: Sequence[int]) -> bool:
        return self._memory(members) <= self._data.memory_bytes and (
            self._streamed or self._feature_bytes(members) <= FEATURES_SHARE * self._data.memory_bytes
        )

    def _check_fits(self, members: Sequence[int], what: str) -> None:
        if not self._fits(members):
            raise TrainingError(
                f"{what} needs {self._memory(members) / 1e9:.3g} GB with its features, and there are "
                f"{self._data.memory_bytes / 1e9:.3g} GB. Give more memory (--memory-gb), or take a smaller head, "
                f"batch{' or bracket' if self._halving else ''}"
            )

    def _closed(self, members: Sequence[int], rates: Rates) -> HeadGroup:
        parameters = sum(self._costs[index].parameters for index in members)
        return HeadGroup(tuple(members), parameters, self._memory(members), sum(self._seconds(members, rates)))

    def _memory(self, members: Sequence[int]) -> int:
        """Bytes of a group.

        Features; weights; the batch of each fold as read, standardised and cast; and what is larger of what a step
        keeps for its backward pass, with as much again for the gradients of it, and what a part of the validation rows
        takes.
        """
        costs = [self._costs[index] for index in members]
        rows = self._specs[0].train.batch_size
        batches = 3 * len(self._used_folds(members)) * rows * self._width(members) * self._machine.dtype.itemsize
        step = 2 * rows * sum(cost.row_bytes for cost in costs)
        evaluated = min(eval_rows(len(members)), self._val_rows(members))
        part = evaluated * len(members) * max(cost.row_bytes for cost in costs)
        features = int(FEATURES_SHARE * self._data.memory_bytes) if self._streamed else self._feature_bytes(members)
        return features + sum(cost.weight_bytes for cost in costs) + batches + max(step, part)

    def _seconds(self, members: Sequence[int], rates: Rates) -> tuple[float, float]:
        """What all heads share, the start of operations and the batches; and their own arithmetic and updates."""
        first, folds = self._specs[0], self._used_folds(members)
        operations = group_operations(first.head, len(self._variants(members)), len(folds))
        settings = len({self._settings[index] for index in members})
        steps = -(-self._rows // first.train.batch_size)
        val_rows = self._val_rows(members)
        parts = -(-val_rows // eval_rows(len(members)))
        starts = steps * operations.derived + parts * operations.forward
        updates = steps * settings * operations.update
        gathered = len(folds) * (self._rows + val_rows) * self._width(members) * 4 * self._machine.dtype.itemsize
        flops = moved = 0.0
        epochs = self._epochs(members)
        for index, share in zip(members, epochs, strict=True):
            cost, trained = self._costs[index], len(self._folds[self._fold_of[index]].train)
            flops += share * (trained * cost.flops_per_row + val_rows * cost.eval_flops_per_row)
            moved += share * (steps * cost.parameters * UPDATE_BYTES + ROW_PASSES * trained * cost.row_bytes)
        longest = max(epochs)
        shared = longest * (starts * rates.operation_s + gathered / rates.bytes_per_s)
        own = flops / rates.flops_per_s + moved / rates.bytes_per_s + longest * updates * rates.operation_s
        return shared, own

    def _epochs(self, members: Sequence[int]) -> list[float]:
        """Epochs of each run: all of them, or as many as it has on average under halving."""
        specs = [self._specs[index] for index in members]
        if self._halving is None:
            return [spec.train.epochs for spec in specs]
        return self._halving.expected_epochs(specs)

    def _cost(self, index: int) -> TrainingCost:
        spec = self._specs[index]
        used = tuple((variant.name, variant.shape) for variant in self._variants_of[index])
        return head_cost(spec.head, used, len(self._data.classes), spec.train.batch_size, self._machine)

    def _variants(self, members: Sequence[int]) -> tuple[FeatureVariant, ...]:
        return tuple(dict.fromkeys(variant for index in members for variant in self._variants_of[index]))

    def _feature_bytes(self, members: Sequence[int]) -> int:
        return self._data.features.nbytes(self._variants(members), self._specs[0].train.views)

    def _width(self, members: Sequence[int]) -> int:
        return sum(variant.dim for variant in self._variants(members))

    def _val_rows(self, members: Sequence[int]) -> int:
        return max(len(self._folds[fold].val) for fold in self._used_folds(members))

    def _used_folds(self, members: Sequence[int]) -> set[int]:
        return {self._fold_of[index] for index in members}
