"""What is said of a package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from emofuse.doctor.findings import Finding
from emofuse.doctor.needs import find_spec
from emofuse.doctor.packages import PACKAGES, Package, classify_package, installed_version, package_findings
from emofuse.doctor.probe import ProbeReply

ROOT = Path(__file__).parents[2]
NEEDED = Package("net", "net", "1.5", "2.3.1")
OPTIONAL = Package("fastnet", "fastnet", "1.0", "1.4", extra="fast")
YOLO = Package("yolo", "yolo", "1.0", "1.4", kinds=("objects",))
WORKS = ProbeReply("2.0")


def finding(*args, **kwargs):
    found = classify_package(*args, **kwargs)
    assert found.area == "packages"
    return found.state, found.what, found.advice


@pytest.mark.parametrize("version", ["1.5", "1.10", "2.3.0", "2.3.9", "2.3.1+cpu", "2.3rc1"])
def test_versions_between_the_least_and_the_newest_tested_are_fine(version):
    assert finding(NEEDED, version, WORKS, None) == ("ok", f"net {version}", "")


@pytest.mark.parametrize("version", ["1.4.9", "0.9", "1"])
def test_an_older_version_is_a_fault(version):
    what = f"net {version}: too old, emofuse needs 1.5"
    assert finding(NEEDED, version, WORKS, None) == ("fault", what, "pip install 'net>=1.5'")


@pytest.mark.parametrize("version", ["2.4", "3.0.1", "2.10"])
def test_a_newer_version_is_a_note(version):
    what = f"net {version}: newer than tested (2.3.1)"
    assert finding(NEEDED, version, WORKS, None) == ("note", what, "If something fails: pip install 'net==2.3.1'")


def test_a_missing_package_says_how_to_get_it():
    gone = ProbeReply(None, "ModuleNotFoundError: No module named 'net'")
    assert finding(NEEDED, None, gone, None) == ("fault", "net: not installed", "pip install 'net>=1.5'")
    expected = ("note", "fastnet: not installed (optional: emofuse[fast])", "pip install 'emofuse[fast]'")
    assert finding(OPTIONAL, None, gone, None) == expected


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4", "pip install 'pyarrow<22'"),
        ("OSError: libGLESv2.so.2: cannot open shared object file", "apt-get install libegl1 libgles2"),
        ("RuntimeError: operator torchvision::nms does not exist", "Install both of one release: pip install "),
        ("ImportError: numpy.core.multiarray failed to import", "pip install 'numpy<2', or a newer release"),
        ("ImportError: something else", "pip install --force-reinstall 'net'"),
    ],
)
def test_a_broken_package_says_why_and_what_helps(problem, advice):
    state, what, told = finding(NEEDED, "2.0", ProbeReply(None, problem), None)
    assert (state, what) == ("fault", f"net 2.0 is installed and cannot be imported: {problem}")
    assert told.startswith(advice)


def test_a_package_that_only_other_streams_need_is_no_fault():
    broken = ProbeReply(None, "ImportError: no")
    assert finding(YOLO, "1.1", broken, ["lbp"])[:2] == (
        "note",
        "yolo 1.1 is installed and cannot be imported (not needed): ImportError: no",
    )
    assert finding(YOLO, "1.1", broken, ["lbp", "objects"])[0] == "fault"
    assert finding(YOLO, "1.1", broken, None)[0] == "fault"


def test_a_package_of_an_extra_is_needed_where_a_kind_needs_it():
    photo = Package("photo", "photo", "1.0", "1.4", extra="demo", kinds=("demo",))
    gone = ProbeReply(None, "ModuleNotFoundError: No module named 'photo'")
    install = "pip install 'emofuse[demo]'"
    assert finding(photo, None, gone, ["lbp", "demo"]) == ("fault", "photo: not installed", install)
    for kinds in (None, ["lbp", "folder"]):
        expected = ("note", "photo: not installed (optional: emofuse[demo])", install)
        assert finding(photo, None, gone, kinds) == expected


def test_pyav_is_needed_by_the_demo_of_clips():
    av = next(package for package in PACKAGES if package.module == "av")
    gone = ProbeReply(None, "ModuleNotFoundError: No module named 'av'")
    needed = find_spec("clips_demo", None).kinds
    assert finding(av, None, gone, needed) == ("fault", "av: not installed", "pip install 'emofuse[video]'")


def test_a_package_without_a_distribution_has_the_version_that_it_says():
    assert finding(NEEDED, None, ProbeReply("2.1"), None) == ("ok", "net 2.1", "")
    assert finding(NEEDED, None, ProbeReply(None), None) == ("note", "net: works, its version is unknown", "")


def test_opencv_counts_under_each_of_its_names():
    opencv = next(package for package in PACKAGES if package.module == "cv2")
    assert installed_version(opencv)
    assert installed_version(Package("no-such-thing", "cv2", "4.8", "5", also=(opencv.name, *opencv.also)))
    assert installed_version(Package("no-such-thing", "no", "1", "2")) is None


def test_what_is_fine_stands_in_one_line_before_the_rest():
    answers = {package.probe: ProbeReply("1") for package in PACKAGES}
    answers["import ultralytics"] = ProbeReply(None, "ImportError: no")
    first, *rest = package_findings(answers, None)
    assert isinstance(first, Finding)
    assert "numpy " in first.what
    assert "ultralytics" not in first.what
    assert "ultralytics" in " ".join(finding.what for finding in rest if finding.state == "fault")


def requirements() -> dict[tuple[str, str], str]:
    """(Extra or "", distribution) -> least version, of pyproject.toml and all that a user may install with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"]} | project["optional-dependencies"]
    return {
        (extra, name): least
        for extra in ("", *(name for name in project["optional-dependencies"] if name != "test"))
        for name, least in (
            re.sub(r"\[.*?\]", "", line).split(">=") for line in extras[extra] if not line.startswith("emofuse[")
        )
    }


def test_the_table_names_every_dependency_with_its_extra_and_its_least_version():
    assert {(package.extra, package.name): package.least for package in PACKAGES} == requirements()


def test_the_extra_of_the_tests_brings_all_that_the_demo_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = "audio,demo,docs,duplicates,egemaps,mlflow,onnx,open_clip,parquet,s3,sklearn,speech,tensorboard,timm,umap"
    assert f"emofuse[{extras},video,wandb]" in project["optional-dependencies"]["test"]
    assert "--editable '.[demo,fast,test]'" in (ROOT / "Makefile").read_text()


def test_the_pinned_versions_are_among_the_tested():
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    for package in PACKAGES:
        assert classify_package(package, pins[package.name], ProbeReply("1"), None).state == "ok", package.name
