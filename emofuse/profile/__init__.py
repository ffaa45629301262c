"""The efficiency of a pipeline's configurations (the paper's Table 6): what they cost to store, to run and to train.

    extractors --- path (a fresh process): image -> features -> probabilities: latency, peak memory, counts
    head --------- head (another one):     features -> probabilities: latency, counts; epochs of training, peak memory

Extraction and head are measured apart, because extraction is paid once and the head in every epoch. The text
`emofuse.profile.tables.METHOD` says how each number is made, and every profile carries it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emofuse.datasets.sources import Source
from emofuse.errors import ProfileError, WeightsError
from emofuse.machine.devices import resolve_device
from emofuse.profile.conditions import available_cores, describe_conditions
from emofuse.profile.figures import ConfigurationFigures, Profile
from emofuse.profile.fresh_process import in_fresh_process
from emofuse.profile.head import HeadJob, measure_head
from emofuse.profile.images import draw_images, pick_images
from emofuse.profile.path import PathJob, measure_path
from emofuse.profile.timing import Repeats
from emofuse.progress import step
from emofuse.specs import (
    CacheSpec,
    KernelRidgeHeadSpec,
    PipelineSpec,
    RandomWeights,
    RunSpec,
    TargetSpec,
    is_random,
)
from emofuse.streams import stream_weights

__all__ = ["Profile", "ProfileOptions", "Repeats", "profile_pipeline"]

_EMOSET_CLASSES = 8


@dataclass(frozen=True)
class ProfileOptions:
    """The options of a profile.

    Attributes:
        data: an image or a folder of images; None draws some.
        images: the number of images.
        cache: the cache whose training rows are used, all of the split; None for synthetic rows.
        rows: the number of synthetic training rows.
        classes: the number of labels C of synthetic rows; None takes the eight of EmoSet.
        batches: the numbers of images in a call, ascending.
        repeats: how often each call is timed.
        device: where networks and heads run: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: the number of threads of native libraries; None takes the cores that this process may use.
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
    """Measure every configuration of a pipeline in fresh processes, one after another.

    Args:
        spec: the pipeline; the repeats of its runs cost the same and are measured once.
        options: what is measured on.
        say: a function that is given one line before each measurement.

    Raises:
        DatasetError: there is no image where the options say.
        DeviceError: there is no such device.
        CacheError: the cache cannot be read, or it lacks blocks.
        SpecError: the cache lacks a stream.
        ProfileError: a configuration cannot be measured; the message gives the reason.
    """
    device = resolve_device(options.device)
    threads = options.threads or available_cores()
    cache_spec, notes = stand_in_weights(spec.cache)
    classes, rows_notes = _count_classes(spec, options)
    runs = [_with_landmarks(run, options) for run in spec.runs]
    measured = []
    count = 2 * len(runs)
    with _image_files(options, cache_spec) as images, step("measuring", count, "measurements") as advance:
        conditions = describe_conditions(device, threads) | {
            "images": {"source": str(options.data or "drawn, as in the demo dataset"), "count": len(images)}
        }
        for number, run in enumerate(runs, start=1):
            title = f"configuration {number}/{len(runs)}: {run.name}"
            streams = tuple(stream for stream in cache_spec.streams if stream.name in run.features.streams)
            run_cache = cache_spec.model_copy(update={"streams": streams})
            say(f"{title}, images to probabilities")
            path_job = PathJob(run, run_cache, classes, images, options.batches, options.repeats, device, threads)
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


def _with_landmarks(run: RunSpec, options: ProfileOptions) -> RunSpec:
    """Return the run with no more landmarks than synthetic training rows; a kernel head holds that many rows."""
    head = run.head
    if not isinstance(head, KernelRidgeHeadSpec) or options.cache is not None:
        return run
    return run.model_copy(update={"head": head.model_copy(update={"landmarks": min(head.landmarks, options.rows)})})


def stand_in_weights(spec: CacheSpec) -> tuple[CacheSpec, list[str]]:
    """Return the spec with random weights for those that are not on this machine, and a note on each random stream.

    Counts, times and memory do not depend on the values of weights, except for the number of objects that YOLO sorts.
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
    """Return the number of labels, and a note if training rows are synthetic. Check the cache before anything else.

    Raises:
        CacheError: the cache cannot be read, or it lacks blocks.
        SpecError: the cache lacks a stream of a run.
    """
    if options.cache is None:
        classes = options.classes or _count_columns(spec.runs[0].target) or _EMOSET_CLASSES
        return classes, [f"Heads train on {options.rows} synthetic rows with {classes} labels, not on a cache."]
    from emofuse.cache.reader import open_cache
    from emofuse.features import cached_streams
    from emofuse.training.rows import targets_of_run

    cache = open_cache(options.cache)
    for run in spec.runs:
        for stream in cached_streams(cache.streams, run.features.streams, options.cache).values():
            stream.check_complete()
    return len(targets_of_run(cache, spec.runs[0]).names), []


def _count_columns(target: TargetSpec) -> int | None:
    """Return the number of outputs as far as the target alone tells it: that of its columns, if there are several."""
    columns = getattr(target, "columns", ())
    return len(columns) if len(columns) > 1 or target.kind == "regression" else None


@contextmanager
def _image_files(options: ProfileOptions, spec: CacheSpec) -> Iterator[Sequence[Path | Source]]:
    if options.data is not None:
        yield pick_images(options.data, options.images, spec)
        return
    if spec.clip is not None or any("audio" in stream.needs for stream in spec.streams):
        raise ProfileError(
            "the streams see clips or hear sounds, which are not drawn: name a folder of them, --data PATH"
        )
    with tempfile.TemporaryDirectory(prefix="emofuse-profile-") as folder:
        yield draw_images(Path(folder), options.images)
