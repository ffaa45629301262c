"""`emofuse predict`: predicts images, clips and sounds with a saved run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emofuse.cli.options import Ensemble, Model, Plugins, load_given_plugins
from emofuse.cli.progress import show_progress
from emofuse.progress import step

if TYPE_CHECKING:
    from emofuse.predict import Prediction

_UNITS_SHOWN = 5


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Images, clips or sounds, as the run has seen, and folders of them.")
    ],
    run: Model,
    ensemble: Ensemble = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line instead of text.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device of backbones and head.")] = "cpu",
    plugin: Plugins = None,
) -> None:
    """Predict images, clips or sounds: probabilities or values, faces, and the strongest facial action units.

    Faces are looked for only if a stream of the run looks at them.

    Exit with status 1 if a file cannot be read; the others are predicted.
    """
    load_given_plugins(plugin)

    from emofuse.devices import resolve_device
    from emofuse.predict import Predictor, find_images
    from emofuse.specs import is_random

    def note(line: str) -> None:
        typer.echo(f"Note: {line}", err=True)

    unreadable = 0
    with Predictor(run, device=resolve_device(device), ensemble=ensemble) as predictor, show_progress():
        if predictor.model.reason:
            typer.echo(predictor.model.reason, err=True)
        paths = [path for each in images for path in find_images(each, predictor.kinds, say=note)]
        random = [name for name, stream in predictor.record.streams.items() if is_random(stream["weights"])]
        if random:
            typer.secho(f"RANDOM WEIGHTS in {', '.join(random)}: a demonstration, not a finding.", fg="red", err=True)
        with step("predicting", len(paths), "files") as advance:
            for number, prediction in enumerate(predictor.predict(paths), start=1):
                unreadable += prediction.problem is not None
                typer.echo(json.dumps(prediction.to_json()) if as_json else as_text(prediction))
                advance(number, len(paths))
    if unreadable:
        raise typer.Exit(1)


def as_text(prediction: Prediction) -> str:
    """Return a prediction as a few aligned lines."""
    if prediction.problem is not None:
        return f"{prediction.path}\n  cannot be read: {prediction.problem}"
    width = max(len(name) for name in (*prediction.probs, *prediction.values))
    lines = [str(prediction.path)]
    lines += [f"  {label:<{width}}  {prob:6.1%}  {'#' * round(prob * 30)}" for label, prob in prediction.probs.items()]
    lines += [f"  {name:<{width}}  {value:.4g}" for name, value in prediction.values.items()]
    if prediction.face is not None:
        lines.append(f"  face: {'found' if prediction.face else 'not found'}")
    if prediction.missing:
        lines.append("  without: " + ", ".join(f"{name} ({why})" for name, why in prediction.missing.items()))
    for unit in prediction.action_units[:_UNITS_SHOWN]:
        strength = "" if unit.activation is None else f"  {unit.activation:+5.1f} deviations from the baseline"
        lines.append(f"  {unit.name:<24} {unit.value:+7.3f}{strength}")
    return "\n".join(lines)
