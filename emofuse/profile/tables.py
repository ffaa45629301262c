"""Writes a profile as tables: Markdown to read, CSV to compute with, JSON with everything."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emofuse.profile.figures import ConfigurationFigures, Epoch, MeasuredCost, Peak, Profile, Timing

NOT_COUNTED = "not counted"
MIB = 2**20

METHOD = """\
- **Parameters** are those of the torch networks as they run: extractors without their classifier, YOLO with its batch
  norms folded in. The parameters of extractors are frozen; those of the head are trained. **MiB** are parameters and
  buffers in the type they run in, and the model files of the face detector. (The paper's 89.7 "MB" of a ResNet-50 are
  MiB.)
- **FLOPs** are counted for one image by torch's `FlopCounterMode` on a real forward pass: matrix products and
  convolutions. One multiplication with its addition is 2 FLOP, or 1 MAC; the paper's 4.13 "GFLOPs" of ResNet-50 are
  GMAC. Work outside of torch networks (face detector, LBP, landmarks, action units) is not counted, which is not zero.
  Networks are counted on a square image, YOLO on a square of its full input size, heads on sequences of full length.
- **Times** are the median (95th percentile) of wall clock times on a monotonic clock, after a warm-up, with the GPU
  waited for; JSON and CSV state the repeats. *Head*: from standardised features on the device to probabilities in main
  memory. *Whole path*: from the file of an image in the page cache to its probabilities, one call after another in one
  process, as in `emofuse predict`: each image is decoded once and its face found once for all streams. At batch 64 the
  time of a call is divided by its images.
- **Memory** is the peak of a process that measured this configuration alone: its resident set, with Python and
  libraries (*before models* is the part of these), and on a GPU the peak of torch's allocations. Training holds the
  features of all its rows.
- **An epoch** is all steps over the training rows, then validation, as in a run, without reading the cache. For a
  `logistic` or `kernel_ridge` head it is the whole solution, which takes all rows at once. *Rows extracted* is the time
  that one process takes to extract the training rows once for all epochs: their number times the time of an image in a
  batch of the whole path.
- **Of an ensemble**, every figure is that of all its heads together."""


def write_profile(profile: Profile, folder: Path) -> list[Path]:
    """Write `profile.json`, `profile.csv` and `profile.md` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"profile.{suffix}" for suffix in ("json", "csv", "md")]
    paths[0].write_text(json.dumps(profile.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [csv_row(configuration) for configuration in profile.configurations]
    with paths[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    paths[2].write_text(as_markdown(profile) + f"\n\n## How it was measured\n\n{METHOD}\n", encoding="utf-8")
    return paths


def csv_row(figures: ConfigurationFigures) -> dict[str, Any]:
    """Return one row of `profile.csv`: bytes, FLOPs, milliseconds of whole calls, seconds of epochs."""
    path, head = figures.path, figures.head
    row: dict[str, Any] = {
        "configuration": figures.name,
        "streams": "+".join(figures.streams),
        "head_parameters": head.cost.parameters,
        "extractor_parameters": figures.parameters,
        "head_bytes": head.cost.model_bytes,
        "extractor_bytes": figures.model_bytes,
        "head_flops_per_image": head.cost.flops,
        "extractor_flops_per_image": NOT_COUNTED if figures.flops is None else figures.flops,
        "extractors_not_counted": "+".join(figures.not_counted),
        "head_train_flops_per_row": NOT_COUNTED if head.train_flops_per_row is None else head.train_flops_per_row,
    }
    timed = {"head": head.latency, "path": path.whole, "path_extraction": path.extraction, "path_head": path.head}
    for name, timings in timed.items():
        for timing in timings:
            place = f"{name}_batch{timing.batch}"
            row |= {f"{place}_median_ms": timing.median_ms, f"{place}_p95_ms": timing.p95_ms}
            row[f"{place}_repeats"] = timing.repeats
    peaks = {f"path_batch{timing.batch}": peak for timing, peak in zip(path.whole, path.peaks, strict=True)}
    peaks |= {"path_start": path.start, "head_start": head.start}
    peaks |= {"head_inference": head.inference, "head_training": head.training}
    for name, peak in peaks.items():
        row |= {f"{name}_peak_rss_bytes": peak.rss_bytes, f"{name}_peak_cuda_bytes": peak.cuda_bytes}
    epoch = {f"epoch_{name}": value for name, value in vars(head.epoch).items()}
    return (
        row | {"head_training_table_bytes": head.table_bytes} | epoch | {"extraction_of_rows_s": figures.extraction_s}
    )


def as_markdown(profile: Profile) -> str:
    """Return the conditions and notes of a profile, then all its tables."""
    parts = [
        f"# Efficiency of {profile.pipeline}",
        _conditions(profile),
        "\n".join(f"- {note}" for note in profile.notes),
        "## Size",
        _size_table(profile),
        "## Milliseconds an image, median (95th percentile)",
        _latency_table(profile),
        "## Memory, MiB",
        _memory_table(profile),
        "## Training",
        _training_table(profile),
        "## Extractors",
        _extractor_table(profile),
    ]
    return "\n\n".join(part for part in parts if part)


def _conditions(profile: Profile) -> str:
    where = profile.conditions
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    machine = f"{where['cpu']}, {where['cores']} cores, {where['memory_bytes'] / 2**30:.0f} GiB, {where['system']}"
    images = f"{where['images']['count']} images ({where['images']['source']})"
    work = f"{where['threads']} threads, device {where['device']}, load {where['load_before']} before"
    return f"{machine}; {work}; {images}; {versions}; {where['date']}"


def _size_table(profile: Profile) -> str:
    """Return sizes of head and extractors; the last column names what the sums of FLOPs leave out."""
    rows = [
        (
            figures.name,
            _scaled(figures.head.cost.parameters, 1e6, 2),
            _scaled(figures.parameters, 1e6, 2),
            _scaled(figures.head.cost.model_bytes, MIB, 1),
            _scaled(figures.model_bytes, MIB, 1),
            _scaled(figures.head.cost.flops, 1e9, 3),
            _scaled(figures.flops, 1e9, 2),
            _scaled(figures.flops, 2e9, 2),
            ", ".join(figures.not_counted),
        )
        for figures in profile.configurations
    ]
    header = ("head, M parameters", "extractors, M", "head, MiB", "extractors, MiB", "head, GFLOP", "extractors, GFLOP")
    return _table(("configuration", *header, "extractors, GMAC", f"FLOPs {NOT_COUNTED}"), rows)


def _latency_table(profile: Profile) -> str:
    rows = [
        (
            figures.name,
            *(_per_image(timing) for timing in figures.head.latency),
            *(_per_image(timing) for timing in figures.path.whole),
            *(f"{timing.median_ms_per_image:.3g}" for timing in figures.path.extraction),
        )
        for figures in profile.configurations
    ]
    batches = [timing.batch for timing in profile.configurations[0].path.whole]
    columns = [f"{what}, batch {batch}" for what in ("head", "whole path", "of it extraction") for batch in batches]
    return _table(("configuration", *columns), rows)


def _memory_table(profile: Profile) -> str:
    """Return resident sets and, with a GPU, the peaks of its memory in further columns."""
    kinds: list[tuple[str, Callable[[Peak], int | None]]] = [("", lambda peak: peak.rss_bytes)]
    first = profile.configurations[0]
    if first.path.start.cuda_bytes is not None:
        kinds.append((" on the GPU", lambda peak: peak.cuda_bytes))
    batches = [timing.batch for timing in first.path.whole]
    phases = [
        "before models",
        *(f"whole path, batch {batch}" for batch in batches),
        "head, inference",
        "head, training",
    ]
    rows = []
    for figures in profile.configurations:
        head, path = figures.head, figures.path
        peaks = [path.start, *path.peaks, head.inference, head.training]
        rows.append((figures.name, *(_scaled(of(peak), MIB, 0) for _, of in kinds for peak in peaks)))
    return _table(("configuration", *(phase + kind for kind, _ in kinds for phase in phases)), rows)


def _training_table(profile: Profile) -> str:
    rows = []
    for figures in profile.configurations:
        epoch: Epoch = figures.head.epoch
        rows.append(
            (
                figures.name,
                epoch.source,
                str(epoch.train_rows),
                str(epoch.batch_size),
                f"{epoch.median_s:.3g} ({epoch.p95_s:.3g})",
                str(epoch.repeats),
                f"{figures.extraction_s:.3g}",
            )
        )
    header = ("rows", "training rows", "batch", "s an epoch", "epochs timed", "rows extracted, s")
    return _table(("configuration", *header), rows)


def _extractor_table(profile: Profile) -> str:
    costs: dict[str, MeasuredCost] = {}
    for figures in profile.configurations:
        costs |= figures.path.extractors
    rows = [
        (
            name,
            _scaled(cost.parameters, 1e6, 2),
            _scaled(cost.model_bytes, MIB, 1),
            _scaled(cost.flops, 1e9, 2),
            _scaled(cost.flops, 2e9, 2),
        )
        for name, cost in costs.items()
    ]
    return _table(("extractor", "M parameters", "MiB", "GFLOP", "GMAC"), rows)


def _scaled(value: int | None, unit: float, digits: int) -> str:
    return NOT_COUNTED if value is None else f"{value / unit:.{digits}f}"


def _per_image(timing: Timing) -> str:
    return f"{timing.median_ms_per_image:.3g} ({timing.p95_ms_per_image:.3g})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is aligned as plain text: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [_line(header, widths)]
    lines.append(
        "|" + "|".join(("-" * (w + 1) + ":") if n else ":" + "-" * (w + 1) for n, w in enumerate(widths)) + "|"
    )
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if n else cell.ljust(width) for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(aligned)} |"
