"""The figures of a profile: plain numbers with their units, as `profile.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Timing:
    """The time that a call takes.

    Attributes:
        batch: the number of images in a call.
        repeats: the number of timed calls, without the warm-up.
        median_ms: the median time of a call in milliseconds.
        p95_ms: the 95th percentile in milliseconds, interpolated between two calls.
    """

    batch: int
    repeats: int
    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, batch: int, seconds: Sequence[float]) -> Self:
        """Return the timing of one or more calls from their seconds."""
        median, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
        return cls(batch, len(seconds), float(median), float(p95))

    @property
    def median_ms_per_image(self) -> float:
        """The median time of a call divided by its images."""
        return self.median_ms / self.batch

    @property
    def p95_ms_per_image(self) -> float:
        """The 95th percentile of a call divided by its images."""
        return self.p95_ms / self.batch


@dataclass(frozen=True)
class MeasuredCost:
    """The costs of a model that are the same on every machine. None means *not counted*, which is not zero.

    Attributes:
        parameters: the number of learned numbers.
        model_bytes: the bytes of parameters and buffers as the model runs, or of its files if it is not torch's.
        flops: the operations of a forward pass of one image: matrix products and convolutions, two for a
            multiplication with its addition.
    """

    parameters: int | None
    model_bytes: int | None
    flops: int | None


@dataclass(frozen=True)
class Peak:
    """The most memory that a fresh process has held so far.

    Attributes:
        rss_bytes: the resident set of the process in main memory, Python and libraries included.
        cuda_bytes: the bytes of its tensors on the GPU since the phase began; None on the CPU.
    """

    rss_bytes: int
    cuda_bytes: int | None


@dataclass(frozen=True)
class PathFigures:
    """The path from the file of an image to its probabilities, measured in a fresh process.

    Attributes:
        extractors: stream -> its cost; the face detector, which streams share, is a separate entry.
        dims: stream -> the shape of a row as the head sees it, D for a vector.
        extraction: the timings from file to features, one for each batch size.
        head: the timings from features to probabilities (derived, standardised, head, softmax), likewise.
        whole: the timings of both together.
        start: the memory with all libraries loaded, before any model.
        peaks: the memory after each batch size, ascending.
        missing: stream -> the images of the largest batch that lack it (no face, nothing detected).
    """

    extractors: Mapping[str, MeasuredCost]
    dims: Mapping[str, int | tuple[int, ...]]
    extraction: Sequence[Timing]
    head: Sequence[Timing]
    whole: Sequence[Timing]
    start: Peak
    peaks: Sequence[Peak]
    missing: Mapping[str, int]


@dataclass(frozen=True)
class Epoch:
    """The time of an epoch of a run's heads: all steps, then validation; or of solving its exact heads once.

    Attributes:
        source: where the rows come from: a cache, or `synthetic`.
        train_rows: the number of training rows.
        val_rows: the number of validation rows.
        batch_size: the number of rows in a step.
        repeats: the number of timed epochs, after one of warm-up.
        median_s: the median time of an epoch in seconds.
        p95_s: the 95th percentile in seconds.
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
    """A head alone, measured in a fresh process.

    Attributes:
        cost: the cost of the head, or of all heads of an ensemble; all its parameters are trained.
        train_flops_per_row: the operations of a step for one of its rows, forward and backward; None for a head that
            is solved.
        latency: the timings from standardised features on the device to probabilities in main memory, one for each
            batch size.
        epoch: the time of an epoch.
        start: the memory with all libraries loaded, before any head.
        inference: the memory after the latency.
        training: the memory after the epochs, with the features of all rows (`table_bytes`).
        table_bytes: the bytes of the features of all rows.
    """

    cost: MeasuredCost
    train_flops_per_row: int | None
    latency: Sequence[Timing]
    epoch: Epoch
    start: Peak
    inference: Peak
    training: Peak
    table_bytes: int


@dataclass(frozen=True)
class ConfigurationFigures:
    """The figures of one configuration of a pipeline.

    Attributes:
        name: its name in tables.
        streams: the names of its streams.
        path: the extractors and the whole path.
        head: the head alone.
    """

    name: str
    streams: tuple[str, ...]
    path: PathFigures
    head: HeadFigures

    @property
    def parameters(self) -> int:
        """The parameters of all extractors that can be counted; they are frozen."""
        return sum(cost.parameters or 0 for cost in self.path.extractors.values())

    @property
    def model_bytes(self) -> int:
        """The bytes of all extractors."""
        return sum(cost.model_bytes or 0 for cost in self.path.extractors.values())

    @property
    def flops(self) -> int | None:
        """The operations of all extractors that can be counted, for one image; None if none can."""
        counted = [cost.flops for cost in self.path.extractors.values() if cost.flops is not None]
        return sum(counted) if counted else None

    @property
    def not_counted(self) -> tuple[str, ...]:
        """The extractors whose floating point operations are not counted."""
        return tuple(name for name, cost in self.path.extractors.items() if cost.flops is None)

    @property
    def extraction_s(self) -> float:
        """The seconds to extract the training rows once: their number times one image of the largest batch."""
        return self.head.epoch.train_rows * self.path.extraction[-1].median_ms_per_image / 1000


@dataclass(frozen=True)
class Profile:
    """The efficiency figures of a pipeline.

    Attributes:
        pipeline: the name of the pipeline.
        conditions: what the numbers depend on: machine, threads, device, images, versions, date.
        notes: what a reader should know, one sentence each.
        configurations: the figures of each configuration, in the pipeline's order.
    """

    pipeline: str
    conditions: Mapping[str, Any]
    notes: tuple[str, ...]
    configurations: tuple[ConfigurationFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)
