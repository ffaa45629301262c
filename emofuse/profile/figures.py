"""What a profile says: plain numbers with their units, as they go into `profile.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Timing:
    """How long a call takes.

    Attributes:
        batch: images of a call.
        repeats: calls that were timed, after those that warmed up.
        median_ms: milliseconds of a call.
        p95_ms: 95 of 100 calls take no longer; between two calls interpolated.
    """

    batch: int
    repeats: int
    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, batch: int, seconds: Sequence[float]) -> Self:
        """Of the seconds of every timed call, at least one."""
        median, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
        return cls(batch, len(seconds), float(median), float(p95))

    @property
    def median_ms_per_image(self) -> float:
        """A call's over its images."""
        return self.median_ms / self.batch

    @property
    def p95_ms_per_image(self) -> float:
        """A call's over its images."""
        return self.p95_ms / self.batch


@dataclass(frozen=True)
class MeasuredCost:
    """What a model is, whatever the machine. None is *not counted*, which is not nothing.

    Attributes:
        parameters: learned numbers.
        model_bytes: of parameters and buffers, as the model runs; of its files where it is not torch's.
        flops: of a forward pass of one image: sums and products of matrix products and convolutions. A
            multiplication with its addition is two.
    """

    parameters: int | None
    model_bytes: int | None
    flops: int | None


@dataclass(frozen=True)
class Peak:
    """The most memory that a fresh process has held so far.

    Attributes:
        rss_bytes: of the process in main memory, Python and libraries included.
        cuda_bytes: of its tensors on the GPU since the phase began; None on the CPU.
    """

    rss_bytes: int
    cuda_bytes: int | None


@dataclass(frozen=True)
class PathFigures:
    """From the file of an image to its probabilities, extractors and head, in a process of its own.

    Attributes:
        extractors: stream -> its cost; what several streams share (the face detector) stands beside them.
        dims: stream -> D as the head sees it.
        extraction: file to features, one timing a batch size.
        head: features to probabilities (derived, standardised, head, softmax), likewise.
        whole: both together.
        start: memory with all libraries loaded, before any model.
        peaks: memory after each batch size, ascending.
        missing: stream -> images of the largest batch that lack it (no face, nothing detected).
    """

    extractors: Mapping[str, MeasuredCost]
    dims: Mapping[str, int]
    extraction: Sequence[Timing]
    head: Sequence[Timing]
    whole: Sequence[Timing]
    start: Peak
    peaks: Sequence[Peak]
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Epoch:
    """Training of one head, as runs train: steps and, after them, validation.

    Attributes:
        source: whose rows: a cache, or `synthetic`.
        train_rows: of an epoch.
        val_rows: that are scored after it.
        batch_size: rows of a step.
        repeats: epochs that were timed, after one that warmed up.
        median_s: seconds of an epoch.
        p95_s: 95 of 100 epochs take no longer.
    """

    source: str
    train_rows: int
    val_rows: int
    batch_size: int
    repeats: int
    median_s: float
    p95_s: float


@dataclass(frozen=True)
class HeadFigures:
    """A head alone, in a process of its own.

    Attributes:
        cost: parameters are all trained.
        train_flops_per_row: of a step, forward and backward.
        latency: standardised features on the device to probabilities in main memory, one timing a batch size.
        epoch: training.
        start: memory with all libraries loaded, before any head.
        inference: after the latency.
        training: after the epochs; holds the table of features, whose size is `table_bytes`.
        table_bytes: features of all rows.
    """

    cost: MeasuredCost
    train_flops_per_row: int
    latency: Sequence[Timing]
    epoch: Epoch
    start: Peak
    inference: Peak
    training: Peak
    table_bytes: int


@dataclass(frozen=True)
class ConfigurationFigures:
    """One configuration of a pipeline.

    Attributes:
        name: as tables call it.
        streams: that it fuses.
        path: extractors and the whole path.
        head: the head alone.
    """

    name: str
    streams: tuple[str, ...]
    path: PathFigures
    head: HeadFigures

    @property
    def parameters(self) -> int:
        """Of all extractors that can be counted, which are frozen."""
        return sum(cost.parameters or 0 for cost in self.path.extractors.values())

    @property
    def model_bytes(self) -> int:
        """Of all extractors."""
        return sum(cost.model_bytes or 0 for cost in self.path.extractors.values())

    @property
    def flops(self) -> int | None:
        """Of all extractors that can be counted, for one image; None if none can."""
        counted = [cost.flops for cost in self.path.extractors.values() if cost.flops is not None]
        return sum(counted) if counted else None

    @property
    def not_counted(self) -> tuple[str, ...]:
        """Extractors whose floating point operations are not counted."""
        return tuple(name for name, cost in self.path.extractors.items() if cost.flops is None)

    @property
    def extraction_s(self) -> float:
        """Seconds to extract the epoch's training rows, once for all epochs: so many times one image of a batch."""
        return self.head.epoch.train_rows * self.path.extraction[-1].median_ms_per_image / 1000


@dataclass(frozen=True)
class Profile:
    """The efficiency figures of a pipeline.

    Attributes:
        pipeline: its name.
        conditions: machine, threads, device, images, versions, date: what the numbers depend on.
        notes: what a reader should know, one sentence each.
        configurations: in the pipeline's order.
    """

    pipeline: str
    conditions: Mapping[str, Any]
    notes: tuple[str, ...]
    configurations: tuple[ConfigurationFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
