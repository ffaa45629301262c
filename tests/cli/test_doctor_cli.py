"""`emofuse doctor` in real processes, with packages that are there and packages that are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from emofuse.cli import app
from emofuse.doctor import areas, examine
from emofuse.doctor.findings import Finding, guarded
from emofuse.doctor.probe import ProbeReply
from emofuse.errors import SpecError


def doctor(*options, breaking=None, tmp_path=None):
    """Exit status and output of a fresh interpreter, in which some packages are replaced by code that breaks."""
    environment = dict(os.environ)
    if breaking:
        for name, code in breaking.items():
            (tmp_path / f"{name}.py").write_text(code)
        found = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *([found] if found else [])])
    command = [sys.executable, "-c", "from emofuse.cli import main; main()", "doctor", *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_machine_that_is_ready_for_a_spec(tmp_path, face):
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"{{face: {{detector: {face['detector']}}}, streams: [{{kind: lbp}}]}}")
    status, out, _ = doctor(spec, "--rows", 1000, "--out", tmp_path)
    assert status == 0, out
    lines = out.splitlines()
    assert lines[0] == "packages"
    assert "numpy " in lines[1]
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "packages",
        "machine",
        "faces",
        "this spec",
        "ready",
    ]
    assert "a cache of 1000 rows takes about 0.00 GB" in out


@pytest.fixture
def well(monkeypatch):
    """Every look answers that all is well, but for those named."""
    fine = {
        "cuda": [],
        "codec": "zarrs.ZarrsCodecPipeline",
        "bfloat16": 1.0,
        "products": 1.0,
        "dim resnet18": 512,
        "dim resnet50": 2048,
    }
    fine["runtime"] = {"auto": "openvino", "by_variable": False, "openvino": "2026.4.1", "speed_up": 2.0}

    def but(**problems):
        told = {f"import {name}": ProbeReply(None, problem) for name, problem in problems.items()}
        monkeypatch.setattr(
            "emofuse.doctor.run_probes",
            lambda looks: {look: told.get(look, ProbeReply(fine.get(look, "1"))) for look in looks},
        )

    but()
    return but


def call(*options):
    return CliRunner().invoke(app, ["doctor", *map(str, options)], catch_exceptions=False)


def test_missing_weights_are_faults_with_the_command_that_gets_them(tmp_path, well):
    spec = tmp_path / "mine.yaml"
    spec.write_text("streams: [{kind: places365}, {kind: objects}]")
    done = call(spec, "--json")
    assert done.exit_code == 1
    faults = [finding for finding in json.loads(done.stdout) if finding["state"] == "fault"]
    assert [finding["what"].split("Get them: ")[1] for finding in faults] == [
        "emofuse weights fetch places365",
        "emofuse weights fetch yolov5nu",
    ]


def test_without_a_spec_the_machine_is_looked_at(well):
    done = call()
    assert done.exit_code == 0
    headings = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert headings == ["packages", "machine", "faces", "weights", "ready"]


def test_a_package_that_the_spec_does_not_need_may_be_broken(tmp_path, well):
    spec = tmp_path / "mine.yaml"
    spec.write_text("streams: [{kind: backbone, model: resnet18, weights: {kind: random}}]")
    well(ultralytics="ImportError: no", mediapipe="ImportError: no")
    done = call(spec, "--rows", 10, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("(not needed): ImportError: no") == 2
    assert call().exit_code == 1


def test_specs_that_cannot_even_be_read_are_a_fault(well, monkeypatch):
    def broken(*_):
        raise ImportError("no yaml")

    monkeypatch.setattr("emofuse.doctor.find_spec", broken)
    done = call("demo")
    assert done.exit_code == 1
    assert "could not be examined: ImportError: no yaml" in done.stdout
    assert done.stdout.endswith("\n1 fault\n")


@pytest.mark.slow
def test_broken_and_missing_packages_are_lines_of_the_report_and_not_its_end(tmp_path):
    breaking = {
        "numpy": "raise ImportError('libopenblas.so: cannot open shared object file')",
        "ultralytics": "raise ModuleNotFoundError(\"No module named 'ultralytics'\", name='ultralytics')",
        "cv2": "import os; os._exit(134)",
        "psutil": "raise ImportError('half an installation')",
    }
    status, out, err = doctor("demo", "--out", tmp_path / "out", breaking=breaking, tmp_path=tmp_path)
    assert status == 1
    assert "Traceback" not in err
    assert "and cannot be imported: ImportError: libopenblas.so: cannot open shared object file" in out
    assert "opencv-python " in out
    assert "cannot be imported: its process ended with status 134" in out
    assert "No module named 'ultralytics'" in out
    assert "could not be examined: ImportError: half an installation" in out
    assert out.rstrip().endswith("faults")


def test_an_unknown_spec_is_told():
    with pytest.raises(SpecError, match="no pipeline, sweep or cache spec of this name"):
        examine("demoo")


def test_a_look_that_fails_is_a_finding():
    def look():
        raise OSError("no\nway")

    assert guarded("disk", look) == [
        Finding(
            "disk",
            "fault",
            "could not be examined: OSError: no way",
            "Repair that and the packages above, then run the doctor again",
        )
    ]


def test_findings_of_an_area_stand_together():
    a, b, c = (Finding(area, "ok", "fine") for area in ("disk", "memory", "disk"))
    assert list(areas([a, b, c])) == [("disk", [a, c]), ("memory", [b])]
