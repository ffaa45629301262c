"""The examination of a machine: packages, devices, faces, weights, disk, and what a build of a spec needs.

This process imports nothing heavy. Foreign code is loaded in another process (`emofuse.doctor.probe`), so that a broken
package becomes a line of the report and does not end it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emofuse.doctor.findings import Finding, guarded
from emofuse.doctor.machine import AREA as MACHINE
from emofuse.doctor.machine import capacity_findings, machine_findings
from emofuse.doctor.needs import AREA as SPEC
from emofuse.doctor.needs import (
    ExaminedSpec,
    face_findings,
    find_spec,
    rows_findings,
    stored_weights_findings,
    weights_findings,
)
from emofuse.doctor.packages import AREA as PACKAGES_AREA
from emofuse.doctor.packages import PACKAGES, package_findings
from emofuse.doctor.probe import run_probes

__all__ = ["Finding", "areas", "examine"]

_EITHER_DETECTOR = ("face face_mesh", "face landmarker", "face yunet", "face retinaface")


def examine(
    name: str | None = None, *, data: Path | None = None, rows: int | None = None, out: Path | None = None
) -> list[Finding]:
    """Examine the machine, which takes about ten seconds, mostly for importing every package once.

    Args:
        name: the name of a pipeline, sweep or cache spec, or its YAML file; None examines the machine alone.
        data: the root of the dataset, to count its rows.
        rows: the rows of the cache; they are not counted then.
        out: the folder of the cache; the pipeline's own folder by default.

    Returns:
        The findings, those of an area side by side.

    Raises:
        SpecError: there is no such spec, or it has faults.
    """
    spec, unreadable = _spec(name, out)
    probes = [package.probe for package in PACKAGES]
    of_machine = ("cuda", "bfloat16", "products", "runtime", "codec")
    replies = run_probes([*probes, *of_machine, *(spec.probes if spec else _EITHER_DETECTOR)])
    kinds = spec.kinds if spec else None
    findings = guarded(PACKAGES_AREA, lambda: package_findings(replies, kinds))
    findings += guarded(MACHINE, lambda: list(machine_findings(replies)))
    findings += guarded(MACHINE, capacity_findings)
    findings += guarded("faces", lambda: face_findings(spec, replies))
    if spec is None:
        return [*findings, *guarded("weights", stored_weights_findings), *unreadable]
    findings += guarded(SPEC, lambda: weights_findings(spec))
    return findings + guarded(SPEC, lambda: list(rows_findings(spec, data, replies, rows)))


def _spec(name: str | None, out: Path | None) -> tuple[ExaminedSpec | None, list[Finding]]:
    """Return the spec of a name, or a finding in its place if a broken package keeps specs from being read.

    Raises:
        SpecError: there is no such spec, or it has faults.
    """
    if name is None:
        return None, []
    from emofuse.errors import SpecError

    specs: list[ExaminedSpec] = []
    faults: list[SpecError] = []

    def read() -> list[Finding]:
        try:
            specs.append(find_spec(name, out))
        except SpecError as error:
            faults.append(error)
        return []

    unreadable = guarded(SPEC, read)
    if faults:
        raise faults[0]
    return (specs[0] if specs else None), unreadable


def areas(findings: list[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Iterate over (area, its findings), in the order in which areas first appear."""
    for area in dict.fromkeys(finding.area for finding in findings):
        yield area, [finding for finding in findings if finding.area == area]
