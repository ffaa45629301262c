"""`emofuse predict`: predicts images, clips and sounds with a saved run, and videos frame by frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emofuse.cli.options import Ensemble, Model, Plugins, Runtime, load_given_plugins
from emofuse.cli.progress import show_progress
from emofuse.cli.terminal import StoppedByUser
from emofuse.progress import step

if TYPE_CHECKING:
    from emofuse.datasets.sources import Source
    from emofuse.media.frames import FrameChoice
    from emofuse.predict import Prediction, Predictor
    from emofuse.predict.inputs import VideoInput
    from emofuse.predict.interrupt import StopRequest
    from emofuse.predict.rows import RowTable, RowWriter
    from emofuse.predict.video import VideoSummary

_UNITS_SHOWN = 5


@dataclass
class _Job:
    """One call of the command: what is written, and how it ended."""

    table: RowTable
    rows: RowWriter | None
    as_json: bool
    stop: StopRequest
    unreadable: int = 0
    written: list[Path] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _VideoOptions:
    choice: FrameChoice
    smooth_s: float
    follow: bool
    annotate: Path | None
    draw: Literal["box", "mesh", "both"]


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images, videos, clips or sounds, and folders of them; a camera by its number, 0 for the first; or "
            "the address of a video, rtsp://... or https://..."
        ),
    ],
    run: Model,
    ensemble: Ensemble = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of text.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write a table, .csv or .parquet, with a row for each frame and face, or image.")
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="Write the video as MP4, with faces, emotions and action units drawn on it.")
    ] = None,
    draw: Annotated[Literal["box", "mesh", "both"], typer.Option(help="What --annotate draws of a face.")] = "box",
    every: Annotated[
        str, typer.Option(help="Take every n-th frame of a video (5), or a frame in a time (0.2s).")
    ] = "1",
    start: Annotated[str | None, typer.Option("--from", help="Begin of the span of a video: 12.5 or 1:02:03.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="End of the span of a video.")] = None,
    smooth: Annotated[
        str, typer.Option(help="Time constant of the smoothing of a face's outputs over time; 0 for none.")
    ] = "0.5s",
    follow: Annotated[
        bool,
        typer.Option(
            help="Follow faces from frame to frame, which is faster; otherwise detect every frame as an image."
        ),
    ] = True,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of backbones and head.")] = "cpu",
    runtime: Runtime = "auto",
    plugin: Plugins = None,
) -> None:
    """Predict images, videos, clips or sounds: probabilities or values, faces, and the strongest action units.

    A run on images predicts a video frame by frame: faces are numbered and followed, and the outputs of each smoothed
    over time. A run on clips predicts a clip as a whole. Faces are looked for only if a stream of the run looks at
    them.

    Ctrl-C ends behind the present frame and finishes all files. Exit with status 1 if a file cannot be read; the others
    are predicted.
    """
    load_given_plugins(plugin)

    from emofuse.machine.devices import resolve_device
    from emofuse.media.frames import FrameChoice
    from emofuse.predict import Predictor
    from emofuse.predict.inputs import find_inputs, parse_every, parse_seconds
    from emofuse.predict.interrupt import stop_on_interrupt
    from emofuse.predict.rows import RowTable, writing_rows
    from emofuse.specs import is_random

    number, every_s = parse_every(every)
    span = [None if text is None else parse_seconds(text, name) for text, name in ((start, "--from"), (end, "--to"))]
    choice = FrameChoice(every=number, every_s=every_s, start_s=span[0], end_s=span[1])
    options = _VideoOptions(choice, parse_seconds(smooth, "--smooth"), follow, annotate, draw)
    with ExitStack() as opened:
        predictor = opened.enter_context(
            Predictor(run, device=resolve_device(device), ensemble=ensemble, runtime=runtime)
        )
        if predictor.model.reason:
            typer.echo(predictor.model.reason, err=True)
        opened.enter_context(show_progress())
        files, videos = find_inputs(images, predictor.kinds, say=_note)
        _check_outputs(out, options, files, videos)
        random = [name for name, stream in predictor.record.streams.items() if is_random(stream["weights"])]
        if random:
            typer.secho(f"RANDOM WEIGHTS in {', '.join(random)}: a demonstration, not a finding.", fg="red", err=True)
        stop = opened.enter_context(stop_on_interrupt())
        table = RowTable(predictor)
        rows = None if out is None else opened.enter_context(writing_rows(out, table))
        job = _Job(table, rows, as_json, stop, written=[] if out is None else [out])
        _predict_files(predictor, files, job)
        _predict_videos(predictor, videos, options, job)
    if job.stop.is_asked():
        kept = f" {' and '.join(map(str, job.written))}: whole up to there." if job.written else ""
        typer.echo(f"Stopped: {'; '.join(job.done) or 'nothing was predicted'}.{kept}", err=True)
        raise StoppedByUser
    if job.written:
        typer.echo(f"Written: {', '.join(map(str, job.written))}", err=True)
    if job.unreadable:
        raise typer.Exit(1)


def _note(line: str) -> None:
    typer.echo(f"Note: {line}", err=True)


def _check_outputs(
    out: Path | None, options: _VideoOptions, files: list[Path | Source], videos: list[VideoInput]
) -> None:
    """Raise before any work if outputs cannot be written, would overwrite an input, or have no video."""
    from emofuse.predict.rows import check_table_path
    from emofuse.predict.video_writer import check_video_path

    if out is not None:
        check_table_path(out)
    if options.annotate is not None:
        check_video_path(options.annotate)
        if len(videos) != 1:
            found = "no video" if not videos else f"{len(videos)} videos"
            raise typer.BadParameter(f"one video is annotated at a time, got {found}", param_hint="--annotate")
    inputs = {path.resolve() for path in (*files, *videos) if isinstance(path, Path)}
    for path in (out, options.annotate):
        if path is not None and path.resolve() in inputs:
            raise typer.BadParameter(f"{path} is an input; name another file to write", param_hint="--out, --annotate")


def _predict_files(predictor: Predictor, files: list[Path | Source], job: _Job) -> None:
    """Predict images, clips and sounds as wholes."""
    if not files:
        return
    done: set[Path] = set()
    with step("predicting", len(files), "files") as advance:
        for prediction in predictor.predict(files):  # of a picture with several faces there may be several
            job.unreadable += prediction.problem is not None
            typer.echo(json.dumps(prediction.to_json()) if job.as_json else as_text(prediction))
            if job.rows is not None:
                job.rows.add([job.table.of_file(prediction)])
            done.add(prediction.path)
            advance(min(len(done), len(files)), len(files))
            if job.stop.is_asked():
                break
    job.done.append(f"{len(done)} of {len(files)} files")


def _predict_videos(predictor: Predictor, videos: list[VideoInput], options: _VideoOptions, job: _Job) -> None:
    """Predict videos frame by frame."""
    from emofuse.predict.frames import FramePredictor

    if not videos or job.stop.is_asked():
        return
    with FramePredictor(predictor, smooth_s=options.smooth_s, follow=options.follow) as frames:
        for source in videos:
            summary = _predict_video(frames, source, options, job)
            if summary.problem is not None:
                job.unreadable += 1
            if not job.as_json:
                typer.echo(video_text(str(source), summary, predictor.record.classes, predictor.record.target_kind))
            elif summary.problem is not None:
                typer.echo(json.dumps({"path": str(source), "problem": summary.problem}))
            until = "" if summary.last_s is None else f" up to {summary.last_s:.1f} s"
            job.done.append(f"{summary.frames} frames and {summary.rows} rows of {source}{until}")
            if job.stop.is_asked():
                return


def _predict_video(frames: Any, source: VideoInput, options: _VideoOptions, job: _Job) -> VideoSummary:
    from emofuse.errors import DecodeError
    from emofuse.media.frames import read_facts
    from emofuse.predict.ahead import ReadAhead
    from emofuse.predict.drawing import Drawer
    from emofuse.predict.inputs import is_live, video_frames
    from emofuse.predict.video import VideoSummary, expected_frames, predict_video
    from emofuse.predict.video_writer import writing_video

    facts = None
    if isinstance(source, Path):
        try:
            facts = read_facts(source)
        except DecodeError as error:
            return VideoSummary(problem=str(error))
    predictor: Predictor = frames.predictor
    with ExitStack() as opened:
        receivers: list[Callable[[Any], None]] = []
        if job.rows is not None or job.as_json:
            receivers.append(lambda predicted: _put_rows(job.table.of_frame(str(source), predicted), job))
        if options.annotate is not None:
            rate = None if facts is None else facts.rate_hz
            sound = source if facts is not None and facts.has_sound and isinstance(source, Path) else None
            video = opened.enter_context(writing_video(options.annotate, rate_hz=rate, sound_of=sound))
            drawer = Drawer(predictor.record.classes, predictor.record.target_kind, options.draw)
            receivers.append(lambda predicted: video.add(predicted.frame.time_s, drawer.draw(predicted)))
        read = video_frames(source, options.choice, predictor.spec.decode)
        ahead = opened.enter_context(ReadAhead(read, newest=is_live(source), stop=job.stop))
        total = None if facts is None else expected_frames(facts, options.choice)
        summary = predict_video(iter(ahead), frames, receivers, total=total, is_stopped=job.stop.is_asked)
    if options.annotate is not None and summary.frames:
        job.written.append(options.annotate)
        if video.sound is not None:
            _note(video.sound)
    return summary


def _put_rows(rows: list[dict[str, Any]], job: _Job) -> None:
    if job.rows is not None:
        job.rows.add(rows)
    if job.as_json:
        for row in rows:
            typer.echo(json.dumps({name: value for name, value in row.items() if value is not None}))


def video_text(name: str, summary: VideoSummary, classes: Any, kind: str) -> str:
    """Return what was predicted of a video as a few lines, one for each face."""
    lines = [f"{name}"]
    if summary.last_s is not None:
        lines.append(f"  {summary.frames} frames up to {summary.last_s:.1f} s")
    for number, face in sorted(summary.faces.items(), key=lambda item: (item[0] is None, item[0] or 0)):
        mean = face.mean
        title = "without a face" if number is None else f"face {number}"
        if number is None and len(summary.faces) == 1 and mean is not None:
            title = "mean of all frames"
        text = f"  {title}: {face.frames} frames from {face.first_s:.1f} to {face.last_s:.1f} s"
        if mean is not None:
            order = range(len(mean)) if kind == "regression" else (-mean).argsort(kind="stable")[:3]
            form = ".3g" if kind == "regression" else ".1%"
            text += "; on average " + ", ".join(f"{classes[place]} {mean[place]:{form}}" for place in order)
        lines.append(text)
    if summary.problem is not None:
        lines.append(f"  {'ends early' if summary.frames else 'cannot be read'}: {summary.problem}")
    return "\n".join(lines)


def _place(prediction: Prediction) -> str:
    if prediction.face_box is None:
        return ""
    left, top, width, height = prediction.face_box
    return f" at ({left:.0f}, {top:.0f}), {width:.0f} x {height:.0f} pixels"


def as_text(prediction: Prediction) -> str:
    """Return a prediction as a few aligned lines."""
    if prediction.problem is not None:
        return f"{prediction.path}\n  cannot be read: {prediction.problem}"
    width = max(len(name) for name in (*prediction.probs, *prediction.values))
    lines = [str(prediction.path)]
    lines += [f"  {label:<{width}}  {prob:6.1%}  {'#' * round(prob * 30)}" for label, prob in prediction.probs.items()]
    lines += [f"  {name:<{width}}  {value:.4g}" for name, value in prediction.values.items()]
    if prediction.face is not None:
        lines.append(f"  face: {'found' if prediction.face else 'not found'}{_place(prediction)}")
    if prediction.missing:
        lines.append("  without: " + ", ".join(f"{name} ({why})" for name, why in prediction.missing.items()))
    for unit in prediction.action_units[:_UNITS_SHOWN]:
        strength = "" if unit.activation is None else f"  {unit.activation:+5.1f} deviations from the baseline"
        lines.append(f"  {unit.name:<24} {unit.value:+7.3f}{strength}")
    return "\n".join(lines)
