"""`emofuse export`: writes a trained model as an ONNX file, and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from emofuse.cli.options import Ensemble, Model, Plugins, load_given_plugins
from emofuse.cli.progress import show_progress
from emofuse.progress import step

CARD = "MODEL_CARD.md"


def export(
    run: Model,
    to: Annotated[
        Literal["onnx", "card"], typer.Option(help="onnx: an ONNX file and the model card; card: the card alone.")
    ] = "onnx",
    out: Annotated[Path, typer.Option(help="Folder of model.onnx and MODEL_CARD.md.")] = Path("exported"),
    with_backbone: Annotated[
        bool,
        typer.Option(
            "--with-backbone",
            help="Put the backbones into the graph, which then takes uint8 pictures; all streams must be backbones.",
        ),
    ] = False,
    samples: Annotated[
        list[Path] | None,
        typer.Option(
            "--samples",
            help="Files or folders on which the ONNX file is checked; repeat for more.",
            show_default="generated rows alone",
        ),
    ] = None,
    ensemble: Ensemble = False,
    plugin: Plugins = None,
) -> None:
    """Write a trained model as ONNX, checked against torch by onnxruntime, and a model card (Markdown).

    The graph takes the features of streams as they are extracted, and which rows have each stream; variants,
    standardisation, heads and their mean are inside. No file is written if its outputs differ from those of torch.
    """
    load_given_plugins(plugin)
    if to == "card" and (with_backbone or samples):
        raise typer.BadParameter("are options of an ONNX file", param_hint="--with-backbone and --samples")

    from emofuse.onnx_export import export_onnx, write_card
    from emofuse.predict import find_images, find_model, kinds_of_files
    from emofuse.predict.models import cache_spec_of
    from emofuse.results import check_results_folder

    check_results_folder(out)
    model = find_model(run, ensemble=ensemble)
    if model.reason:
        typer.echo(model.reason)
    exported = None
    with show_progress():
        if to == "onnx":
            kinds = kinds_of_files(cache_spec_of(model)) if samples else frozenset()
            files = [path for each in samples or () for path in find_images(each, kinds)]
            with step("writing and checking the ONNX file"):
                exported = export_onnx(
                    model, out / "model.onnx", with_backbone=with_backbone, samples=files, say=typer.echo
                )
            typer.echo(exported.path)
        with step("writing the model card"):
            write_card(model, out / CARD, exported)
    typer.echo(out / CARD)
