"""The findings on what a build of a spec needs: faces, weights, space on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emofuse.doctor.findings import Finding, State
from emofuse.doctor.packages import FACE
from emofuse.doctor.probe import ProbeReply
from emofuse.stores import file_sizes

if TYPE_CHECKING:
    from emofuse.specs import CacheSpec, DatasetSpec, StreamSpec

AREA = "this spec"
_FLAGS = ("",)  # which streams have flags is known when they are opened; a flag takes one byte per row


@dataclass(frozen=True)
class ExaminedSpec:
    """A spec whose needs are examined.

    Attributes:
        name: the name of the pipeline or cache spec.
        cache: the spec of the cache.
        dataset: the dataset of the pipeline; None for a cache spec alone.
        out: the folder of the cache.
    """

    name: str
    cache: CacheSpec
    dataset: DatasetSpec | None
    out: Path

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of all streams and of the dataset, and the libraries of backbones; `FACE` is for all faces."""
        from emofuse.specs.streams import looks_at_faces

        streams = self.cache.streams
        return (
            *(stream.kind for stream in streams),
            *(str(stream.library) for stream in streams if hasattr(stream, "library")),
            *((FACE,) if any(looks_at_faces(stream.needs) for stream in streams) else ()),
            *((self.dataset.kind,) if self.dataset else ()),
        )

    @property
    def probes(self) -> tuple[str, ...]:
        """The probes of the spec, for `run_probes`."""
        from emofuse.specs.streams import looks_at_faces

        models = (_model(stream) for stream in self.cache.streams)
        dims = tuple(dict.fromkeys(f"dim {model}" for model in models if model))
        of_faces = [stream for stream in self.cache.streams if looks_at_faces(stream.needs)]
        return (*((self._face_probe(of_faces),) if of_faces else ()), *dims)

    def _face_probe(self, streams: Sequence[StreamSpec]) -> str:
        """Return the probe of the face detector; its options are written out where they differ from the default."""
        face = self.cache.face.model_dump(mode="json")
        needs = sorted(frozenset().union(*(stream.needs for stream in streams)))
        plain = set(face) == {"detector", "min_confidence"} and needs == ["face", "image"]
        written = "" if plain else f" {json.dumps({'face': face, 'needs': needs})}"
        return f"face {self.cache.face.detector}{written}"


def find_spec(name: str, out: Path | None) -> ExaminedSpec:
    """Return the spec of a pipeline, sweep or cache spec; a name of both a pipeline and a cache spec is the pipeline's.

    Args:
        name: the name of the spec, or its YAML file.
        out: the folder of the cache; None for the pipeline's own.

    Raises:
        SpecError: there is no such spec, or it has faults.
    """
    from emofuse.errors import SpecError, did_you_mean
    from emofuse.specs import bundled_specs, is_cache_spec, read_cache_spec, read_pipeline_spec, read_sweep_spec

    pipelines, sweeps, caches = (bundled_specs(bundle) for bundle in ("pipelines", "sweeps", "cache_specs"))
    if Path(name).is_file():
        if is_cache_spec(name):
            return ExaminedSpec(Path(name).stem, read_cache_spec(name), None, out or Path())
    elif name in caches and name not in pipelines:
        return ExaminedSpec(name, read_cache_spec(name), None, out or Path())
    elif name not in (*pipelines, *sweeps):
        known = sorted({*pipelines, *sweeps, *caches})
        hint = f"{did_you_mean(name, known)} (there are: {', '.join(known)})"
        raise SpecError(name, [f"no such file, and no pipeline, sweep or cache spec of this name{hint}"])
    if name in sweeps:
        name = read_sweep_spec(name).pipeline or name
    pipeline = read_pipeline_spec(name)
    return ExaminedSpec(pipeline.name, pipeline.cache, pipeline.dataset, out or Path("emofuse-runs") / pipeline.name)


def face_findings(spec: ExaminedSpec | None, replies: Mapping[str, ProbeReply]) -> list[Finding]:
    """Return the findings on the face detector of a spec, or on all detectors without a spec."""
    detectors = {probe.split()[1]: reply for probe, reply in replies.items() if probe.startswith("face ")}
    working = {detector: reply for detector, reply in detectors.items() if not reply.problem}
    findings = [
        Finding("faces", "ok", f"face.detector {detector!r} starts ({reply.value})")
        for detector, reply in working.items()
    ]
    worst: State = "fault" if spec or not working else "note"
    return findings + [
        Finding("faces", worst, f"face.detector {detector!r}: {reply.problem}")
        for detector, reply in detectors.items()
        if reply.problem
    ]


def weights_findings(spec: ExaminedSpec) -> list[Finding]:
    """Return a finding on the weights of each stream: they are here, random, or missing, with how to get them."""
    from emofuse.errors import EmofuseError
    from emofuse.streams import stream_weights

    findings = []
    for stream in spec.cache.streams:
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
    """Return the finding on which weights are on this machine, for an examination without a spec."""
    from emofuse.weights import stored_weights, weights_dir

    stored = [weights.name for weights in stored_weights()]
    if stored:
        return [Finding("weights", "ok", f"{', '.join(stored)}, in {weights_dir()}")]
    advice = "emofuse weights list, then emofuse weights fetch NAME"
    what = f"none in {weights_dir()}: only streams without a network work, or those with random weights"
    return [Finding("weights", "note", what, advice)]


def space_findings(spec: ExaminedSpec, replies: Mapping[str, ProbeReply], rows: int | None) -> list[Finding]:
    """Return the finding on whether the disk has space for what is missing of the cache."""
    existing = next(path for path in (spec.out.absolute(), *spec.out.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return [Finding(AREA, "fault", f"{existing} cannot be written to", "Name another folder with --out")]
    free = shutil.disk_usage(existing).free
    row_bytes = cache_bytes(spec.cache, replies, 1_000_000) / 1_000_000
    if rows is None:
        what = f"{row_bytes / 1e3:.1f} KB of cache per row; {free / 1e9:.1f} GB are free in {existing}"
        return [Finding(AREA, "note", what, "Add --data or --rows to see whether that is enough")]
    whole = cache_bytes(spec.cache, replies, rows)
    # The path of `ResultPaths`, whose package needs NumPy; a NumPy that is broken is a finding.
    there = sum(file_sizes(spec.out / "features.zarr").values())
    what = f"a cache of {rows} rows takes about {whole / 1e9:.2f} GB" + (
        f", {there / 1e9:.2f} GB of it are there" if there else ""
    )
    what = f"{what}; {free / 1e9:.1f} GB are free in {existing}"
    if whole - there > free:
        return [Finding(AREA, "fault", what, "Free some space, or name a folder on another disk with --out")]
    return [Finding(AREA, "ok", what)]


def cache_bytes(spec: CacheSpec, replies: Mapping[str, ProbeReply], rows: int) -> int:
    """Return about how many bytes a cache takes without imported streams: uncompressed chunks, the last one padded.

    Raises:
        ValueError: the shape of a stream is unknown.
    """
    from emofuse.cache.size import bytes_of_blocks, planned_layout

    block_rows = spec.rows_of_a_block(rows)
    streams = [stream for stream in spec.streams if stream.kind != "imported"]
    layouts = []
    for stream in streams:
        shape, dimensions = _shape(stream, replies)
        if spec.clip is not None and spec.clip.over_time == "sequence" and "image" in stream.needs:
            shape, dimensions = (spec.clip.frames, *shape), ("time", *dimensions)
        layouts.append(planned_layout(stream, shape, _FLAGS, dimensions))
    blocks = -(-rows // block_rows) * spec.views
    return bytes_of_blocks(layouts, block_rows, {layout.name: blocks for layout in layouts})


def count_rows(spec: ExaminedSpec, data: Path | None) -> int | None:
    """Return the number of rows of the dataset, or None if its place is unknown.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    if spec.dataset is None:
        return None
    if spec.dataset.generated_rows is not None:
        return spec.dataset.generated_rows
    root = data or spec.dataset.root
    if root is None:
        return None
    from emofuse.datasets import read_dataset

    return len(read_dataset(spec.dataset.model_copy(update={"root": root}), on_bad_rows="keep"))


def rows_findings(
    spec: ExaminedSpec, data: Path | None, replies: Mapping[str, ProbeReply], rows: int | None
) -> Sequence[Finding]:
    """Return the findings on the dataset and the disk, for the given rows or for those of the dataset."""
    from emofuse.errors import DatasetError

    try:
        return space_findings(spec, replies, rows if rows is not None else count_rows(spec, data))
    except DatasetError as error:
        return [Finding(AREA, "fault", str(error)), *space_findings(spec, replies, None)]


def _model(stream: StreamSpec) -> str | None:
    """Return the torchvision model of a backbone with pooled vectors of pictures, or None for another stream."""
    from emofuse.streams.backbones import BackboneSpec

    if not isinstance(stream, BackboneSpec):
        return None
    is_plain = (stream.library, stream.output, stream.input) == ("torchvision", "pooled", "image")
    return stream.model_name if is_plain else None


def _shape(stream: StreamSpec, replies: Mapping[str, ProbeReply]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the shape and the dimensions of a row of a stream for one picture or sound."""
    model = _model(stream)
    if model is not None:
        reply = replies[f"dim {model}"]
        if reply.problem:
            raise ValueError(f"{stream.name}: {reply.problem}")
        return (int(reply.value),), stream.stored_dimensions
    if stream.stored_shape is not None:
        return stream.stored_shape, stream.stored_dimensions
    from emofuse.errors import EmofuseError
    from emofuse.streams import make_stream

    try:  # some kinds know their shape only when they are opened
        with closing(make_stream(_without_weights(stream))) as extractor:
            return extractor.shape, extractor.dimensions
    except EmofuseError as error:
        raise ValueError(f"{stream.name}: {error}") from None


def _without_weights(stream: StreamSpec) -> StreamSpec:
    """Return a network by name with random weights: its shape is known before its weights are on this machine."""
    from emofuse.specs import RandomWeights
    from emofuse.streams.backbones import BackboneSpec
    from emofuse.streams.speech import SpeechSpec

    if isinstance(stream, BackboneSpec | SpeechSpec) and stream.model is not None:
        return stream.model_copy(update={"weights": RandomWeights()})
    return stream
