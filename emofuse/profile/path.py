"""In a fresh process: how long an image takes from its file to its probabilities, and what that takes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from emofuse.features import Scaling, chosen_variant, derived_features, derived_shape
from emofuse.heads import make_head
from emofuse.heads.members import HeadMember
from emofuse.profile.counting import stream_costs
from emofuse.profile.figures import PathFigures, Timing
from emofuse.profile.fresh_process import begin_phase, peak_memory
from emofuse.profile.timing import Clock, Repeats, repeat_timed
from emofuse.specs import CacheSpec, RunSpec
from emofuse.status import Status
from emofuse.streams.base import Rows, Stream
from emofuse.streams.extractor import Extractor
from emofuse.training.trained import head_probs


@dataclass(frozen=True)
class PathJob:
    """What to measure.

    Attributes:
        run: the configuration.
        cache: its streams, with weights that are there.
        classes: C.
        pictures: files, at least one.
        batches: sizes, ascending.
        repeats: of each.
        device: of networks and head.
        threads: of native libraries.
    """

    run: RunSpec
    cache: CacheSpec
    classes: int
    pictures: Sequence[Path]
    batches: Sequence[int]
    repeats: Repeats
    device: str
    threads: int


def measure_path(job: PathJob) -> PathFigures:
    """Times the configuration on batches of pictures that lie in the page cache.

    Extractors and head are those of `emofuse predict`, the work that streams share is done once, and the head has its
    initial weights: how long it takes does not depend on them.

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
            extractors=stream_costs(path.streams, job.cache.face),
            dims=path.dims,
            extraction=extraction,
            head=head,
            whole=whole,
            start=start,
            peaks=peaks,
            missing=path.missing,
        )


class _Path:
    """Extractors and head of one configuration.

    Attributes:
        streams: the open streams.
        dims: stream -> D as the head sees it.
        missing: stream -> images of the last call that lack it.
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
        self.dims = {
            name: derived_shape(
                kind, (math.prod(self.streams[name].shape),), chosen_variant(kind, name, self._features)
            )[0]
            for name, kind in self._kinds.items()
        }
        self.missing: dict[str, int] = {}
        self._scaling = {
            name: Scaling(np.zeros(dim, np.float32), np.ones(dim, np.float32), np.full(dim, np.inf, np.float32))
            for name, dim in self.dims.items()
        }
        self._head = make_head(job.run.head, [HeadMember(tuple(self.dims))], self.dims, job.classes).to(device)

    def close(self) -> None:
        self._extractor.close()

    def timed(self, batch: int) -> tuple[Timing, Timing, Timing]:
        """Of extraction, of the head, of both, on so many pictures a call; call after call goes on to the next ones."""
        pictures = list(islice(cycle(self._job.pictures), batch + len(self._job.pictures)))

        def call(number: int) -> tuple[float, float]:
            first = number * batch % len(self._job.pictures)
            return self._seconds(pictures[first : first + batch])

        seconds = np.array(repeat_timed(call, self._job.repeats, self._clock))  # (calls, 2)
        parts = (seconds[:, 0], seconds[:, 1], seconds.sum(axis=1))
        extraction, head, whole = (Timing.of(batch, part.tolist()) for part in parts)
        return extraction, head, whole

    def _seconds(self, pictures: Sequence[Path]) -> tuple[float, float]:
        """Of extracting these pictures, and of their probabilities."""
        start = self._clock()
        rows = self._extractor.extract(pictures).rows
        extracted = self._clock()
        self._probs(rows)
        end = self._clock()
        self.missing = {name: int(np.sum(part.status != Status.OK)) for name, part in rows.items()}
        return extracted - start, end - extracted

    def _probs(self, rows: Mapping[str, Rows]) -> None:
        """What `TrainedHead.probs` computes of a saved run."""
        features, valid = {}, {}
        for name, part in rows.items():
            valid[name] = part.status == Status.OK
            derived = derived_features(self._kinds[name], part.features, self._features, name)
            features[name] = self._scaling[name].apply(derived, valid[name])
        head_probs(self._head, features, valid)
