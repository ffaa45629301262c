"""`emofuse weights`: lists, downloads, imports and checks pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emofuse.cli.progress import show_progress
from emofuse.progress import step

app = typer.Typer(no_args_is_help=True, help="List, download, import and check pretrained weights.")


@app.command("list")
def list_weights() -> None:
    """Print all known weights with name, size, presence on this machine, licence and source."""
    from emofuse.weights import REGISTRY, stored_weights, weights_dir

    stored = {weights.name: weights for weights in stored_weights()}
    rows = []
    for entry in REGISTRY.values():
        here = "here" if entry.name in stored else "import only" if entry.url is None else ""
        size = f"{entry.size_mib:,.1f} MiB" if entry.size_mib else ""
        rows.append((entry.name, entry.model, size, here, entry.licence, entry.source))
    for name in sorted(stored.keys() - REGISTRY.keys()):
        size = f"{stored[name].size_bytes / 2**20:,.1f} MiB"
        rows.append((name, "your own", size, "here", "", stored[name].source))
    typer.echo(f"Folder: {weights_dir()} (EMOFUSE_WEIGHTS_DIR sets another), {len(stored)} here")
    header = ("name", "model", "size", "", "licence", "source")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="Names from `emofuse weights list`.")]) -> None:
    """Download weights and check them. An interrupted download continues; existing files are only checked."""
    from emofuse.weights import fetch_weights, find_entry

    for name in names:
        find_entry(name)  # a wrong name must end the command before any download
    for name in names:
        with show_progress(), step(f"fetching {name}", unit="bytes") as on_progress:
            stored = fetch_weights(name, on_progress=on_progress)
        typer.echo(f"{name}: {stored.path} ({stored.size_bytes:,} bytes, SHA-256 {stored.sha256})")


@app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="Path of a file of weights, which is copied.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name for a file that the registry does not know.", show_default="by its hash"),
    ] = None,
) -> None:
    """Copy a file of weights into the folder. It is recognised by its hash, or gets a name by --as."""
    from emofuse.weights import import_weights

    with show_progress(), step("copying and hashing"):
        stored = import_weights(path, name)
    typer.echo(f"{stored.name}: {stored.path} ({stored.size_bytes:,} bytes, SHA-256 {stored.sha256})")


@app.command()
def verify() -> None:
    """Hash every file of the folder again. Exit with status 1 if one is damaged or missing."""
    from emofuse.weights import verify_weights, weights_dir

    with show_progress(), step("hashing weights"):
        verdicts = verify_weights()
    for verdict in verdicts:
        typer.echo(f"{verdict.state:<10}  {verdict.name}" + (f"  ({verdict.detail})" if verdict.detail else ""))
    if not verdicts:
        typer.echo(f"No weights in {weights_dir()}")
    if any(verdict.state in ("damaged", "missing") for verdict in verdicts):
        raise typer.Exit(1)
