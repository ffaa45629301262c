"""Is this machine ready: packages, devices, faces, weights, disk; and what a build of a spec would need.

Nothing heavy is imported in this process: what loads foreign code is looked at in another one (`emofuse.doctor.probe`),
so that a broken package is a line of the report and not its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emofuse.doctor.findings import Finding, guarded
from emofuse.doctor.machine import AREA as MACHINE
from emofuse.doctor.machine import capacity_findings, machine_findings
from emofuse.doctor.needs import AREA as SPEC
from emofuse.doctor.needs import (
    Wanted,
    face_findings,
    find_wanted,
    rows_findings,
    stored_weights_findings,
    weights_findings,
)
from emofuse.doctor.packages import AREA as PACKAGES_AREA
from emofuse.doctor.packages import PACKAGES, package_findings
from emofuse.doctor.probe import ask

__all__ = ["Finding", "areas", "examine"]

_EITHER_DETECTOR = ("face face_mesh", "face landmarker")


def examine(
    name: str | None = None, *, data: Path | None = None, rows: int | None = None, out: Path | None = None
) -> list[Finding]:
    """Looks at everything. Takes some ten seconds, mostly for importing every package once.

    Args:
        name: of a pipeline, sweep or cache spec, or its YAML file; None looks at the machine alone.
        data: root of the dataset, to count its rows.
        rows: of the cache, in place of counting them.
        out: folder of the cache; the pipeline's own by default.

    Returns:
        Findings, those of an area side by side.

    Raises:
        SpecError: there is no such spec, or it has faults.
    """
    wanted, broken = _wanted(name, out)
    looks = [package.look for package in PACKAGES]
    answers = ask([*looks, "cuda", "bfloat16", "codec", *(wanted.looks if wanted else _EITHER_DETECTOR)])
    kinds = wanted.kinds if wanted else None
    findings = guarded(PACKAGES_AREA, lambda: package_findings(answers, kinds))
    findings += guarded(MACHINE, lambda: list(machine_findings(answers)))
    findings += guarded(MACHINE, capacity_findings)
    findings += guarded("faces", lambda: face_findings(wanted, answers))
    if wanted is None:
        return [*findings, *guarded("weights", stored_weights_findings), *broken]
    findings += guarded(SPEC, lambda: weights_findings(wanted))
    return findings + guarded(SPEC, lambda: list(rows_findings(wanted, data, answers, rows)))


def _wanted(name: str | None, out: Path | None) -> tuple[Wanted | None, list[Finding]]:
    """What is examined for; a finding in its place if specs cannot even be read.

    Raises:
        SpecError: as `examine`.
    """
    if name is None:
        return None, []
    from emofuse.errors import SpecError

    found: list[Wanted] = []
    faults: list[SpecError] = []

    def look() -> list[Finding]:
        try:
            found.append(find_wanted(name, out))
        except SpecError as error:
            faults.append(error)
        return []

    broken = guarded(SPEC, look)
    if faults:
        raise faults[0]
    return (found[0] if found else None), broken


def areas(findings: list[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """(area, its findings), in the order in which areas first appear."""
    for area in dict.fromkeys(finding.area for finding in findings):
        yield area, [finding for finding in findings if finding.area == area]
