"""The plan of a training: which runs share a structure, which of them form a group, and how long each group takes.

A group is bounded by the memory, on a CPU by a number of heads, and by its time. All three depend on the runs, the
cache, the memory and the kind of device alone. What a machine was measured to do serves the estimates that are shown;
it moves no run to another group, so an interrupted sweep is cut as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from emofuse.errors import TrainingError
from emofuse.progress import format_duration
from emofuse.specs import KernelRidgeHeadSpec, RunSpec
from emofuse.training.costs import TrainingCost, group_operations, head_cost, step_bytes, without_dropout
from emofuse.training.data import FEATURES_SHARE, TrainingData
from emofuse.training.exact import check_vectors, is_exact
from emofuse.training.exact_costs import exact_cost
from emofuse.training.halving import Halving, configurations_of
from emofuse.training.machine import Machine
from emofuse.training.optim import optimizer_key
from emofuse.training.rates import UPDATE_BYTES, Rates, nominal_rates
from emofuse.training.refits import RefitRun, epochs_of
from emofuse.training.row_draws import RowSet
from emofuse.training.together import group_key
from emofuse.training.validation import eval_rows
from emofuse.training.variants import FeatureVariant

ROW_PASSES = 6
"""How often a step reads or writes what it keeps of a row: written, read, the same for its gradient, and copies."""

HEADS_CPU = 25
"""On a CPU, more heads in a group make no head faster: once shared work is spread over some twenty of them, what each
reads and writes counts, and more of them leave less of it in the caches."""

LONGEST_S, LONGEST_ALONE = 300.0, 2.0
"""No group takes longer than `LONGEST_S`, the time that is lost if it is interrupted, or than `LONGEST_ALONE` times its
slowest head alone, if that is more: then at least half of the speed of an unbounded group is kept."""

_COPIES_OF_AVERAGES, _COPIES_OF_CLIPPING = 2, 1
"""The further copies of the weights: the averages and what they are exchanged with, the gradients before clipping."""

_COPIES_OF_MIXING = 3
"""The further copies of the embeddings of a row: of its partner, and both times their shares."""

_AGAIN = ", again on train and val"


@dataclass(frozen=True)
class HeadGroup:
    """Runs that train at the same time.

    Attributes:
        members: the indices of the runs.
        parameters: the number of parameters of all runs together.
        memory_bytes: the bytes of all runs together, with their batches and features.
        seconds: the estimated time.
    """

    members: tuple[int, ...]
    parameters: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Which runs train together, group after group.

    Attributes:
        structures: title -> the groups of runs that share a `group_key`.
        memory_bytes: the memory that no group exceeds.
    """

    structures: Mapping[str, tuple[HeadGroup, ...]]
    memory_bytes: int

    @property
    def groups(self) -> tuple[HeadGroup, ...]:
        """All groups, in the order in which they train."""
        return tuple(group for groups in self.structures.values() for group in groups)

    def __str__(self) -> str:
        groups = self.groups
        heads = sum(len(group.members) for group in groups)
        wide = max([len("structure"), *map(len, self.structures)])
        lines = [
            f"{'structure':<{wide}} {'heads':>6} {'groups':>6} {'parameters':>12} {'most memory':>12} {'about':>9}"
        ]
        for title, of_structure in self.structures.items():
            count = sum(len(group.members) for group in of_structure)
            parameters = sum(group.parameters for group in of_structure)
            memory = max(group.memory_bytes for group in of_structure)
            seconds = sum(group.seconds for group in of_structure)
            lines.append(
                f"{title:<{wide}} {count:>6} {len(of_structure):>6} {parameters / 1e6:>10.1f} M "
                f"{memory / 1e9:>9.2f} GB {format_duration(seconds):>9}"
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
    """Sort runs by `group_key` and cut those that share one into groups. Nothing is trained or allocated.

    Runs stay in their order. A group ends where the memory does, where more heads bring nothing, or where it would take
    too long; the folds and seeds of a configuration stay in one group unless they are too many for the memory or the
    time. The time is that of a common machine: by the measured speed of this one, a group would be cut differently each
    time that it is measured, and with other neighbours rounding may differ.

    Args:
        data: of the runs' split.
        specs: all runs.
        machine: where they will train.
        rates: of that machine, for the estimates; those of a common machine if not measured.
        halving: whose brackets are kept whole.

    Raises:
        SpecError: a stream that is not in the cache.
        TrainingError: folds or splits that the rows do not allow; a run, or a bracket, that does not fit the memory.
    """
    rates = rates or nominal_rates(machine)
    by_key: dict[str, list[int]] = {}
    for index, spec in enumerate(specs):
        by_key.setdefault(group_key(data, spec), []).append(index)
    structures: dict[str, tuple[HeadGroup, ...]] = {}
    for number, indices in enumerate(by_key.values(), start=1):
        of_structure = [specs[index] for index in indices]
        if is_exact(of_structure[0].head):
            title, groups = _exact_title(of_structure[0]), [_exact_group(data, of_structure, rates)]
        else:
            structure = _Structure(data, of_structure, machine, halving)
            title, groups = structure.title, structure.groups(rates)
        structures[f"{number}: {title}"] = tuple(
            replace(group, members=tuple(indices[place] for place in group.members)) for group in groups
        )
    return Plan(structures, data.memory_bytes)


def _exact_group(data: TrainingData, specs: Sequence[RunSpec], rates: Rates) -> HeadGroup:
    """Return the one group of all exact heads of a kind: they are solved in turn on matrices that they share."""
    check_vectors(specs[0].head, {variant.name: variant.shape for variant in data.all_variants(specs)})
    cost = exact_cost(data, specs, rates)
    if cost.memory_bytes > data.memory_bytes:
        spec = specs[0]
        raise TrainingError(
            f"{len(specs)} {spec.head.kind} heads (the first: run {spec.name!r}) need {cost.memory_bytes / 1e9:.3g} GB "
            f"with their features, and there are {data.memory_bytes / 1e9:.3g} GB. Give more memory, take fewer streams"
            f"{' or fewer landmarks' if isinstance(spec.head, KernelRidgeHeadSpec) else ''}, or a head that is trained"
        )
    return HeadGroup(tuple(range(len(specs))), cost.parameters, cost.memory_bytes, cost.seconds)


def _exact_title(spec: RunSpec) -> str:
    head = spec.head.model_dump(exclude={"kind", "penalties", "stream_penalties"})
    sizes = "".join(f" {name} {value}" for name, value in head.items())
    folds = f", {spec.fold}" if spec.fold else ""
    return f"{spec.head.kind}{sizes}{folds}{_AGAIN * isinstance(spec, RefitRun)}, solved"


class _Structure:
    """Runs that share a `group_key`, and what a group of some of them costs. A run is named by its place among them."""

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
        self._optimizer_keys = [
            (fold, spec.train.balance, *optimizer_key(spec.train))
            for fold, spec in zip(self._fold_of, specs, strict=True)
        ]
        self._rows = max(len(fold.train) for fold in self._folds)  # of an epoch
        if self._streamed:
            self._rows = len(set().union(*(fold.train.tolist() for fold in self._folds)))
        self._batch_rows = max(1, min(first.train.batch_size, self._rows))
        self._costs = [self._cost(index) for index in range(len(specs))]
        self._alone_s: dict[int, float] = {}

    @property
    def title(self) -> str:
        spec = self._specs[0]
        head = spec.head.model_dump(exclude={"kind", "dropout", "stem_dropout"})
        sizes = "".join(f" {name} {value}" for name, value in head.items())
        folds = f", {spec.fold}" if spec.fold else ""
        again = _AGAIN * isinstance(spec, RefitRun)
        return f"{spec.head.kind}{sizes}, batch {spec.train.batch_size}{folds}{again}{', streamed' * self._streamed}"

    def groups(self, rates: Rates) -> list[HeadGroup]:
        """Return all runs in groups, each as large as the bounds allow."""
        groups: list[HeadGroup] = []
        open_group: list[int] = []
        for unit in self._units():
            if open_group and not self._is_allowed([*open_group, *unit]):
                groups.append(self._group(open_group, rates))
                open_group = []
            open_group += unit
        return [*groups, self._group(open_group, rates)]

    def _units(self) -> list[list[int]]:
        """Return the runs that stay together: a bracket, or the folds and seeds of a configuration.

        A configuration that is too large for the memory, or takes too long, is cut into its runs.
        """
        if self._halving is not None:
            brackets = self._halving.brackets(self._specs)
            units = [[index for configuration in bracket for index in configuration] for bracket in brackets]
            for unit in units:
                self._check_fits(unit, f"a bracket of {self._halving.bracket} configurations, {len(unit)} heads,")
            return units
        units = []
        for configuration in configurations_of(self._specs):
            if self._fits(configuration) and self._is_short(configuration):
                units.append(configuration)
                continue
            for index in configuration:
                spec = self._specs[index]
                self._check_fits([index], f"run {spec.name!r} ({spec.head.kind}, {', '.join(spec.features.streams)})")
                units.append([index])
        return units

    def _is_allowed(self, members: Sequence[int]) -> bool:
        """Return whether a group of several units may have these members."""
        if self._machine.device.type == "cpu" and len(members) > HEADS_CPU:
            return False
        return self._fits(members) and self._is_short(members)

    def _is_short(self, members: Sequence[int]) -> bool:
        """Return whether a group of these members takes no longer than one may lose."""
        rates = nominal_rates(self._machine)
        for index in members:
            if index not in self._alone_s:
                self._alone_s[index] = self._seconds([index], rates)
        slowest = max(self._alone_s[index] for index in members)
        return self._seconds(members, rates) <= max(LONGEST_S, LONGEST_ALONE * slowest)

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

    def _group(self, members: Sequence[int], rates: Rates) -> HeadGroup:
        parameters = sum(self._costs[index].parameters for index in members)
        return HeadGroup(tuple(members), parameters, self._memory(members), self._seconds(members, rates))

    def _memory(self, members: Sequence[int]) -> int:
        """Return the bytes of a group: features, and the larger of what a step and what a part of validation takes."""
        costs = [self._costs[index] for index in members]
        rows, folds = self._batch_rows, len(self._row_sets(members))
        step = step_bytes(costs, rows, folds=folds, width=self._width(members), machine=self._machine)
        evaluated = min(eval_rows(len(members)), self._val_rows(members))
        part = evaluated * len(members) * max(cost.row_bytes for cost in costs)
        kept_of_step = 2 * rows * sum(cost.row_bytes for cost in costs)
        features = int(FEATURES_SHARE * self._data.memory_bytes) if self._streamed else self._feature_bytes(members)
        return features + step + max(0, part - kept_of_step)

    def _seconds(self, members: Sequence[int], rates: Rates) -> float:
        """Return the time of a group: its operations, its batches, and the arithmetic and memory of each head."""
        first, folds = self._specs[0], self._row_sets(members)
        shapes = tuple(sorted((2,) if len(v.shape) == 1 else v.shape for v in self._variants(members)))
        operations = group_operations(without_dropout(first.head), shapes, len(folds))
        optimizer_calls = len({self._optimizer_keys[index] for index in members})
        steps = -(-self._rows // first.train.batch_size)
        val_rows = self._val_rows(members)
        parts = -(-val_rows // eval_rows(len(members)))
        started = steps * (operations.step + optimizer_calls * operations.update) + parts * operations.forward
        gathered = len(folds) * (self._rows + val_rows) * self._width(members) * 4 * self._machine.dtype.itemsize
        flops = moved = 0.0
        epochs = self._epochs(members)
        for index, of_head in zip(members, epochs, strict=True):
            cost, trained = self._costs[index], len(self._folds[self._fold_of[index]].train)
            flops += of_head * (trained * cost.flops_per_row + val_rows * cost.eval_flops_per_row)
            moved += of_head * (steps * cost.parameters * UPDATE_BYTES + ROW_PASSES * trained * cost.row_bytes)
        moved += max(epochs) * gathered
        return max(epochs) * started * rates.operation_s + flops / rates.flops_per_s + moved / rates.bytes_per_s

    def _epochs(self, members: Sequence[int]) -> list[float]:
        """Return the epochs of each run: all of them, or with halving the mean over its bracket."""
        specs = [self._specs[index] for index in members]
        if self._halving is None:
            return [epochs_of(spec) for spec in specs]
        return self._halving.expected_epochs(specs)

    def _cost(self, index: int) -> TrainingCost:
        spec = self._specs[index]
        shapes = self._data.head_shapes(spec)
        used = tuple((variant.name, shapes[variant.stream]) for variant in self._variants_of[index])
        cost = head_cost(without_dropout(spec.head), used, len(self._data.classes), self._batch_rows, self._machine)
        item = self._machine.dtype.itemsize
        copies = _COPIES_OF_AVERAGES * bool(spec.train.ema) + _COPIES_OF_CLIPPING * bool(spec.train.clip_norm)
        mixed = len(used) * getattr(spec.head, "embed_dim", len(self._data.classes)) if spec.train.mixup else 0
        return replace(
            cost,
            weight_bytes=cost.weight_bytes + copies * cost.parameters * item,
            row_bytes=cost.row_bytes + _COPIES_OF_MIXING * mixed * item,
        )

    def _variants(self, members: Sequence[int]) -> tuple[FeatureVariant, ...]:
        return tuple(dict.fromkeys(variant for index in members for variant in self._variants_of[index]))

    def _feature_bytes(self, members: Sequence[int]) -> int:
        return self._data.features.nbytes(self._variants(members), self._specs[0].train.views)

    def _width(self, members: Sequence[int]) -> int:
        return sum(variant.dim for variant in self._variants(members))

    def _val_rows(self, members: Sequence[int]) -> int:
        return max(len(self._folds[fold].val) for fold, _ in self._row_sets(members))

    def _row_sets(self, members: Sequence[int]) -> set[RowSet]:
        return {RowSet(self._fold_of[index], self._specs[index].train.balance) for index in members}
