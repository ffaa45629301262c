"""`emofuse live`: shows a camera, an address or a video with predictions as they come."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emofuse.cli.options import Ensemble, Model, Plugins, Runtime, load_given_plugins
from emofuse.cli.terminal import StoppedByUser

if TYPE_CHECKING:
    from emofuse.predict.live import LiveSummary, Viewer


def live(
    run: Model,
    ensemble: Ensemble = False,
    source: Annotated[
        str, typer.Argument(help="A camera by its number, the address of a video (rtsp://...), or a video file.")
    ] = "0",
    view: Annotated[
        Literal["auto", "window", "page"],
        typer.Option(help="A window, or a page for a browser of this machine; a window if there is a display."),
    ] = "auto",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for a free one.")] = 0,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames a second to keep up with, for --drop-slow.")] = 30.0,
    drop_slow: Annotated[
        bool, typer.Option("--drop-slow", help="Leave out the streams that cannot keep up with --fps.")
    ] = False,
    smooth: Annotated[
        str, typer.Option(help="Time constant of the smoothing of a face's outputs over time; 0 for none.")
    ] = "0.5s",
    draw: Annotated[Literal["box", "mesh", "both"], typer.Option(help="What is drawn of a face.")] = "box",
    follow: Annotated[bool, typer.Option(help="Follow faces from frame to frame, which is faster.")] = True,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of backbones and head.")] = "cpu",
    runtime: Runtime = "auto",
    plugin: Plugins = None,
) -> None:
    """Show a camera or video live, with faces, probabilities, and the time of each step.

    Nothing is written to disk, and no frame leaves this machine: the page can be opened on this machine alone. Frames
    that come while another one is predicted are skipped. Ctrl-C ends.
    """
    load_given_plugins(plugin)

    from emofuse.datasets.names import NameKind
    from emofuse.errors import DatasetError, DecodeError
    from emofuse.machine.devices import resolve_device
    from emofuse.media.frames import FrameChoice, read_facts
    from emofuse.predict import Predictor
    from emofuse.predict.drawing import Drawer
    from emofuse.predict.frames import FramePredictor
    from emofuse.predict.inputs import is_live, parse_input, parse_seconds, video_frames
    from emofuse.predict.interrupt import stop_on_interrupt
    from emofuse.predict.live import at_its_speed, watch
    from emofuse.predict.pace import SlowStreams
    from emofuse.specs import is_random

    given, smooth_s = parse_input(source), parse_seconds(smooth, "--smooth")
    if isinstance(given, Path):
        try:
            read_facts(given)  # a file that is missing or no video is said before anything is loaded
        except DecodeError as error:
            raise DatasetError(f"{given}: {error}") from None
    with ExitStack() as opened:
        predictor = opened.enter_context(
            Predictor(run, device=resolve_device(device), ensemble=ensemble, runtime=runtime)
        )
        if predictor.model.reason:
            typer.echo(predictor.model.reason, err=True)
        record = predictor.record
        if NameKind.IMAGE not in predictor.kinds:
            kinds = " or ".join(sorted(predictor.kinds))
            raise DatasetError(f"{run}: the run predicts whole {kinds}s; live prediction needs a run on images")
        random = [name for name, stream in record.streams.items() if is_random(stream["weights"])]
        if random:
            typer.secho(f"RANDOM WEIGHTS in {', '.join(random)}: a demonstration, not a finding.", fg="red", err=True)
        frames = opened.enter_context(FramePredictor(predictor, smooth_s=smooth_s, follow=follow))
        stop = opened.enter_context(stop_on_interrupt())
        viewer = opened.enter_context(closing(_open_viewer(view, port)))
        read = video_frames(given, FrameChoice(), predictor.spec.decode)
        slow = SlowStreams(fps, list(record.streams), frames.of_faces) if drop_slow else None
        summary = watch(
            read if is_live(given) or not isinstance(given, Path) else at_its_speed(read),
            frames,
            Drawer(record.classes, record.target_kind, draw),
            viewer,
            stop=stop,
            slow=slow,
            say=lambda line: typer.echo(line, err=True),
        )
    _say_summary(str(given), summary)
    if stop.is_asked():
        raise StoppedByUser
    if summary.problem is not None:
        raise typer.Exit(1)


def _open_viewer(view: str, port: int) -> Viewer:
    from emofuse.errors import DeviceError
    from emofuse.predict.live_page import LivePage
    from emofuse.predict.live_window import LiveWindow, can_open_window

    if view != "page":
        if can_open_window():
            typer.echo("A window shows the predictions. Ctrl-C, q or Escape ends.", err=True)
            return LiveWindow()
        if view == "window":
            raise DeviceError(
                "no window can be opened: there is no display, or the installed OpenCV has no windows. Use --view page"
            )
    page = LivePage(port)
    typer.echo(f"Open on this machine: {page.url}", err=True)
    typer.echo("No frame leaves this machine, and none is written to disk. Ctrl-C ends.", err=True)
    return page


def _say_summary(name: str, summary: LiveSummary) -> None:
    steps = ", ".join(f"{step} {seconds * 1000:.1f}" for step, seconds in (summary.steps or {}).items())
    typer.echo(
        f"{name}: {summary.frames} frames shown, {summary.skipped} skipped, {summary.rate_hz:.1f} frames/s at the end"
        + (f"; median ms a frame: {steps}" if steps else ""),
        err=True,
    )
    if summary.problem is not None:
        typer.echo(f"{name}: {summary.problem}", err=True)
