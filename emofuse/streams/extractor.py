"""The way from sources to rows: each file is decoded once, and its faces found once, for all streams.

A stream sees pictures, or every chosen frame of a clip as one picture, whose rows are then folded into one row (see
`over_time`). Streams of sounds and of whole clips receive each clip at once.

A failure on one picture, in any step, costs the status of that row and nothing else. A stream that fails on every
picture of a block runs again on a picture on which it worked before: if it fails there too, it raises.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from emofuse.datasets.sources import Source
from emofuse.media.files import FileSums
from emofuse.specs import CacheSpec, StreamSpec
from emofuse.specs.streams import looks_at_faces
from emofuse.status import Status
from emofuse.streams import make_stream, may_use_gpu
from emofuse.streams.base import Rows, Sample, SampleBatch, Stream, needs_of
from emofuse.streams.batches import BatchRunner, ClipBatch, PictureBatch, nothing
from emofuse.streams.block_extraction import Extraction, extract_all, store_all
from emofuse.streams.over_time import StoredStream, folded, stored_stream
from emofuse.streams.reading import ReadSample, SampleReader
from emofuse.streams.runtimes import NetworkRuntimes, Runtime, networks_on
from emofuse.streams.shared_networks import sharing_networks

OnReadRow = Callable[[int, FileSums], None]
"""Called with the index of a row and the length, time and checksum of the files that it was read from."""


class Extractor:
    """The open streams of a cache spec, for any number of blocks. Two threads must not use it at once.

    Example:
        >>> with Extractor(spec.streams, spec, device="cpu") as extractor:
        ...     extraction = extractor.extract(paths)

    Args:
        streams: the specs of the streams.
        cache_spec: the spec of the cache, whose decoding, faces and clips are those of the samples.
        device: the device of the networks, as torch names it.
        runtime: the runtime of the networks, see `emofuse.streams.runtimes`.
        threads: the threads of a compiled network; None means as many as PyTorch uses.

    Raises:
        StreamError: a stream or the face detector cannot run on this machine or in this runtime, or a stream not on
            such media.
        WeightsError: weights are missing or damaged.
    """

    def __init__(
        self,
        streams: Sequence[StreamSpec],
        cache_spec: CacheSpec,
        *,
        device: str,
        runtime: Runtime = "torch",
        threads: int | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in streams}
        self._steps = 1 if cache_spec.clip is None else cache_spec.clip.frames
        runtimes = NetworkRuntimes(runtime, device, threads=threads)
        with ExitStack() as opened, networks_on(runtimes):
            with sharing_networks():
                self._streams: dict[str, Stream] = {
                    spec.name: opened.enter_context(closing(make_stream(spec, device=device))) for spec in streams
                }
            self._stored = {
                name: stored_stream(stream, self._specs[name], cache_spec.clip)
                for name, stream in self._streams.items()
            }
            needs: frozenset[str] = frozenset().union(*map(needs_of, self._streams.values()))
            self._cache_spec = cache_spec
            self._reader = SampleReader(needs, cache_spec.decode, cache_spec.clip)
            on_gpu = {spec.name for spec in streams if device != "cpu" and may_use_gpu(spec)}
            self._runner = opened.enter_context(closing(BatchRunner(self._streams, on_gpu, cache_spec, device=device)))
            runtimes.compile_all()
            self._opened = opened.pop_all()
        self._notes = tuple(runtimes.notes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release models and native threads. The extractor is not used afterwards. A second call does nothing."""
        self._opened.close()

    def of_streams(self, names: Collection[str]) -> Self:
        """Return an extractor of some of the open streams. It shares them, is not closed, and opens nothing.

        Its rows are those of an extractor of these streams alone: a stream does not depend on those beside it.
        """
        streams = {name: stream for name, stream in self._streams.items() if name in names}
        needs: frozenset[str] = frozenset().union(*map(needs_of, streams.values()))
        part = copy.copy(self)
        vars(part).update(
            _streams=streams,
            _specs={name: self._specs[name] for name in streams},
            _stored={name: self._stored[name] for name in streams},
            _reader=SampleReader(needs, self._cache_spec.decode, self._cache_spec.clip),
            _runner=self._runner.of_streams(names),
        )
        return part

    @property
    def streams(self) -> dict[str, Stream]:
        """The open streams by name."""
        return dict(self._streams)

    @property
    def runtimes(self) -> dict[str, tuple[str, ...]]:
        """What computes the networks of each stream and of the faces that it sees; streams without any are left out."""
        of_faces = self._runner.face_runtime
        used = {
            name: {
                *({runtime} if (runtime := getattr(stream, "runtime", None)) else ()),
                *({of_faces} if of_faces and looks_at_faces(needs_of(stream)) else ()),
            }
            for name, stream in self._streams.items()
        }
        return {name: tuple(sorted(runtimes)) for name, runtimes in used.items() if runtimes}

    @property
    def runtime_notes(self) -> tuple[str, ...]:
        """Why networks compute with PyTorch although `auto` would compile them, one line each."""
        return self._notes

    @property
    def stored(self) -> dict[str, StoredStream]:
        """What is stored of each stream: on clips, image streams have an axis of time."""
        return dict(self._stored)

    def stored_dtype(self, name: str) -> np.dtype[np.floating[Any]]:
        """Return the dtype in which the features of a stream are stored."""
        return np.dtype(self._specs[name].dtype)

    def extract(self, sources: Sequence[Source | Path | None]) -> Extraction:
        """Extract the rows of one block of n >= 0 samples without augmentation.

        Args:
            sources: the sources, or paths of whole files; None for a bad row of the manifest, which is UNREADABLE.

        Raises:
            StreamError: a stream failed on every readable row of the block (two or more) and on a picture on which it
                worked before, broke its contract, or reports that it cannot run at all.
        """
        return self.extract_views(sources, [""] * len(sources), [0])[0]

    def extract_views(
        self,
        sources: Sequence[Source | Path | None],
        sample_ids: Sequence[str],
        views: Sequence[int],
        on_read: OnReadRow | None = None,
    ) -> dict[int, Extraction]:
        """Extract the rows of one block for several views. Each file is decoded once for all of them.

        The rows of a view do not depend on the other views of the call.

        Args:
            sources: the n sources, or paths of whole files; None for a bad row of the manifest, which is UNREADABLE.
            sample_ids: the n ids of the manifest, which decide the random draws of the views.
            views: the numbers of the views; 0 is the sample itself (see `emofuse.media.views`). All frames of a clip
                have the same draw.
            on_read: receives every row whose files were all read, also if they cannot be decoded.

        Raises:
            StreamError: for the reasons given at `extract`.
        """
        self._runner.start_block()
        block = _Block(self._runner, sample_ids, {view: self._unread(len(sources)) for view in views}, self._steps)
        for row, source in enumerate(map(Source.of, sources)):
            if source is not None:
                if source.face_box is not None:
                    block.choose_face(row, source.face_box)
                sample = self._reader.read(source, partial(block.add_picture, row), with_sums=on_read is not None)
                if on_read is not None and sample.sums is not None:
                    on_read(row, sample.sums)
                block.add(row, sample)
        block.finish()
        return {view: self._folded(parts, block) for view, parts in block.views.items()}

    def extract_samples(self, samples: SampleBatch, names: Collection[str] | None = None) -> Extraction:
        """Extract n >= 0 pictures that are decoded already, and whose faces were found, such as frames of a video.

        The rows are those that `extract` returns for the same pictures with the same faces.

        Args:
            samples: the pictures; work that streams share is done once, also over several calls with one batch.
            names: the streams of pictures to run; all of them unless given.

        Raises:
            StreamError: a stream broke its contract or reports that it cannot run at all.
        """
        chosen = {name: self._streams[name] for name in self._runner.of_pictures if names is None or name in names}
        empty = {
            name: Rows.empty_of(stream, len(samples), Status.UNREADABLE, self._specs[name].dtype)
            for name, stream in chosen.items()
        }
        extraction = Extraction(empty, [])
        if len(samples):
            store_all(extract_all(chosen, samples, {}), range(len(samples)), extraction)
        return extraction

    def _unread(self, count: int) -> _Parts:
        """Return the rows of n samples, none of which was read: of all their frames, and of the clips."""
        frames = {
            name: Rows.empty_of(
                self._streams[name],
                count * self._steps,
                Status.UNREADABLE,
                self._streams[name].dtype if self._stored[name].is_mean else self._specs[name].dtype,
            )
            for name in self._runner.of_pictures
        }
        clips = {
            name: Rows.empty_of(self._streams[name], count, Status.UNREADABLE, self._specs[name].dtype)
            for name in self._runner.of_clips
        }
        return _Parts(Extraction(frames, []), Extraction(clips, []))

    def _folded(self, parts: _Parts, block: _Block) -> Extraction:
        """Return the rows of the samples from those of their frames and of whole clips, with all problems."""
        for extraction in (parts.frames, parts.clips):
            extraction.problems.sort()
            self._runner.check(extraction)
        rows = parts.frames.rows | parts.clips.rows
        of_frames: dict[tuple[int, str], str] = {}
        for place, name, reason in parts.frames.problems:  # of several frames of a clip, the first one is named
            of_frames.setdefault((place // self._steps, name), reason)
        problems = [(row, name, reason) for (row, name), reason in of_frames.items() if row not in block.unseen]
        problems += parts.clips.problems
        for name in self._runner.of_pictures:
            stored = self._stored[name]
            if stored.steps is not None:
                dtype = np.dtype(self._specs[name].dtype)
                rows[name], broken = folded(stored, parts.frames.rows[name], dtype, block.unseen)
                problems += [(row, name, f"the mean of its features is not finite as {dtype}") for row in broken]
        problems += block.unreadable(self._runner)
        return Extraction({name: rows[name] for name in self._streams}, sorted(problems))


class _Parts:
    """The rows of one view: those of all frames, place by place, and those of whole clips."""

    def __init__(self, frames: Extraction, clips: Extraction) -> None:
        self.frames = frames
        self.clips = clips


class _Block:
    """The samples of one block on their way through micro-batches.

    Attributes:
        views: view -> its rows.
        unseen: row -> the reason why it has no picture or frames.
        unheard: row -> the reason why it has no sound.
    """

    def __init__(self, runner: BatchRunner, sample_ids: Sequence[str], views: dict[int, _Parts], steps: int) -> None:
        self.views = views
        self.unseen: dict[int, str] = {}
        self.unheard: dict[int, str] = {}
        self._runner = runner
        self._boxes: dict[int, npt.NDArray[np.float32]] = {}
        self._ids = sample_ids
        self._steps = steps
        self._pictures = PictureBatch()
        self._clips = ClipBatch()
        self._finish: Callable[[], None] = nothing

    def add_picture(self, row: int, step: int, time_s: float, image: npt.NDArray[np.uint8]) -> None:
        """Add a picture, or a frame of a clip."""
        self._pictures.add(row * self._steps + step, time_s, image, self._boxes.get(row))
        if self._pictures.full:
            self._run_pictures()

    def choose_face(self, row: int, box: tuple[float, float, float, float]) -> None:
        """Choose the face of a sample by its left, top, width and height."""
        left, top, width, height = box
        self._boxes[row] = np.array([left, top, left + width, top + height], dtype=np.float32)

    def add(self, row: int, sample: ReadSample) -> None:
        """Add what was read of a sample besides its pictures."""
        if sample.picture_problem is not None:
            self.unseen[row] = sample.picture_problem
        if sample.sound_problem is not None:
            self.unheard[row] = sample.sound_problem
        if sample.sound is not None or sample.clip is not None:
            self._clips.add(row, Sample(sound=sample.sound, clip=sample.clip))
            if self._clips.full:
                self._run_clips()

    def finish(self) -> None:
        """Run the streams on what is left, and wait for all of them."""
        self._run_pictures()
        self._run_clips()
        self._finish()

    def unreadable(self, runner: BatchRunner) -> list[tuple[int, str, str]]:
        """Return the problems of samples without pictures or sounds; stream "" if no stream has anything of them."""
        problems = []
        for row in sorted(self.unseen.keys() | self.unheard.keys()):
            reasons: dict[str, str] = {}
            for name in (*runner.of_pictures, *runner.of_clips):
                missing = [self.unseen.get(row)] * runner.sees(name) + [self.unheard.get(row)] * runner.hears(name)
                found = list(dict.fromkeys(reason for reason in missing if reason is not None))
                if found:
                    reasons[name] = "; ".join(found)
            if len(reasons) == len(runner.of_pictures) + len(runner.of_clips) and len(set(reasons.values())) == 1:
                problems.append((row, "", next(iter(reasons.values()))))
            else:
                problems += [(row, name, reason) for name, reason in reasons.items()]
        return problems

    def _run_pictures(self) -> None:
        for view, parts in self.views.items():
            before, self._finish = (
                self._finish,
                self._runner.start_pictures(self._pictures, self._ids, view, parts.frames),
            )
            before()
        self._pictures = PictureBatch()

    def _run_clips(self) -> None:
        for view, parts in self.views.items():
            self._runner.run_clips(self._clips, self._ids, view, parts.clips)
        self._clips = ClipBatch()
