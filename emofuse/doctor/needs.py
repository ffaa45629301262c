"""What a build of a spec would need: faces, weights, space on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emofuse.doctor.findings import Finding, State
from emofuse.doctor.probe import Answer
from emofuse.stores import file_sizes

if TYPE_CHECKING:
    from emofuse.specs import CacheSpec, DatasetSpec, StreamSpec

AREA = "this spec"
_FLAGS = ("",)  # which streams have some is known when they are opened; they are a byte a row


@dataclass(frozen=True)
class Wanted:
    """What is examined for.

    Attributes:
        name: of the pipeline or cache spec.
        cache: what would be cached.
        dataset: whose images; None for a cache spec alone.
        out: folder of the cache.
    """

    name: str
    cache: CacheSpec
    dataset: DatasetSpec | None
    out: Path

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of all streams; `lbp` stands for any that looks at faces."""
        looks_at_faces = any(stream.needs_face for stream in self.cache.streams)
        return (*(stream.kind for stream in self.cache.streams), *(("lbp",) if looks_at_faces else ()))

    @property
    def looks(self) -> tuple[str, ...]:
        """For `probe.ask`."""
        models = (_model(stream) for stream in self.cache.streams)
        dims = tuple(dict.fromkeys(f"dim {model}" for model in models if model))
        faces = any(stream.needs_face for stream in self.cache.streams)
        return (*((f"face {self.cache.face.detector}",) if faces else ()), *dims)


def find_wanted(name: str, out: Path | None) -> Wanted:
    """The pipeline, sweep or cache spec of a name or YAML file; a name of both is the pipeline's.

    Raises:
        SpecError: there is none, or it has faults.
    """
    from emofuse.errors import SpecError, did_you_mean
    from emofuse.specs import bundled_specs, read_cache_spec, read_pipeline_spec, read_sweep_spec

    pipelines, sweeps, caches = (bundled_specs(bundle) for bundle in ("pipelines", "sweeps", "cache_specs"))
    if Path(name).is_file():
        try:
            return Wanted(Path(name).stem, read_cache_spec(name), None, out or Path())
        except SpecError as error:
            if "streams: is missing" not in error.problems:  # a cache spec with faults
                raise
    elif name in caches and name not in pipelines:
        return Wanted(name, read_cache_spec(name), None, out or Path())
    elif name not in (*pipelines, *sweeps):
        known = sorted({*pipelines, *sweeps, *caches})
        hint = f"{did_you_mean(name, known)} (there are: {', '.join(known)})"
        raise SpecError(name, [f"no such file, and no pipeline, sweep or cache spec of this name{hint}"])
    if name in sweeps:
        name = read_sweep_spec(name).pipeline or name
    pipeline = read_pipeline_spec(name)
    return Wanted(pipeline.name, pipeline.cache, pipeline.dataset, out or Path("emofuse-runs") / pipeline.name)


def face_findings(wanted: Wanted | None, answers: Mapping[str, Answer]) -> list[Finding]:
    """Whether faces can be found: as the spec says, or, without one, in either way."""
    found = {look.removeprefix("face "): answer for look, answer in answers.items() if look.startswith("face ")}
    works = {detector: answer for detector, answer in found.items() if not answer.problem}
    findings = [
        Finding("faces", "ok", f"face.detector {detector!r} starts ({answer.value})")
        for detector, answer in works.items()
    ]
    worst: State = "fault" if wanted or not works else "note"
    return findings + [
        Finding("faces", worst, f"face.detector {detector!r}: {answer.problem}")
        for detector, answer in found.items()
        if answer.problem
    ]


def weights_findings(wanted: Wanted) -> list[Finding]:
    """Of every stream that runs on some: here, random, or missing with how to get them."""
    from emofuse.errors import EmofuseError
    from emofuse.streams import stream_weights

    findings = []
    for stream in wanted.cache.streams:
        try:
            weights = stream_weights(stream)
        except EmofuseError as error:
            findings.append(Finding(AREA, "fault", f"{stream.name}: {error}"))
            continue
        if weights is None:
            continue
        if weights["kind"] == "random":
            what = f"{stream.name}: RANDOM WEIGHTS, as the spec says: for demonstrations and tests only"
            findings.append(Finding(AREA, "note", what, "Name real weights in the spec for a finding"))
        else:
            findings.append(Finding(AREA, "ok", f"{stream.name}: weights {weights['name']} are here"))
    return findings


def stored_weights_findings() -> list[Finding]:
    """Without a spec: which weights are on this machine."""
    from emofuse.weights import stored_weights, weights_dir

    stored = [weights.name for weights in stored_weights()]
    if stored:
        return [Finding("weights", "ok", f"{', '.join(stored)}, in {weights_dir()}")]
    advice = "emofuse weights list, then emofuse weights fetch NAME"
    return [
        Finding("weights", "note", f"none in {weights_dir()}: only streams without a network, or random ones", advice)
    ]


def space_findings(wanted: Wanted, answers: Mapping[str, Answer], rows: int | None) -> list[Finding]:
    """Whether the disk has room for the cache, as far as it is not there yet."""
    existing = next(path for path in (wanted.out.absolute(), *wanted.out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return [Finding(AREA, "fault", f"{existing} cannot be written to", "Name another folder with --out")]
    free = shutil.disk_usage(existing).free
    row_bytes = cache_bytes(wanted.cache, answers, 1_000_000) / 1_000_000
    if rows is None:
        what = f"{row_bytes / 1e3:.1f} KB of cache a row; {free / 1e9:.1f} GB are free in {existing}"
        return [Finding(AREA, "note", what, "Say how many rows, with --data or --rows, to see whether that will do")]
    whole = cache_bytes(wanted.cache, answers, rows)
    there = sum(file_sizes(wanted.out / "features.zarr").values())
    what = f"a cache of {rows} rows takes about {whole / 1e9:.2f} GB" + (
        f", {there / 1e9:.2f} GB are there" if there else ""
    )
    what = f"{what}; {free / 1e9:.1f} GB are free in {existing}"
    if whole - there > free:
        return [Finding(AREA, "fault", what, "Make room, or name a folder on another disk with --out")]
    return [Finding(AREA, "ok", what)]


def cache_bytes(spec: CacheSpec, answers: Mapping[str, Answer], rows: int) -> int:
    """About how large a cache of so many rows is, without what is imported. Chunks are uncompressed, the last padded.

    Raises:
        ValueError: the shape of a stream is not known.
    """
    from emofuse.cache.size import bytes_of_blocks, planned_layout

    block_rows = spec.rows_of_a_block(rows)
    streams = [stream for stream in spec.streams if stream.kind != "imported"]
    layouts = []
    for stream in streams:
        shape, dimensions = _form(stream, answers)
        layouts.append(planned_layout(stream, shape, _FLAGS, dimensions))
    blocks = -(-rows // block_rows) * spec.views
    return bytes_of_blocks(layouts, block_rows, {layout.name: blocks for layout in layouts})


def count_rows(wanted: Wanted, data: Path | None) -> int | None:
    """Rows of the dataset; None if it is not known where it is.

    Raises:
        DatasetError: it cannot be read.
    """
    from emofuse.specs import DemoSpec

    if wanted.dataset is None:
        return None
    if isinstance(wanted.dataset, DemoSpec):
        return wanted.dataset.images
    root = data or wanted.dataset.root
    if root is None:
        return None
    from emofuse.datasets import read_dataset

    return len(read_dataset(wanted.dataset.model_copy(update={"root": root}), on_bad_rows="keep"))


def rows_findings(
    wanted: Wanted, data: Path | None, answers: Mapping[str, Answer], rows: int | None
) -> Sequence[Finding]:
    """Of dataset and space: rows as said, or as the dataset has them."""
    from emofuse.errors import DatasetError

    try:
        return space_findings(wanted, answers, rows if rows is not None else count_rows(wanted, data))
    except DatasetError as error:
        return [Finding(AREA, "fault", str(error)), *space_findings(wanted, answers, None)]


def _model(stream: StreamSpec) -> str | None:
    """The torchvision model of a backbone."""
    return str(getattr(stream, "model", "")) if stream.kind == "backbone" else None


def _form(stream: StreamSpec, answers: Mapping[str, Answer]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape and dimensions of a row."""
    model = _model(stream)
    if model is None:
        if stream.stored_shape is None:  # a kind of the user's own, which says so when it is opened
            from emofuse.streams import make_stream
            from emofuse.streams.base import dimensions_of, shape_of

            with closing(make_stream(stream)) as opened:
                return shape_of(opened), dimensions_of(opened)
        return stream.stored_shape, stream.stored_dimensions
    answer = answers[f"dim {model}"]
    if answer.problem:
        raise ValueError(f"{stream.name}: {answer.problem}")
    return (int(answer.value),), stream.stored_dimensions
