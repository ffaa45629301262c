"""Measures the whole path of an image in a fresh process, from its file to its probabilities."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from emofuse.datasets.sources import Source
from emofuse.features import chosen_pca, chosen_variant, derived_features, derived_shape
from emofuse.heads.stems import Shape
from emofuse.profile.counting import stream_costs
from emofuse.profile.figures import PathFigures, Timing
from emofuse.profile.fresh_process import begin_phase, peak_memory
from emofuse.profile.head import new_heads, unit_scaling
from emofuse.profile.timing import Clock, Repeats, repeat_timed
from emofuse.specs import CacheSpec, RunSpec
from emofuse.status import Status, Step
from emofuse.streams.base import Rows, Stream
from emofuse.streams.extractor import Extractor
from emofuse.training.targets import LINKS
from emofuse.training.trained import head_outputs
from emofuse.training.validation import mean_outputs


@dataclass(frozen=True)
class PathJob:
    """The options of the measurement of the whole path.

    Attributes:
        run: the configuration.
        cache: the spec of its streams, whose weights are on this machine.
        classes: the number of labels C.
        images: the files of the images, at least one.
        batches: the batch sizes, ascending.
        repeats: the number of timed calls for each batch size.
        device: where networks and head are.
        threads: the number of threads of native libraries.
    """

    run: RunSpec
    cache: CacheSpec
    classes: int
    images: Sequence[Path | Source]
    batches: Sequence[int]
    repeats: Repeats
    device: str
    threads: int


def measure_path(job: PathJob) -> PathFigures:
    """Time the configuration on batches of images that lie in the page cache.

    Extractors and head are those of `emofuse predict`, and work that streams share is done once. The head has its
    initial weights, because its time does not depend on them.

    Raises:
        EmofuseError: a stream cannot run here.
    """
    device = torch.device(job.device)
    start = peak_memory(device)
    with closing(_Path(job, device)) as path:
        timings: list[tuple[Timing, Timing, Timing]] = []
        peaks = []
        for batch in job.batches:
            begin_phase(device)
            timings.append(path.timed(batch))
            peaks.append(peak_memory(device))
        extraction, head, whole = zip(*timings, strict=True)
        return PathFigures(
            extractors=stream_costs(
                path.streams, job.cache.face, 1 if job.cache.clip is None else job.cache.clip.frames
            ),
            dims=path.dims,
            extraction=extraction,
            head=head,
            whole=whole,
            start=start,
            peaks=peaks,
            missing=path.missing,
        )


class _Path:
    """The extractors and the head of one configuration.

    Attributes:
        streams: the open streams.
        dims: stream -> the shape of a row as the head sees it, D for a vector.
        missing: stream -> the number of images of the last call that lack it.
    """

    def __init__(self, job: PathJob, device: torch.device) -> None:
        self._job = job
        self._clock = Clock(device)
        self._features = job.run.features
        self._kinds = {stream.name: stream.kind for stream in job.cache.streams}
        self._extractor = Extractor(job.cache.streams, job.cache, device=job.device)
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(job.threads)
        self.streams: dict[str, Stream] = self._extractor.streams
        shapes = {
            name: derived_shape(kind, self._extractor.stored[name].shape, chosen_variant(kind, name, self._features))
            for name, kind in self._kinds.items()
        }
        self._scaling = {name: unit_scaling(shape, chosen_pca(name, self._features)) for name, shape in shapes.items()}
        seen = {name: self._scaling[name].shape_of_rows(shape) for name, shape in shapes.items()}
        self.dims: dict[str, Shape] = {name: shape[0] if len(shape) == 1 else shape for name, shape in seen.items()}
        self.missing: dict[str, int] = {}
        self._heads = new_heads(job.run, self.dims, job.classes, device)

    def close(self) -> None:
        self._extractor.close()

    def timed(self, batch: int) -> tuple[Timing, Timing, Timing]:
        """Time extraction, head, and both together on batches of this size; each call takes the next images."""
        images = list(islice(cycle(self._job.images), batch + len(self._job.images)))

        def call(number: int) -> tuple[float, float]:
            first = number * batch % len(self._job.images)
            return self._seconds(images[first : first + batch])

        seconds = np.array(repeat_timed(call, self._job.repeats, self._clock))  # (calls, 2)
        parts = (seconds[:, 0], seconds[:, 1], seconds.sum(axis=1))
        extraction, head, whole = (Timing.of(batch, part.tolist()) for part in parts)
        return extraction, head, whole

    def _seconds(self, images: Sequence[Path | Source]) -> tuple[float, float]:
        """Return the seconds of extracting these images, and of computing what the head says of them."""
        start = self._clock()
        rows = self._extractor.extract(images).rows
        extracted = self._clock()
        self._outputs(rows)
        end = self._clock()
        self.missing = {name: int(np.sum(part.status != Status.OK)) for name, part in rows.items()}
        return extracted - start, end - extracted

    def _outputs(self, rows: Mapping[str, Rows]) -> None:
        """Compute what `TrainedHead.outputs` computes of a saved run."""
        features, valid, steps = {}, {}, {}
        for name, part in rows.items():
            valid[name] = part.status == Status.OK
            there = None if part.mask is None else part.mask == Step.OK
            if there is not None:
                steps[name] = there
            derived = derived_features(self._kinds[name], part.features, self._features, name)
            features[name] = self._scaling[name].apply(derived, valid[name], there)
        link = LINKS[self._job.run.target.kind]
        mean_outputs([head_outputs(head, features, valid, steps, link=link) for head in self._heads])
