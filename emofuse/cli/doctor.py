"""`emofuse doctor`: checks whether this machine is ready, in general or for one spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emofuse.wording import count_of

if TYPE_CHECKING:
    from emofuse.doctor import Finding

_COLOURS = {"ok": "green", "note": "yellow", "fault": "red"}


def doctor(
    spec: Annotated[
        str | None, typer.Argument(help="A pipeline, sweep or cache spec: its name or YAML file.", show_default="none")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Root of the dataset, whose rows are counted.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Number of rows of the cache, instead of --data.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the cache.", show_default="the pipeline's, or this one")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for the report of a fault.")] = False,
) -> None:
    """Check packages, devices, memory, faces, weights and disk, and print what to do about problems.

    Every package is imported once in a separate process, which takes some ten seconds. Exit with status 1 if something
    is missing or broken that the spec needs or, without a spec, that emofuse needs.
    """
    from emofuse.doctor import areas, examine

    findings = examine(spec, data=data, rows=rows, out=out)
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        for area, area_findings in areas(findings):
            typer.echo(f"{area}")
            for finding in area_findings:
                typer.secho(f"  {finding.state:<5}", fg=_COLOURS[finding.state], nl=False)
                typer.echo(f"  {_text(finding)}")
        _print_verdict(findings)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def _text(finding: Finding) -> str:
    return f"{finding.what}\n         -> {finding.advice}" if finding.advice else finding.what


def _print_verdict(findings: list[Finding]) -> None:
    faults = sum(finding.state == "fault" for finding in findings)
    verdict = count_of(faults, "fault") if faults else "ready"
    typer.echo(f"\n{verdict}")
