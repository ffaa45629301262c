"""Efficiency of a pipeline's configurations, the paper's Table 6: what they cost to store, to run and to train.

    extractors --- path (a fresh process): image -> features -> probabilities: latency, peak memory, counts
    head --------- head (another one):     features -> probabilities: latency, counts; epochs of training, peak memory

Extraction and head are told apart throughout, because extraction is paid once and the head in every epoch. How each
number is made stands in `emofuse.profile.tables.METHOD`, which every profile carries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emofuse.devices import resolve_device
from emofuse.errors import WeightsError
from emofuse.profile.conditions import available_cores, describe_conditions
from emofuse.profile.figures import ConfigurationFigures, Profile
from emofuse.profile.fresh_process import in_fresh_process
from emofuse.profile.head import HeadJob, measure_head
from emofuse.profile.images import draw_images, pick_images
from emofuse.profile.path import PathJob, measure_path
from emofuse.profile.timing import Repeats
from emofuse.progress import step
from emofuse.specs import CacheSpec, PipelineSpec, RandomWeights, is_random
from emofuse.streams import stream_weights

__all__ = ["Profile", "ProfileOptions", "Repeats", "profile_pipeline"]

_EMOSET_CLASSES = 8


@dataclass(frozen=True)
class ProfileOptions:
    """What a profile is measured on.

    Attributes:
        data: an image or a folder with images; None draws some.
        images: how many of them.
        cache: whose rows train, all of the split; None for synthetic ones.
        rows: synthetic training rows.
        classes: C of synthetic rows; None takes the eight of EmoSet.
        batches: images of a call, ascending.
        repeats: of every timing.
        device: `auto`, `cpu`, `cuda` or `cuda:N`: of networks and heads.
        threads: of native libraries; None takes the cores that this process may use.
    """

    data: Path | None = None
    images: int = 64
    cache: Path | None = None
    rows: int = 2048
    classes: int | None = None
    batches: tuple[int, ...] = (1, 64)
    repeats: Repeats = field(default_factory=Repeats)
    device: str = "auto"
    threads: int | None = None


def profile_pipeline(
    spec: PipelineSpec, options: ProfileOptions, *, say: Callable[[str], None] = lambda _: None
) -> Profile:
    """Measures every configuration of a pipeline, each in processes of its own, one after another.

    Args:
        spec: the pipeline; repeats of its runs cost the same and are measured once.
        options: on what.
        say: is given one line before each measurement.

    Raises:
        DatasetError: no image where the options say.
        DeviceError: no such device.
        CacheError: the cache cannot be read, or lacks blocks.
        SpecError: the cache lacks a stream.
        ProfileError: a configuration cannot be measured; with the reason.
    """
    device = resolve_device(options.device)
    threads = options.threads or available_cores()
    cache_spec, notes = stand_in_weights(spec.cache)
    classes, rows_notes = _count_classes(spec, options)
    measured = []
    count = 2 * len(spec.runs)
    with _pictures(options, cache_spec) as pictures, step("measuring", count, "measurements") as advance:
        conditions = describe_conditions(device, threads) | {
            "images": {"source": str(options.data or "drawn, as in the demo dataset"), "count": len(pictures)}
        }
        for number, run in enumerate(spec.runs, start=1):
            title = f"configuration {number}/{len(spec.runs)}: {run.name}"
            streams = tuple(stream for stream in cache_spec.streams if stream.name in run.features.streams)
            own = cache_spec.model_copy(update={"streams": streams})
            say(f"{title}, images to probabilities")
            path_job = PathJob(run, own, classes, pictures, options.batches, options.repeats, device, threads)
            path = in_fresh_process(measure_path, path_job, threads=threads, what=run.name)
            advance(2 * number - 1, count)
            say(f"{title}, head")
            head_job = HeadJob(
                run, path.dims, classes, options.cache, options.rows, options.batches, options.repeats, device
            )
            head = in_fresh_process(measure_head, head_job, threads=threads, what=run.name)
            advance(2 * number, count)
            measured.append(ConfigurationFigures(run.name, run.features.streams, path, head))
    return Profile(spec.name, conditions, (*notes, *rows_notes), tuple(measured))


def stand_in_weights(spec: CacheSpec) -> tuple[CacheSpec, list[str]]:
    """The spec with random weights in place of those that are not here, and a note on every stream with random ones.

    Counts, times and memory do not depend on the values of weights, but for how many objects YOLO has to sort.
    """
    streams, notes = [], []
    for stream in spec.streams:
        try:
            if is_random(stream_weights(stream)):
                notes.append(f"{stream.name}: RANDOM WEIGHTS, as the pipeline says.")
            streams.append(stream)
        except WeightsError as error:
            notes.append(f"{stream.name}: RANDOM WEIGHTS stand in, because {error}")
            streams.append(stream.model_copy(update={"weights": RandomWeights()}))
    return spec.model_copy(update={"streams": tuple(streams)}), notes


def _count_classes(spec: PipelineSpec, options: ProfileOptions) -> tuple[int, list[str]]:
    """How many labels heads tell apart, and a note if they are not the cache's. Looks into the cache before anything.

    Raises:
        CacheError: it cannot be read, or lacks blocks.
        SpecError: it lacks a stream of a run.
    """
    if options.cache is None:
        classes = options.classes or _EMOSET_CLASSES
        return classes, [f"Heads train on {options.rows} synthetic rows with {classes} labels, not on a cache."]
    from emofuse.cache.reader import open_cache
    from emofuse.features import cached_streams

    cache = open_cache(options.cache)
    for run in spec.runs:
        for stream in cached_streams(cache.streams, run.features.streams, options.cache).values():
            stream.check_complete()
    return len(cache.classes), []


@contextmanager
def _pictures(options: ProfileOptions, spec: CacheSpec) -> Iterator[Sequence[Path]]:
    if options.data is not None:
        yield pick_images(options.data, options.images, spec.decode)
        return
    with tempfile.TemporaryDirectory(prefix="emofuse-profile-") as folder:
        yield draw_images(Path(folder), options.images)
