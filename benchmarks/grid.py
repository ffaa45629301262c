"""Time the two jobs that the engine was built for on one GPU, with and without CUDA graphs and bfloat16 products.

    python -m benchmarks.grid --device cuda           up to 17 minutes; `--parts five`, `--parts grid` one by one
    python -m benchmarks.grid --smoke                 the same code in seconds, also on a CPU; its numbers mean nothing

- `modes`: some epochs of both jobs with and without CUDA graphs, in float32 and with bfloat16 products: time and
  accuracy side by side.
- `five`: the five configurations of `pipelines/emoset118k.yaml`, 100 epochs, all at batch 64, in the fastest of these
  modes. Goal: 30 s.
- `grid`: the search of `pipelines/paper_grid.yaml`, 540 configurations in five folds, 2,700 heads, 30 epochs at batch
  1024. Goal: 600 s.

Features are synthetic (`benchmarks.synthetic`), of EmoSet-118K's size. The result is written after each part, and in
`grid` after each group: `benchmarks/results/grid.json`. If the time limit ends a grid early, the result says so, with
the time for all groups estimated by the arithmetic that is left.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import Clock
from benchmarks.limits import Ceilings, cost_of, limits, memory_bytes
from benchmarks.results_file import RESULTS, write_result
from benchmarks.synthetic import CLASSES, DIMS, TRAIN_ROWS, VAL_ROWS, Synthetic, make_synthetic
from emofuse.heads.members import variant_of
from emofuse.machine.devices import resolve_device
from emofuse.specs import ConcatHeadSpec, RunSpec, SweepSpec, TrainSpec, read_pipeline_spec, read_sweep_spec
from emofuse.training.engine import train_group
from emofuse.training.machine import Machine
from emofuse.training.members import FeatureTable, Fold, Member, MemberResult, StopRule

FIVE_GOAL_S, GRID_GOAL_S = 30.0, 600.0
MEMORY_SHARE = 0.8
"""The share of the free memory of the device for groups, since the count of bytes is an estimate."""


@dataclass(frozen=True)
class Job:
    """Members that train together on one table.

    Attributes:
        table: the rows.
        folds: the folds.
        members: the members of one group.
    """

    table: FeatureTable
    folds: Sequence[Fold]
    members: Sequence[Member]

    @property
    def dims(self) -> dict[str, int]:
        """Stream -> D."""
        return vector_widths(self.table)

    def lasting(self, epochs: int) -> Job:
        """Return the same job with this number of epochs."""
        trains = [member.train.model_copy(update={"epochs": epochs}) for member in self.members]
        return replace(self, members=[replace(m, train=t) for m, t in zip(self.members, trains, strict=True)])


@dataclass(frozen=True)
class Sizes:
    """How much of everything is trained."""

    rows: int
    embed_dim: int
    depths: Sequence[int]
    widths: Sequence[int]
    folds: int
    five_epochs: int
    grid_epochs: int
    five_batch: int
    grid_batch: int
    mode_epochs: int = 3

    @classmethod
    def of_paper(cls) -> Sizes:
        """Return the sizes of the paper's two jobs."""
        search, runs = paper_search(), paper_runs()
        return cls(
            rows=TRAIN_ROWS,
            embed_dim=search.base.head.embed_dim,
            depths=search.factors.depth,
            widths=search.factors.width,
            folds=search.folds.count,
            five_epochs=max(run.train.epochs for run in runs),
            grid_epochs=search.base.train.epochs,
            five_batch=max(run.train.batch_size for run in runs),
            grid_batch=search.base.train.batch_size,
        )


@cache
def paper_runs() -> tuple[RunSpec, ...]:
    """Return the paper's five configurations."""
    return read_pipeline_spec("emoset118k").runs


@cache
def paper_search() -> SweepSpec:
    """Return the paper's search."""
    return read_sweep_spec("paper_grid")


SMOKE = Sizes(320, 8, (1,), (8,), folds=2, five_epochs=3, grid_epochs=2, five_batch=64, grid_batch=128, mode_epochs=2)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", choices=["modes", "five", "grid"], default=["modes", "five", "grid"])
    parser.add_argument("--five-budget-s", type=float, default=300.0, help="after which the five begin no other epoch")
    parser.add_argument("--budget-s", type=float, default=700.0, help="after which the grid begins no other group")
    parser.add_argument("--smoke", action="store_true", help="few rows and tiny heads")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    arguments = parser.parse_args(argv)
    device = torch.device(resolve_device(arguments.device))
    if device.type == "cpu" and not arguments.smoke:
        parser.error("2,700 heads of the paper's size ask for a GPU: use --device cuda, or --smoke to try the code")
    sizes = SMOKE if arguments.smoke else Sizes.of_paper()
    numbers: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "smoke": arguments.smoke,
        "table": {"train_rows": sizes.rows, "of": TRAIN_ROWS, "scaled_down": sizes.rows != TRAIN_ROWS},
    }
    name = "grid_smoke" if arguments.smoke else "grid"
    written = partial(write_result, name, numbers, script="grid", folder=arguments.out)

    five, modes = five_job(sizes), modes_of(device)
    if "modes" in arguments.parts:
        part = grid_part(sizes)
        numbers["modes"] = {
            "five configurations": compare_modes(five, modes, sizes.mode_epochs),
            "part of the grid": compare_modes(part, modes, sizes.mode_epochs),
        }
        del part
        written()
    fastest = fastest_modes(numbers.get("modes", {}), modes)
    if "five" in arguments.parts:
        job = five.lasting(sizes.five_epochs)
        numbers["five"] = run_five(job, *fastest["five configurations"], budget_s=arguments.five_budget_s)
        written()
    del five
    if "grid" in arguments.parts:
        for so_far in run_grid(sizes, *fastest["part of the grid"], budget_s=arguments.budget_s):
            numbers["grid"] = so_far
            written()
    print(written())


def modes_of(device: torch.device) -> dict[str, Machine]:
    """Return the ways to run a step; the last one is expected to be the fastest."""
    plain = {
        "float32": Machine(device),
        "bfloat16 products": Machine(device, products=torch.bfloat16),
    }
    if device.type == "cpu":
        return plain
    return plain | {f"{name}, CUDA graphs": replace(machine, graphs=True) for name, machine in plain.items()}


def five_job(sizes: Sizes) -> Job:
    """Return the paper's five configurations as one group, which takes one batch size and one width."""
    data = _synthetic(sizes, DIMS)
    width = {"embed_dim": sizes.embed_dim, "width": sizes.embed_dim}
    length = {"epochs": sizes.five_epochs, "batch_size": sizes.five_batch}
    members = [
        Member(run.features.streams, run.head.model_copy(update=width), run.train.model_copy(update=length))
        for run in paper_runs()
    ]
    return Job(data.table, [data.fold(data.train_rows)], members)


def grid_data(sizes: Sizes) -> tuple[FeatureTable, list[Fold]]:
    """Return the streams of the paper's search, two of them in variants, and its folds."""
    factors = paper_search().factors
    dims = {
        **{variant_of("lbp", bins): bins for bins in factors.variants["lbp_bins"]},
        **{variant_of("action_units", units): units for units in factors.variants["action_units"]},
        "places365": DIMS["places365"],
        "resnet50": DIMS["resnet50"],
    }
    data = _synthetic(sizes, dims)
    return data.table, data.folds(sizes.folds)


def grid_members(sizes: Sizes) -> dict[str, list[Member]]:
    """Return the shape of the head -> its configurations, each in all folds."""
    factors = paper_search().factors
    variants = product(factors.variants["lbp_bins"], factors.variants["action_units"])
    choices = list(product(variants, factors.learning_rate, range(sizes.folds)))
    return {
        f"depth {depth}, width {width}": [
            Member(
                (variant_of("lbp", bins), variant_of("action_units", units), "places365", "resnet50"),
                ConcatHeadSpec(embed_dim=sizes.embed_dim, depth=depth, width=width),
                TrainSpec(epochs=sizes.grid_epochs, batch_size=sizes.grid_batch, learning_rate=rate),
                fold,
            )
            for (bins, units), rate, fold in choices
        ]
        for depth, width in product(sizes.depths, sizes.widths)
    }


def grid_part(sizes: Sizes) -> Job:
    """Return a part of one shape of the grid: every learning rate and fold with two choices of variants."""
    table, folds = grid_data(sizes)
    members = next(iter(grid_members(sizes).values()))
    chosen = {members[0].streams, members[-1].streams}
    return Job(table, folds, [member for member in members if member.streams in chosen])


def compare_modes(job: Job, modes: Mapping[str, Machine], epochs: int) -> dict[str, Any]:
    """Train in every mode for some epochs, and return the seconds of one and the accuracy."""
    modes_measured = {}
    for name, machine in modes.items():
        results, clock, peak = train(job.lasting(epochs), machine)
        modes_measured[name] = {
            "heads": len(job.members),
            "epochs": epochs,
            "seconds_per_epoch": round(clock.seconds / (epochs - 1), 4),
            "peak_bytes": peak,
            "val_accuracy": accuracy(results),
            "limits": _limits(job, machine, clock.seconds, epochs - 1),
        }
        print(f"{name:32} {modes_measured[name]['seconds_per_epoch']:10.3f} s an epoch", flush=True)
    return modes_measured


def fastest_modes(modes_measured: Mapping[str, Any], modes: Mapping[str, Machine]) -> dict[str, tuple[str, Machine]]:
    """Return for each job the mode that took the least time, or the last one if none was measured."""
    chosen = {}
    for job in ("five configurations", "part of the grid"):
        measured = modes_measured.get(job, {list(modes)[-1]: {"seconds_per_epoch": 0.0}})
        name = min(measured, key=lambda mode: measured[mode]["seconds_per_epoch"])
        chosen[job] = (name, modes[name])
    return chosen


def run_five(job: Job, mode: str, machine: Machine, *, budget_s: float = math.inf) -> dict[str, Any]:
    """Train the five configurations to their end; the time includes the copy of the table to the device.

    After the budget no further epoch begins, and the time of all epochs is estimated by those that are done.
    """
    start = time.perf_counter()
    results, _, peak = train(
        job, machine, lambda _, states: range(len(states)) if time.perf_counter() - start > budget_s else ()
    )
    seconds = time.perf_counter() - start
    epochs, done = job.members[0].train.epochs, results[0].last_epoch
    print(f"five configurations: {done} epochs in {seconds:.1f} s", flush=True)
    return {
        "mode": mode,
        "epochs": epochs,
        "epochs_done": done,
        "batch_size": job.members[0].train.batch_size,
        "seconds": _four_digits(seconds),
        "seconds_for_all": _four_digits(seconds * epochs / done),
        "goal_s": FIVE_GOAL_S,
        "peak_bytes": peak,
        "limits": _limits(job, machine, seconds, done),
        "configurations": [
            {"streams": list(member.streams), "val_accuracy": accuracy([result]), "best_epoch": result.best_epoch}
            for member, result in zip(job.members, results, strict=True)
        ],
    }


def run_grid(sizes: Sizes, mode: str, machine: Machine, *, budget_s: float) -> Iterator[dict[str, Any]]:
    """Train the whole search, group after group, and yield the result so far after each."""
    table, folds = grid_data(sizes)
    memory = _memory_for_groups(table, machine)
    groups = [
        (shape, group)
        for shape, of_shape in grid_members(sizes).items()
        for group in groups_of(of_shape, vector_widths(table), machine, memory)
    ]
    work = [
        sum(cost_of(member, vector_widths(table), CLASSES, machine).flops_per_row for member in group)
        for _, group in groups
    ]
    done: list[dict[str, Any]] = []
    for number, (shape, group) in enumerate(groups):
        job = Job(table, folds, group)
        start = time.perf_counter()
        results, _, peak = train(job, machine)
        seconds = time.perf_counter() - start
        done.append(
            {
                "shape": shape,
                "heads": len(group),
                "seconds": round(seconds, 2),
                "counted_bytes": memory_bytes(group, vector_widths(table), CLASSES, machine),
                "peak_bytes": peak,
                "best_val_accuracy": accuracy(results)["highest"],
                "limits": _limits(job, machine, seconds, sizes.grid_epochs),
            }
        )
        taken = sum(entry["seconds"] for entry in done)
        heads, total = sum(entry["heads"] for entry in done), sum(len(of_shape) for _, of_shape in groups)
        print(f"{shape}: {len(group)} heads in {seconds:.1f} s; {heads} of {total}", flush=True)
        yield {
            "mode": mode,
            "epochs": sizes.grid_epochs,
            "batch_size": sizes.grid_batch,
            "folds": sizes.folds,
            "heads": total,
            "heads_done": heads,
            "seconds": round(taken, 1),
            "seconds_for_all": round(taken * sum(work) / sum(work[: number + 1]), 1),
            "finished": heads == total,
            "goal_s": GRID_GOAL_S,
            "heads_per_s": _four_digits(heads / taken),
            "groups": done,
        }
        if taken > budget_s:
            return


def _four_digits(value: float) -> float:
    """Return the value with four significant digits, so that a short time keeps its ratio to others."""
    return float(f"{value:.4g}")


def vector_widths(table: FeatureTable) -> dict[str, int]:
    """Return stream -> D: all streams of the grid are vectors."""
    return {stream: dim for stream, (dim,) in table.dims.items()}


def groups_of(members: Sequence[Member], dims: Mapping[str, int], machine: Machine, memory: int) -> list[list[Member]]:
    """Return the members in order, as many in a group as fit the memory, at least one."""
    groups: list[list[Member]] = [[]]
    for member in members:
        if groups[-1] and memory_bytes([*groups[-1], member], dims, CLASSES, machine) > memory:
            groups.append([])
        groups[-1].append(member)
    return groups


def train(
    job: Job, machine: Machine, stop_rule: StopRule | None = None
) -> tuple[list[MemberResult], Clock, int | None]:
    """Return the results, the clock of epochs, and on CUDA the largest memory that torch held."""
    clock, on_cuda = Clock(), machine.device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(machine.device)
    done: Callable[..., None] = lambda *_: clock.epoch_done()  # noqa: E731
    results = train_group(job.table, job.folds, job.members, machine, on_epoch=done, stop_rule=stop_rule)
    return results, clock, torch.cuda.max_memory_allocated(machine.device) if on_cuda else None


def accuracy(results: Sequence[MemberResult]) -> dict[str, float]:
    """Return the accuracy on validation rows of each head's best epoch."""
    values = [result.history[result.best_epoch - 1]["val_accuracy"] for result in results if result.best_epoch]
    return {
        "mean": round(statistics.mean(values), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
    }


def _limits(job: Job, machine: Machine, seconds: float, epochs: int) -> dict[str, Any]:
    rows = round(epochs * statistics.mean(len(job.folds[member.fold].train) for member in job.members))
    return limits(
        job.members,
        job.dims,
        CLASSES,
        machine=machine,
        ceilings=[Ceilings.measured(machine)],
        rows=rows,
        seconds=seconds,
    )


def _memory_for_groups(table: FeatureTable, machine: Machine) -> int:
    if machine.device.type == "cpu":  # a smoke test: little enough for more than one group
        return 40_000_000
    torch.cuda.empty_cache()
    table_bytes = sum(tensor.nbytes for tensor in table.features.values())
    return int(MEMORY_SHARE * torch.cuda.mem_get_info(machine.device)[0]) - table_bytes


def _synthetic(sizes: Sizes, dims: Mapping[str, int]) -> Synthetic:
    return make_synthetic(sizes.rows, max(64, VAL_ROWS * sizes.rows // TRAIN_ROWS), dims)


if __name__ == "__main__":
    main()
