"""The findings on packages: whether they are there and work, and whether emofuse was tested with their versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from emofuse.doctor.findings import Finding, State
from emofuse.doctor.probe import ProbeReply

AREA = "packages"


@dataclass(frozen=True)
class Package:
    """A package that emofuse uses.

    Attributes:
        name: the name of its distribution, as pip knows it.
        module: the module that is imported.
        least: the least version that emofuse needs.
        newest: the newest version that the tests have passed with.
        extra: the extra of emofuse that installs it; "" for a package that is always installed.
        kinds: the kinds of streams and datasets that need it; () if no kind needs it in particular.
        also: other distributions of the same module.
    """

    name: str
    module: str
    least: str
    newest: str
    extra: str = ""
    kinds: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def probe(self) -> str:
        """The probe that imports it, for `run_probes`."""
        return f"import {self.module}"

    def is_needed(self, kinds: Sequence[str] | None) -> bool:
        """Return whether these kinds need the package; None asks for emofuse as a whole, without its extras."""
        if kinds is not None and self.kinds:
            return bool(set(kinds) & set(self.kinds))
        return not self.extra


FACE = "face"
"""Stands among the kinds of a job for all streams that need a face."""
CLIPS = ("clips", "clips_demo", "cremad", "emodb", "ravdess")
"""The kinds of datasets whose samples are clips and sounds."""
PACKAGES = (
    Package("numpy", "numpy", "1.26", "2.4.6"),
    Package("torch", "torch", "2.6", "2.15.0"),
    Package("torchvision", "torchvision", "0.21", "0.29.2"),
    Package("mediapipe", "mediapipe", "0.10.14", "1.2.2", kinds=(FACE,)),
    Package("ultralytics", "ultralytics", "8.4.70", "8.4.190", kinds=("objects",)),
    Package("opencv-python", "cv2", "4.8", "5.0.0.93", also=("opencv-contrib-python", "opencv-python-headless")),
    Package("pillow", "PIL", "10.3", "13.0.0"),
    Package("zarr", "zarr", "3.1.5", "3.1.6"),
    Package("cloudpickle", "cloudpickle", "3", "3.1.2"),
    Package("dask", "dask", "2024.8", "2026.8.0"),
    Package("distributed", "distributed", "2024.8", "2026.8.0"),
    Package("polars", "polars", "1.30", "2.1.0"),
    Package("pydantic", "pydantic", "2.7", "2.14.3"),
    Package("pyyaml", "yaml", "6.0", "6.0.3"),
    Package("safetensors", "safetensors", "0.4.3", "0.8.0"),
    Package("google-crc32c", "google_crc32c", "1.5", "1.9.0"),
    Package("h5py", "h5py", "3.10", "3.16.0"),
    Package("matplotlib", "matplotlib", "3.8", "3.11.2"),
    Package("jinja2", "jinja2", "3.1", "3.1.6"),
    Package("plotly", "plotly", "6", "7.1.0"),
    Package("optuna", "optuna", "3.6", "5.0.0"),
    Package("psutil", "psutil", "5.9", "7.2.2"),
    Package("rich", "rich", "13.7", "15.0.0"),
    Package("scipy", "scipy", "1.11", "1.17.1"),
    Package("typer", "typer", "0.12", "0.29.2"),
    Package("scikit-image", "skimage", "0.22", "0.26.0", extra="demo", kinds=("demo",)),
    Package("imagehash", "imagehash", "4.3", "4.3.2", extra="duplicates"),
    Package("awscrt", "awscrt", "0.20", "0.38.1", extra="fast"),
    Package("openvino", "openvino", "2025.4", "2026.4.1", extra="fast"),
    Package("zarrs", "zarrs", "0.1.5", "0.2.3", extra="fast"),
    Package("s3fs", "s3fs", "2024.6", "2026.9.0", extra="s3"),
    Package("av", "av", "18", "18.1.0", extra="video", kinds=CLIPS),
    Package("timm", "timm", "1.0.9", "1.0.31", extra="timm", kinds=("timm",)),
    Package("open_clip_torch", "open_clip", "2.26", "3.3.0", extra="open_clip", kinds=("open_clip",)),
    Package("transformers", "transformers", "4.44", "5.24.0", extra="speech", kinds=("speech",)),
    Package("opensmile", "opensmile", "2.5", "2.6.0", extra="egemaps", kinds=("egemaps",)),
    Package("soxr", "soxr", "0.5", "1.1.0", extra="audio"),
    Package("scikit-learn", "sklearn", "1.6", "1.9.1", extra="sklearn"),
    Package("pyarrow", "pyarrow", "15", "21.0.0", extra="parquet"),
    Package("onnx", "onnx", "1.17", "1.17.0", extra="onnx"),
    Package("onnxruntime", "onnxruntime", "1.20", "1.32.0", extra="onnx"),
    Package("mlflow-skinny", "mlflow", "3", "3.17.2", extra="mlflow", also=("mlflow",)),
    Package("wandb", "wandb", "0.19", "0.28.0", extra="wandb"),
    Package("tensorboard", "tensorboard", "2.16", "2.20.0", extra="tensorboard"),
    Package("umap-learn", "umap", "0.5.6", "0.5.12", extra="umap"),
    Package("mkdocstrings-python", "mkdocstrings_handlers.python", "2.0", "2.0.11", extra="docs"),
    Package("zensical", "zensical", "0.0.73", "0.0.73", extra="docs"),
)

# A part of the message of a broken import -> what repairs it.
_REMEDIES = {
    "libGL.so": "apt-get install libgl1",
    "libEGL": "apt-get install libegl1 libgles2",
    "libGLES": "apt-get install libegl1 libgles2",
    "torchvision::nms": "Install both of one release: pip install 'torch==2.14.1' 'torchvision==0.29.1'",
    "runtime_version": "pip install 'onnx==1.17.*', the last one for the protobuf of MediaPipe 0.10.21",
    "pyarrow requires NumPy 2": "pip install 'pyarrow<22', the last one for NumPy 1.26",
    "compiled using NumPy 1": "pip install 'numpy<2', or a newer release of this package",
    "numpy.core.multiarray failed": "pip install 'numpy<2', or a newer release of this package",
}


def installed_version(package: Package) -> str | None:
    """Return the version of the distribution that carries a package, or None if pip knows none."""
    for name in (package.name, *package.also):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def classify_package(
    package: Package, installed: str | None, reply: ProbeReply, kinds: Sequence[str] | None
) -> Finding:
    """Return the finding on one package.

    Args:
        package: the package.
        installed: its version, or None if it is not installed.
        reply: the reply of the probe that imports it.
        kinds: the kinds of streams and datasets of the spec; None without a spec.
    """
    is_needed = package.is_needed(kinds)
    worst: State = "fault" if is_needed else "note"
    version = installed or reply.value
    install = (
        f"pip install 'emofuse[{package.extra}]'" if package.extra else f"pip install '{package.name}>={package.least}'"
    )
    unneeded = "" if is_needed else " (not needed)" if not package.extra else f" (optional: emofuse[{package.extra}])"
    if reply.problem and installed is None:
        return Finding(AREA, worst, f"{package.name}: not installed{unneeded}", install)
    if reply.problem:
        broken = f"{package.name} {version} is installed and cannot be imported{unneeded}: {reply.problem}"
        return Finding(AREA, worst, broken, _remedy(reply.problem) or f"pip install --force-reinstall '{package.name}'")
    if version is None:
        return Finding(AREA, "note", f"{package.name}: works, its version is unknown")
    if _numbers(version) < _numbers(package.least):
        return Finding(
            AREA, worst, f"{package.name} {version}: too old, emofuse needs {package.least}{unneeded}", install
        )
    if _numbers(version)[:2] > _numbers(package.newest)[:2]:
        newer = f"{package.name} {version}: newer than tested ({package.newest})"
        return Finding(AREA, "note", newer, f"If something fails: pip install '{package.name}=={package.newest}'")
    return Finding(AREA, "ok", f"{package.name} {version}")


def package_findings(replies: Mapping[str, ProbeReply], kinds: Sequence[str] | None) -> list[Finding]:
    """Return the findings on all packages: one line for those that are fine, then the others."""
    findings = [
        classify_package(package, installed_version(package), replies[package.probe], kinds) for package in PACKAGES
    ]
    fine = ", ".join(finding.what for finding in findings if finding.state == "ok")
    others = [finding for finding in findings if finding.state != "ok"]
    return [*([Finding(AREA, "ok", fine)] if fine else []), *others]


def _remedy(problem: str) -> str:
    return next((remedy for part, remedy in _REMEDIES.items() if part in problem), "")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version as numbers: (2, 15, 0) of 2.15.0+cpu or 2.15.0rc1."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[+a-z]", version, maxsplit=1)[0]))
