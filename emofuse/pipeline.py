"""A pipeline from a dataset to a report: dataset -> cache -> runs -> report.

This module only connects the steps. Their results are stored by digest, so steps that are done are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from emofuse.cache.reader import Cache
from emofuse.datasets import OnBadRows, read_dataset
from emofuse.datasets.annotators import describe_target
from emofuse.datasets.manifest import Manifest
from emofuse.datasets.split_needs import SplitNeed, check_needs, needs_of_runs
from emofuse.extraction import BuildOptions, BuildSummary, Progress, estimate_build
from emofuse.extraction.opened import build_and_open
from emofuse.machine.devices import resolve_device
from emofuse.progress import followed, step
from emofuse.report import ReportFiles
from emofuse.report.further import find_metrics
from emofuse.report.notes import describe_run, gather_further_notes, gather_notes
from emofuse.report.stamp import report_when_needed
from emofuse.results import ResultPaths, RunRecord
from emofuse.results.progress import keep_progress
from emofuse.specs import DatasetSpec, PipelineSpec, RunSpec
from emofuse.specs.nouns import noun_of
from emofuse.training.machine import default_memory_bytes
from emofuse.training.references import MODELS, SolvedReferences, plan_references, train_references
from emofuse.training.runs import train_runs
from emofuse.training.side_by_side import beside, cores_of

BESIDE_SHARE = 1 / 8
"""The share of the memory of training that all features may take, if reference models are to be solved beside the runs:
both then hold features of their own."""


@dataclass(frozen=True)
class PipelineOptions:
    """The options of one call on one machine, which are part of no digest.

    Attributes:
        out: the folder of all results (see `ResultPaths`).
        data: the dataset's root, in place of the one in the pipeline file.
        follow_links: whether links of the dataset may lead out of its root, in addition to the pipeline file.
        on_bad_rows: `raise` lists bad rows in one error, `keep` keeps them as marked rows.
        build: the options of building the cache.
        device: the device of training: `cpu`, `cuda` or `auto`.
        images: whether the page of the report has thumbnails of samples; None for what the pipeline file says.
    """

    out: Path
    data: Path | None = None
    follow_links: bool = False
    on_bad_rows: OnBadRows = "raise"
    build: BuildOptions = field(default_factory=BuildOptions)
    device: str = "auto"
    images: bool | None = None


@dataclass(frozen=True)
class PipelineSummary:
    """The results of a pipeline, and what this call has done.

    Attributes:
        build: the summary of building the cache.
        records: every run of the pipeline, in its order.
        trained: how many of them this call trained.
        references: the runs of the reference models.
        report: the files of the report.
        report_written: whether this call wrote the report.
    """

    build: BuildSummary
    records: tuple[RunRecord, ...]
    trained: int
    report: ReportFiles
    report_written: bool
    references: tuple[RunRecord, ...] = ()


def expand_runs(spec: PipelineSpec) -> Iterator[RunSpec]:
    """Yield every run for each outer fold or split seed, if there are any, and each seed; repeats are neighbours."""
    for run in spec.runs:
        for split in spec.splits_of(run):
            for seed in spec.repeat.seeds:
                yield run.model_copy(update={"split": split, "train": run.train.model_copy(update={"seed": seed})})


def run_pipeline(
    spec: PipelineSpec,
    options: PipelineOptions,
    *,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> PipelineSummary:
    """Run a pipeline from its images to its report; a second call does only what is missing.

    Args:
        spec: the pipeline.
        options: the options of this call.
        say: receives a line for each step and each run; runs that train together end together.
        progress: receives the progress of the cache, the runs and the report.

    Raises:
        EmofuseError: a step failed. Finished results are kept.
    """
    # An unknown metric, or one of another target, is an error before hours of work.
    find_metrics(spec.metrics, spec.name, target=spec.runs[0].target.kind)
    resolve_device(options.device)  # and so is a device that is not there
    runs = list(expand_runs(spec))
    with keep_progress(
        options.out, "pipeline", spec.name, title=spec.title, planned=len(runs), progress=progress
    ) as follower:
        return _run_pipeline(spec, runs, options, say=say, progress=follower)


def _run_pipeline(
    spec: PipelineSpec,
    runs: Sequence[RunSpec],
    options: PipelineOptions,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> PipelineSummary:
    paths = ResultPaths(options.out)
    cache, build = prepare_cache(spec, options, needs_of_runs(runs), say=say, progress=progress)
    for line in _describe_targets(cache.manifest, runs):
        say(f"target: {line}")

    if spec.test is not None:
        say(f"test: {spec.test.describe()}")

    def on_run(index: int, record: RunRecord, trained_now: bool) -> None:
        say(f"run {index + 1}/{len(runs)}: {describe_run(record, trained_now)}")

    with followed(progress), _solving_references(cache, spec, runs, options, say) as solve:
        results = train_runs(cache, runs, paths.runs, device=options.device, on_run=on_run)
        references = solve()
    records = [record for record, _ in results]
    trained = sum(trained_now for _, trained_now in results)
    names = [run.name for run in spec.runs]
    for note in gather_notes((record.name, record) for record in records):
        say(f"note: {note}")
    of_references = ((record.name, record) for record in references.records)
    for note in [*references.notes, *gather_further_notes(records, of_references)]:
        say(f"note: {note}")

    with followed(progress), step("writing the report"):
        files, written = report_when_needed(
            [*records, *references.records],
            paths.runs,
            paths.report,
            title=spec.title or spec.name,
            baseline=spec.baseline or names[0],
            order=names,
            command=f"emofuse run {spec.name}",
            metrics=spec.metrics,
            compare=spec.compare,
            reference_notes=references.notes,
            images=spec.report.images if options.images is None else options.images,
            say=say,
        )
    say(f"report: {'written' if written else 'up to date'}, {files.page}")
    return PipelineSummary(build, tuple(records), trained, files, written, tuple(references.records))


@contextmanager
def _solving_references(
    cache: Cache, spec: PipelineSpec, runs: Sequence[RunSpec], options: PipelineOptions, say: Callable[[str], None]
) -> Iterator[Callable[[], SolvedReferences]]:
    """Give a function that returns the reference models, if there are any, which are solved beside the runs.

    They are solved after the runs where they would have to share a GPU, one core, or much memory. What `say` gets of
    them comes behind the runs.
    """
    if spec.references == "off":
        yield lambda: SolvedReferences([], [])
        return
    plan = plan_references(cache, runs, spec.baseline or spec.runs[0].name)
    device = torch.device(resolve_device(options.device))
    at_once = cores_of(device) > 1 and _feature_bytes(cache, runs) <= BESIDE_SHARE * default_memory_bytes(device)
    lines: list[str] = []

    def on_run(record: RunRecord, trained_now: bool) -> None:
        (lines.append if at_once else say)(f"reference: {describe_run(record, trained_now)}")

    def solve() -> SolvedReferences:
        return train_references(cache, plan, ResultPaths(options.out).runs, device=options.device, on_run=on_run)

    with beside(solve, at_once=at_once) as wait:

        def solved() -> SolvedReferences:
            with step("solving the reference models") if at_once else nullcontext():
                references = wait()
            for line in lines:
                say(line)
            return references

        yield solved


def _feature_bytes(cache: Cache, runs: Sequence[RunSpec]) -> int:
    """Return the bytes of the features of all streams of the runs in memory."""
    streams = {stream for run in runs for stream in run.features.streams}
    return sum(4 * len(cache.manifest) * math.prod(cache.streams[stream].layout.shape) for stream in streams)


def prepare_cache(
    spec: PipelineSpec,
    options: PipelineOptions,
    needs: Sequence[SplitNeed],
    *,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> tuple[Cache, BuildSummary]:
    """Build what is missing of a pipeline's cache, and open it.

    Args:
        spec: the pipeline.
        options: the options of this call.
        needs: what the runs need of the splits, which is checked before anything is extracted.
        say: receives a line for each step.
        progress: receives the progress of the build.

    Raises:
        EmofuseError: a step failed. Finished blocks are kept.
    """
    dataset = _dataset(spec, options)
    with followed(progress):
        manifest = read_dataset(dataset, on_bad_rows=options.on_bad_rows)
    _describe_dataset(manifest, say)
    check_needs(manifest, needs)
    path = ResultPaths(options.out).cache
    return build_and_open(path, manifest, spec.cache, _build_options(options), say=say, progress=progress)


def estimate_pipeline(spec: PipelineSpec, options: PipelineOptions, *, say: Callable[[str], None]) -> None:
    """Estimate what a pipeline would do: images left to extract, time and size, and its runs. Nothing is written.

    Args:
        spec: the pipeline.
        options: the options of this call.
        say: receives the lines of the estimate.

    Raises:
        EmofuseError: a step could not begin.
    """
    runs = list(expand_runs(spec))
    dataset = _dataset(spec, options)
    if dataset.is_to_be_generated:
        to_generate = f"{dataset.generated_rows} {noun_of(spec.cache).many} to generate in {dataset.root}"
        say(f"dataset: {to_generate}; they must be there for an estimate")
    else:
        manifest = read_dataset(dataset, on_bad_rows=options.on_bad_rows)
        _describe_dataset(manifest, say)
        check_needs(manifest, needs_of_runs(runs))
        for line in estimate_build(
            ResultPaths(options.out).cache, manifest, spec.cache, _build_options(options)
        ).describe():
            say(f"cache: {line}")
    heads = sum(len(run.heads()) * (1 + (run.refit != "none")) for run in runs)
    trainings = f" ({heads} trainings of heads)" if heads > len(runs) else ""
    count = f"{len(runs)} of {len(spec.runs)} configurations{trainings}"
    if spec.test is not None:
        say(f"test: {spec.test.describe()}")
    say(f"runs: {count}; those that are done already are read and not trained again")
    if spec.references == "on":
        say(f"references: {', '.join(name.lower() for name in MODELS)} beside them, on the same features and rows")


def _dataset(spec: PipelineSpec, options: PipelineOptions) -> DatasetSpec:
    """Return the dataset of a pipeline with the root and the links of this call."""
    dataset = spec.dataset
    generated = ResultPaths(options.out).generated_dataset if dataset.generated_rows is not None else None
    update: dict[str, object] = {"root": options.data or dataset.root or generated}
    if options.follow_links and "follow_links" in type(dataset).model_fields:
        update["follow_links"] = True
    return dataset.model_copy(update=update)


def _build_options(options: PipelineOptions) -> BuildOptions:
    """Return the options of the build. `on_bad_rows: keep` also keeps the rows of samples that are gone."""
    return replace(options.build, keep_gone=options.on_bad_rows == "keep")


def _describe_dataset(manifest: Manifest, say: Callable[[str], None]) -> None:
    """Report the size of a dataset and the notes of its reader."""
    for line in (manifest.describe(), *manifest.info["notes"]):
        say(f"dataset: {line}")


def _describe_targets(manifest: Manifest, runs: Sequence[RunSpec]) -> list[str]:
    """Return a line for each target of the runs, unless it is the only label there is."""
    different = {(run.target.model_dump_json(), run.weight_column): run for run in runs}.values()
    lines = [describe_target(manifest, run.target, run.weight_column) for run in different]
    return [line for line in lines if line is not None]
