"""Measure heads a second: the engine beside common ways to train heads, at EmoSet-118K's size.

    python -m benchmarks.heads                  two cores, about 6 minutes, 12 GB of memory, 2.4 GB of temporary disk
    python -m benchmarks.heads --device cuda    the same contenders on a GPU, with CUDA graphs and bfloat16 products
    python -m benchmarks.heads --smoke          the same code in seconds; its numbers mean nothing

All contenders train on the same rows in one run, one after the other and again; a ratio is taken within each round and
its median is reported, so that a machine that is busy for a while slows both sides of it. Beside every time stands the
accuracy on all validation rows. `heads_per_s` counts a head as one epoch over EmoSet-118K's training rows.

`limits` compares the time with what the machine can do: the largest measured speed of matrix products and of memory.
`profile` says where the time goes, by kinds of operations, one epoch on one thread (on a CPU).

Written after each part: `benchmarks/results/heads.json`, or `heads_cuda.json`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import (
    Shape,
    Trained,
    Work,
    dataloader_hdf5,
    emofuse_group,
    member_of,
    plain_loop,
    sklearn_mlp,
    summed_losses,
    write_hdf5,
)
from benchmarks.growth import growth
from benchmarks.head_profile import profile_heads
from benchmarks.limits import Ceilings, limits, memory_bytes
from benchmarks.results_file import RESULTS, write_result
from benchmarks.synthetic import CLASSES, DIMS, TRAIN_ROWS, VAL_ROWS, make_synthetic
from emofuse.machine.devices import resolve_device
from emofuse.training.machine import Machine

Contender = Callable[..., Trained]

CPU_SHAPES: Mapping[str, Shape] = {
    "paper's head, batch 64": Shape(512, 512, 64, train_rows=1536, heads=8),
    "paper's head, batch 1024": Shape(512, 512, 1024, train_rows=4096, heads=4),
    "small head, batch 64": Shape(64, 64, 64, train_rows=1536, heads=32, alone=2),
    "small head, batch 1024": Shape(64, 64, 1024, train_rows=4096, heads=16, alone=2),
}
CUDA_SHAPES: Mapping[str, Shape] = {
    "paper's head, batch 64": Shape(512, 512, 64, train_rows=6400, heads=16),
    "paper's head, batch 1024": Shape(512, 512, 1024, train_rows=20_480, heads=64),
    "small head, batch 64": Shape(64, 64, 64, train_rows=6400, heads=64),
    "small head, batch 1024": Shape(64, 64, 1024, train_rows=20_480, heads=256),
}
GROWTH = {"cpu": (1, 4, 16, 64), "cuda": (1, 4, 16, 64, 256)}
SUMMED_AT_MOST = {"cpu": 16, "cuda": 64}
"""The most heads with summed losses whose memory is measured: with more of them a step takes minutes."""
CPU_GROWTH_BYTES = 12_000_000_000
GOALS = {
    "cpu": {"dataloader_hdf5": 5.0, "plain_loop": 2.0},
    "cuda": {"dataloader_hdf5": 50.0, "plain_loop": 10.0, "summed_losses": 3.0},
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=TRAIN_ROWS, help="training rows of the table (default: EmoSet's)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=["compare", "growth"], default=["compare", "growth"])
    parser.add_argument("--smoke", action="store_true", help="a tiny table and tiny heads")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    arguments = parser.parse_args(argv)

    device = torch.device(resolve_device(arguments.device))
    shapes, counts = CPU_SHAPES if device.type == "cpu" else CUDA_SHAPES, GROWTH[device.type]
    rows, repeats = arguments.rows, arguments.repeats
    if arguments.smoke:
        rows, repeats, counts = min(rows, 320), min(repeats, 2), (1, 3)
        shapes = {name: Shape(8, 8, 64, train_rows=192, heads=3, epochs=2) for name in list(shapes)[:2]}
    name = "_".join(["heads", *(["cuda"] if device.type == "cuda" else []), *(["smoke"] if arguments.smoke else [])])
    numbers = header(device, rows, arguments.smoke)
    say_written = partial(write_result, name, numbers, script="heads", folder=arguments.out)

    if "compare" in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            data = make_synthetic(rows, max(64, VAL_ROWS * rows // TRAIN_ROWS))
            path = Path(folder) / "features.h5"
            write_hdf5(data, path)
            numbers["shapes"] = {}
            for title, shape in shapes.items():
                print(f"\n{title}", flush=True)
                numbers["shapes"][title] = compare(Work(data, shape, device, path), repeats)
                say_written()
        del data
    if "growth" in arguments.parts:
        numbers["growth"] = {}
        for title in list(shapes)[::2]:  # batch 64: at batch 1024 activations rule, which a larger K does not change
            numbers["growth"][title] = points = []
            for heads in counts:
                for contender in ("emofuse", *(["summed_losses"] if heads <= SUMMED_AT_MOST[device.type] else [])):
                    if skip := _too_large(shapes[title], heads, device):
                        points.append({"heads": heads, "contender": contender, "not_measured": skip})
                        continue
                    points.append(growth(replace(shapes[title], train_rows=512), heads, contender, device=device))
                    print(points[-1], flush=True)
                    say_written()
    print(say_written())


def header(device: torch.device, rows: int, smoke: bool) -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "smoke": smoke,
        "table": {"train_rows": rows, "of": TRAIN_ROWS, "scaled_down": rows != TRAIN_ROWS, "features": dict(DIMS)},
    }


def compare(work: Work, repeats: int) -> dict[str, Any]:
    """Train all contenders on one shape, in turn, `repeats` times.

    A contender with two ways to write it runs in both in the first round, and afterwards in the faster one.
    """
    variants = contenders_of(work)
    rounds: dict[str, list[Trained]] = {name: [] for name in variants}
    chosen: dict[str, str] = {}
    tried: dict[str, dict[str, int]] = {}
    machine = Machine(work.device)
    in_bfloat16 = replace(machine, products=torch.bfloat16)
    exact, coarse = [Ceilings.measured(machine)], [Ceilings.measured(in_bfloat16)]
    profiles = {} if work.device.type == "cuda" else profiles_of(work)
    for number in range(repeats):
        for name, ways in variants.items():
            going = [chosen[name]] if name in chosen else list(ways)
            done = {way: ways[way](work, score=number == 0) for way in going}
            best = max(done, key=lambda way: done[way].rows_per_s)
            if number == 0:
                chosen[name] = best
                tried[name] = {way: round(trained.rows_per_s) for way, trained in done.items()}
            rounds[name].append(done[best])
            print(f"  {name:24} {best:28} {done[best].rows_per_s:12,.0f} rows x heads / s", flush=True)
        exact.append(Ceilings.measured(machine))
        coarse.append(Ceilings.measured(in_bfloat16))
    return {
        "shape": asdict(work.shape),
        "rows": {"train": len(work.fold.train), "val": len(work.fold.val), "scored": len(work.data.val)},
        "rounds": repeats,
        "contenders": {
            name: describe(runs, chosen[name], tried[name] if len(tried[name]) > 1 else {})
            for name, runs in rounds.items()
        },
        **ratios(rounds, work.device.type),
        "limits": say_limits(
            {
                name: _limits(work, rounds[name], coarse if "bfloat16" in name else exact, "bfloat16" in name)
                for name in rounds
                if name.startswith("emofuse")
            }
        ),
        "profile": profiles,
    }


def profiles_of(work: Work) -> dict[str, Any]:
    """Return the profile of both ways of emofuse on one thread, on which shares of time are those of the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            name: profile_heads(work, products)
            for name, products in (("emofuse", None), ("emofuse_bfloat16", torch.bfloat16))
        }
    finally:
        torch.set_num_threads(threads)


def say_limits(of_ways: dict[str, Any]) -> dict[str, Any]:
    """Print how far each way is from the limits of the machine, and return them."""
    for name, found in of_ways.items():
        print(
            f"  {name:24} {found['times_the_floor']:.2f} times the floor: products {found['arithmetic_share']:.0%} "
            f"of the time at {found['measured_gflops_per_s']:,.0f} GFLOP/s, optimizer {found['optimizer_share']:.0%} "
            f"at {found['measured_gbytes_per_s']:.0f} GB/s, the rest {found['rest_share']:.0%}",
            flush=True,
        )
    return of_ways


def contenders_of(work: Work) -> dict[str, dict[str, Contender]]:
    """Return name -> the ways in which the contender can run -> a function of (work, score)."""
    fused = {"Adam(fused=True)": True, "Adam()": False}
    contenders: dict[str, dict[str, Contender]] = {
        "dataloader_hdf5": {f"num_workers={n}": partial(dataloader_hdf5, workers=n) for n in (0, 2)},
        "plain_loop": {way: partial(plain_loop, fused=value) for way, value in fused.items()},
        "summed_losses": {"Adam(fused=True)": partial(summed_losses, fused=True)},
    }
    if work.device.type == "cpu" and has_sklearn():
        contenders["sklearn_mlp"] = {"MLPClassifier": sklearn_mlp}
    contenders["emofuse"] = {"float32": partial(emofuse_group, products=None)}
    contenders["emofuse_bfloat16"] = {"bfloat16 products": partial(emofuse_group, products=torch.bfloat16)}
    if work.device.type == "cuda":
        for name, products in (("emofuse_graphs", None), ("emofuse_bfloat16_graphs", torch.bfloat16)):
            contenders[name] = {"CUDA graphs": partial(emofuse_group, products=products, graphs=True)}
    return contenders


def has_sklearn() -> bool:
    """Return whether scikit-learn is installed."""
    try:
        import sklearn.neural_network  # noqa: F401
    except ImportError:
        return False
    return True


def describe(runs: Sequence[Trained], way: str, tried: Mapping[str, int]) -> dict[str, Any]:
    """Return the numbers of one contender over its rounds."""
    speed = [run.rows_per_s for run in runs]
    median = statistics.median(speed)
    accuracies = runs[0].accuracies
    return {
        "way": way,
        **({"tried_rows_per_s": dict(tried)} if tried else {}),
        "heads": runs[0].heads,
        "parameters": runs[0].parameters,
        "rows_per_s": {"median": round(median), "each": [round(value) for value in speed]},
        "heads_per_s": float(f"{median / TRAIN_ROWS:.4g}"),
        "val_accuracy": {
            "mean": round(statistics.mean(accuracies), 4),
            "each": [round(value, 4) for value in accuracies],
        },
    }


def ratios(rounds: Mapping[str, Sequence[Trained]], kind: str) -> dict[str, Any]:
    """Return the ratios of rows x heads a second, each way of emofuse over each other contender, round by round."""
    others = [name for name in rounds if not name.startswith("emofuse")]
    over = {}
    for ours in (name for name in rounds if name.startswith("emofuse")):
        pairs = {
            other: [a.rows_per_s / b.rows_per_s for a, b in zip(rounds[ours], rounds[other], strict=True)]
            for other in others
        }
        over[f"{ours}_over"] = {
            other: {"median": round(statistics.median(each), 2), "each": [round(value, 2) for value in each]}
            for other, each in pairs.items()
        }
    goals = {
        other: {
            "goal": goal,
            "reached": {
                ours.removesuffix("_over"): over[ours][other]["median"] >= goal for ours in over if other in over[ours]
            },
        }
        for other, goal in GOALS[kind].items()
    }
    return {**over, "goals": goals}


def _limits(work: Work, runs: Sequence[Trained], ceilings: Sequence[Ceilings], coarse: bool) -> dict[str, Any]:
    members = [member_of(work.shape, tuple(work.dims), seed) for seed in range(work.shape.heads)]
    return limits(
        members,
        work.dims,
        CLASSES,
        machine=Machine(work.device, products=torch.bfloat16 if coarse else None),
        ceilings=ceilings,
        rows=runs[0].rows,
        seconds=statistics.median(run.seconds for run in runs),
    )


def _too_large(shape: Shape, heads: int, device: torch.device) -> str:
    """Return why this number of heads is not measured here, or an empty text."""
    members = [member_of(shape, tuple(DIMS), 0)] * heads
    needed = memory_bytes(members, DIMS, CLASSES, Machine(device))
    if device.type == "cuda" or needed < CPU_GROWTH_BYTES:
        return ""
    return f"{heads} such heads take {needed / 1e9:.1f} GB, more than the {CPU_GROWTH_BYTES / 1e9:.0f} GB of this part"


if __name__ == "__main__":
    main()
