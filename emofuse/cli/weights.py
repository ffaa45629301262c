"""`emofuse weights`: lists, downloads, imports and checks pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.cli.commands import Commands
from emofuse.cli.progress import show_progress
from emofuse.progress import step

if TYPE_CHECKING:
    from emofuse.weights import WeightsEntry

UNPUBLISHED = "No hash of it is published here: this one is recorded, and later checks compare with it."

app = typer.Typer(cls=Commands, no_args_is_help=True, help="List, download, import and check pretrained weights.")


@app.command("list")
def list_weights() -> None:
    """Print all known weights with name, size, presence on this machine, licence and source."""
    from emofuse.weights import REGISTRY, stored_weights, weights_dir

    stored = {weights.name: weights for weights in stored_weights()}
    rows = []
    for entry in REGISTRY.values():
        here = "here" if entry.name in stored else "import only" if entry.url is None else ""
        size = f"{entry.size_mib:,.1f} MiB" if entry.size_mib else ""
        source = entry.source if entry.sha256 or entry.url is None else f"{entry.source}; no published hash"
        rows.append((entry.name, entry.model, size, here, entry.licence, source))
    for name in sorted(stored.keys() - REGISTRY.keys()):
        size = f"{stored[name].size_bytes / 2**20:,.1f} MiB"
        rows.append((name, "your own", size, "here", "", stored[name].source))
    typer.echo(f"Folder: {weights_dir()} (EMOFUSE_WEIGHTS_DIR sets another), {len(stored)} here")
    header = ("name", "model", "size", "", "licence", "source")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names from `emofuse weights list`.", show_default=False)
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Repository of the Hugging Face hub to fetch a file from."),
    ] = None,
    file: Annotated[str, typer.Option(help="File in the repository.")] = "model.safetensors",
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of the repository.")] = None,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 of the file, which the hub shows beside it.")] = None,
) -> None:
    """Download weights and check them by their published hash. An interrupted download continues.

    Files that are there are only checked. Where no hash is published, that of the download is recorded, and later
    checks compare with it.

    The weights are those of the registry, by name, or a file of the Hugging Face hub: --hub OWNER/NAME --revision
    COMMIT --sha256 HASH. HF_ENDPOINT names a mirror, HF_TOKEN is sent to it.
    """
    from emofuse.weights import find_entry

    if not names and hub is None:
        raise typer.BadParameter("name weights from `emofuse weights list`, or a repository with --hub")
    entries = [find_entry(name) for name in names or []]  # a wrong name must end the command before any download
    if hub is not None:
        entries.append(_hub_entry(hub, file, revision, sha256))
    for entry in entries:
        _fetch(entry)


def _hub_entry(hub: str, file: str, revision: str | None, sha256: str | None) -> WeightsEntry:
    from emofuse.specs import HubWeights, parse_spec
    from emofuse.weights import hub_entry

    fields = {"repo": hub, "file": file, "revision": revision, "sha256": sha256}
    return hub_entry(
        parse_spec(HubWeights, {name: value for name, value in fields.items() if value is not None}, "--hub")
    )


def _fetch(entry: WeightsEntry) -> None:
    from emofuse.weights import fetch_entry

    with show_progress(), step(f"fetching {entry.name}", unit="bytes") as on_progress:
        stored = fetch_entry(entry, on_progress=on_progress)
    typer.echo(f"{entry.name}: {stored.path} ({stored.size_bytes:,} bytes, SHA-256 {stored.sha256})")
    if entry.sha256 is None:
        typer.echo(f"  {UNPUBLISHED}")


@app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="Path of a file of weights, which is copied.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option("--as", help="Name for a file that the registry does not know.", show_default="by its hash"),
    ] = None,
) -> None:
    """Copy a file of weights into the folder. It is recognised by its hash, or gets a name by --as."""
    from emofuse.weights import REGISTRY, import_weights

    with show_progress(), step("copying and hashing"):
        stored = import_weights(path, name)
    typer.echo(f"{stored.name}: {stored.path} ({stored.size_bytes:,} bytes, SHA-256 {stored.sha256})")
    entry = REGISTRY.get(stored.name)
    if entry is not None and entry.sha256 is None:
        typer.echo(f"  {UNPUBLISHED}")


@app.command()
def verify() -> None:
    """Hash every file of the folder again. Exit with status 1 if one is damaged or missing.

    Files are compared with their record, and with the published hash where there is one.
    """
    from emofuse.weights import verify_weights, weights_dir

    with show_progress(), step("hashing weights"):
        verdicts = verify_weights()
    for verdict in verdicts:
        typer.echo(f"{verdict.state:<10}  {verdict.name}" + (f"  ({verdict.detail})" if verdict.detail else ""))
    if not verdicts:
        typer.echo(f"No weights in {weights_dir()}")
    if any(verdict.state in ("damaged", "missing") for verdict in verdicts):
        raise typer.Exit(1)
