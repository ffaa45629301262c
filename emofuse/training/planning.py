"""What will train together, before anything does: groups by shape, waves by memory and time, about how long it takes.

A plan depends on the runs, the cache, the memory and the kind of device alone. What a machine was measured to do is for
the estimates that are shown; it moves no run to another wave, so an interrupted sweep is cut as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emofuse.errors import TrainingError
from emofuse.progress import format_duration
from emofuse.specs import KernelRidgeHeadSpec, RunSpec
from emofuse.training.columns import Column
from emofuse.training.costs import Cost, group_operations, head_cost
from emofuse.training.data import FEATURES_SHARE, TrainingData
from emofuse.training.exact import check_vectors, is_exact
from emofuse.training.exact_costs import exact_cost
from emofuse.training.halving import Halving, configurations_of
from emofuse.training.machine import Machine
from emofuse.training.optim import setting
from emofuse.training.rates import UPDATE_BYTES, Rates, nominal_rates
from emofuse.training.validation import eval_rows
from emofuse.training.wave import wave_key

ROW_PASSES = 6
"""How often a step goes through what it keeps of a row: written, read, and the same for its gradient, with copies."""

HEADS_CPU = 25
"""More heads in a wave make no head faster on a CPU: once shared work is spread over some twenty of them, what each
reads and writes counts, and more of them leave less of it in the caches."""

LONG_S, SHARED_SHARE = 120.0, 0.1
"""A wave that takes longer than this takes no more heads once the work that they share is no more than this part of its
time: more of them would hardly be faster, and more would be lost if it is interrupted."""


LONGEST_S, LONGEST_ALONE = 300.0, 2.0
"""No wave takes longer than this, which is what is lost if it is interrupted, or than so many times what its slowest
head takes alone, if that is more: then at least half of the speed of a wave without end is kept."""


@dataclass(frozen=True)
class Wave:
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
    """Groups of runs that share what `wave_key` names, each in one or more waves, one wave after another."""

    groups: Mapping[str, tuple[Wave, ...]]
    memory_bytes: int

    @property
    def waves(self) -> tuple[Wave, ...]:
        """All of them, in order."""
        return tuple(wave for waves in self.groups.values() for wave in waves)

    def __str__(self) -> str:
        waves = self.waves
        heads = sum(len(wave.members) for wave in waves)
        wide = max([len("group"), *map(len, self.groups)])
        lines = [f"{'group':<{wide}} {'heads':>6} {'waves':>6} {'parameters':>12} {'most memory':>12} {'about':>9}"]
        for title, own in self.groups.items():
            count, parameters = sum(len(wave.members) for wave in own), sum(wave.parameters for wave in own)
            memory = max(wave.memory_bytes for wave in own)
            seconds = sum(wave.seconds for wave in own)
            lines.append(
                f"{title:<{wide}} {count:>6} {len(own):>6} {parameters / 1e6:>10.1f} M {memory / 1e9:>9.2f} GB "
                f"{format_duration(seconds):>9}"
            )
        lines.append(
            f"{heads} heads in {len(self.groups)} groups and {len(waves)} waves, about "
            f"{format_duration(sum(wave.seconds for wave in waves))}, within {self.memory_bytes / 1e9:.2f} GB"
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
    """Groups runs by `wave_key` and cuts each group into waves that fit the memory. Trains and allocates nothing.

    Runs stay in their order. A wave ends where the memory does, where more heads bring nothing, or where it would take
    too long; the folds and seeds of a configuration stay in one wave unless they are too many for the memory or the
    time. Time is what a common machine takes: by what this one was measured to do, a wave would be cut otherwise each
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
        grouped.setdefault(wave_key(data, spec), []).append(index)
    groups: dict[str, tuple[Wave, ...]] = {}
    for indices in grouped.values():
        if is_exact(specs[indices[0]].head):
            own = [specs[index] for index in indices]
            groups[f"{len(groups) + 1}: {_exact_title(own[0])}"] = (
                _exact_wave(data, own, indices, rates or nominal_rates(machine)),
            )
            continue
        group = _Group(data, [specs[index] for index in indices], machine, halving)
        waves = group.waves(rates or nominal_rates(machine))
        title = f"{len(groups) + 1}: {group.title}"
        groups[title] = tuple(
            Wave(tuple(indices[own] for own in wave.members), wave.parameters, wave.memory_bytes, wave.seconds)
            for wave in waves
        )
    return Plan(groups, data.memory_bytes)


def _exact_wave(data: TrainingData, specs: Sequence[RunSpec], indices: Sequence[int], rates: Rates) -> Wave:
    """Exact heads of one kind are one wave: they are solved one after another on matrices that they share."""
    check_vectors(specs[0].head, {column.name: column.shape for column in data.all_columns(specs)})
    cost = exact_cost(data, specs, rates)
    if cost.memory_bytes > data.memory_bytes:
        spec = specs[0]
        raise TrainingError(
            f"{len(specs)} {spec.head.kind} heads (the first: run {spec.name!r}) need {cost.memory_bytes / 1e9:.3g} GB "
            f"with their features, and there are {data.memory_bytes / 1e9:.3g} GB. Give more memory, take fewer streams"
            f"{' or fewer landmarks' if isinstance(spec.head, KernelRidgeHeadSpec) else ''}, or a head that is trained"
        )
    return Wave(tuple(indices), cost.parameters, cost.memory_bytes, cost.seconds)


def _exact_title(spec: RunSpec) -> str:
    head = spec.head.model_dump(exclude={"kind", "penalties"})
    sizes = "".join(f" {name} {value}" for name, value in head.items())
    return f"{spec.head.kind}{sizes}{f', {spec.fold.count} folds' if spec.fold else ''}, solved"


class _Group:
    """Runs of one `wave_key`."""

    def __init__(self, data: TrainingData, specs: Sequence[RunSpec], machine: Machine, halving: Halving | None) -> None:
        self._data = data
        self._specs = specs
        self._machine = machine
        self._halving = halving
        first = specs[0]
        self._streamed = data.window(first) is not None
        self._folds = data.folds(first)
        self._columns_of = [data.columns.of(spec.features) for spec in specs]
        self._fold_of = [spec.fold.index if spec.fold else 0 for spec in specs]
        self._settings = [(fold, *setting(spec.train)) for fold, spec in zip(self._fold_of, specs, strict=True)]
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

    def waves(self, rates: Rates) -> list[Wave]:
        waves: list[Wave] = []
        held: list[int] = []
        for unit in self._units():
            if held and not self._may_grow([*held, *unit], held):
                waves.append(self._closed(held, rates))
                held = []
            held += unit
        return [*waves, self._closed(held, rates)]

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
        """Whether a wave of these may take the place of one of fewer."""
        if not self._fits(members):
            return False
        if self._machine.device.type == "cpu" and len(members) > HEADS_CPU:
            return False
        shared, own = self._seconds(before, nominal_rates(self._machine))
        is_worth_it = shared + own <= LONG_S or shared > SHARED_SHARE * (shared + own)
        return is_worth_it and self._is_bounded(members)

    def _is_bounded(self, members: Sequence[int]) -> bool:
        """Whether a wave of these is short enough to be lost."""
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

    def _closed(self, members: Sequence[int], rates: Rates) -> Wave:
        parameters = sum(self._costs[index].parameters for index in members)
        return Wave(tuple(members), parameters, self._memory(members), sum(self._seconds(members, rates)))

    def _memory(self, members: Sequence[int]) -> int:
        """Bytes of a wave.

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
        operations = group_operations(first.head, len(self._columns(members)), len(folds))
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

    def _cost(self, index: int) -> Cost:
        spec = self._specs[index]
        used = tuple((column.name, column.shape) for column in self._columns_of[index])
        return head_cost(spec.head, used, len(self._data.classes), spec.train.batch_size, self._machine)

    def _columns(self, members: Sequence[int]) -> tuple[Column, ...]:
        return tuple(dict.fromkeys(column for index in members for column in self._columns_of[index]))

    def _feature_bytes(self, members: Sequence[int]) -> int:
        return self._data.columns.nbytes(self._columns(members), self._specs[0].train.views)

    def _width(self, members: Sequence[int]) -> int:
        return sum(column.dim for column in self._columns(members))

    def _val_rows(self, members: Sequence[int]) -> int:
        return max(len(self._folds[fold].val) for fold in self._used_folds(members))

    def _used_folds(self, members: Sequence[int]) -> set[int]:
        return {self._fold_of[index] for index in members}
