"""The registry of pretrained weights: their names, sources, hashes and licences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType

from emofuse.errors import WeightsError, did_you_mean
from emofuse.specs import RegistryWeights
from emofuse.weights.torchvision_files import TORCHVISION_FILES

_TORCHVISION_URL = "https://download.pytorch.org/models/"
_ZOO_COMMIT = "47534e27c9851bb1128ccc0102f1145e27f23f98"
_ULTRALYTICS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One published file of weights.

    Attributes:
        name: the name in `emofuse weights fetch` and in specs.
        model: the architecture: a torchvision model, `yolov5n`, `yolov5s`, or a face detector.
        licence: the licence that its publisher states.
        source: the publisher.
        url: the address to download from; None for a file that can only be imported.
        sha256: all 64 hex digits, or the first eight or ten where no more are published; None where none are.
        size_mib: the rounded size in MiB, for display; None if it is not published.
        preset: the member of torchvision's weights enum of `model` whose resize, crop and normalisation belong to these
            weights; None for other models.
        command: the command that downloads it; `emofuse weights fetch NAME` unless given.
        token: the secret that its server asks for; None for most files.
    """

    name: str
    model: str
    licence: str
    source: str
    url: str | None = None
    sha256: str | None = None
    size_mib: float | None = None
    preset: str | None = None
    command: str = ""
    token: str | None = field(default=None, repr=False)

    @property
    def fetch_command(self) -> str:
        """The command that downloads the file."""
        return self.command or f"emofuse weights fetch {self.name}"

    @property
    def filename(self) -> str:
        """The name of the file in the weights folder: the entry's name with the suffix of its URL."""
        suffix = ".pth" if self.url is None or self.url.endswith(".pth.tar") else PurePosixPath(self.url).suffix
        return f"{self.name}{suffix}"

    def matches(self, sha256: str) -> bool:
        """Return whether a file with this SHA-256 (64 hex digits) is this entry's; False if the entry has no hash."""
        return self.sha256 is not None and sha256.startswith(self.sha256)


def _torchvision_entries() -> list[WeightsEntry]:
    """Return the entries of torchvision, such as `resnet50-v1`: model, dash, member of the enum in lower case."""
    entries = []
    for line in TORCHVISION_FILES.split("\n")[1:-1]:
        model, member, filename, size_mib = line.split()
        digits = re.search(r"-([0-9a-f]{8,})\.pth$", filename)
        swag = member.startswith("SWAG")
        entries.append(
            WeightsEntry(
                name=f"{model}-{member.lower().replace('_', '-')}",
                model=model,
                licence="CC-BY-NC-4.0" if swag else "BSD-3-Clause",
                source="Meta SWAG (torchvision), ImageNet-1k" if swag else "torchvision, ImageNet-1k",
                url=_TORCHVISION_URL + filename,
                sha256=digits.group(1) if digits else None,
                size_mib=float(size_mib),
                preset=f"IMAGENET1K_{member}",
            )
        )
    return entries


_OTHER_ENTRIES = (
    WeightsEntry(
        name="places365",
        model="resnet50",
        licence="CC-BY",
        source="MIT Places365-CNNs (Zhou et al., TPAMI 2018)",
        url="http://places2.csail.mit.edu/models_places365/resnet50_places365.pth.tar",
        sha256="46529c86902bd0cfb0ea562a30b2850c28d2620d96282b3db9c318e1d774f6c5",
        preset="IMAGENET1K_V1",  # resize 256, crop 224, ImageNet mean and deviation, as in their validation code
    ),
    *(
        WeightsEntry(
            name=f"{model}u",
            model=model,
            licence="AGPL-3.0",
            source="Ultralytics, COCO",
            url=f"{_ULTRALYTICS_URL}{model}u.pt",
        )
        for model in ("yolov5n", "yolov5s")
    ),
    WeightsEntry(
        name="face_landmarker",
        model="face_landmarker",
        licence="Apache-2.0",
        source="Google MediaPipe, float16/1",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size_mib=3.6,
    ),
    WeightsEntry(
        name="yunet",
        model="yunet",
        licence="MIT",
        source="OpenCV Zoo (Shiqi Yu), May 2026, trained on WIDER FACE",
        url=f"https://github.com/opencv/opencv_zoo/raw/{_ZOO_COMMIT}/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
        sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        size_mib=0.2,
    ),
    WeightsEntry(
        name="retinaface-resnet50",
        model="retinaface",
        licence="MIT",
        source="biubug6/Pytorch_Retinaface (facexlib's copy), trained on WIDER FACE",
        url="https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        size_mib=104.4,
    ),
    WeightsEntry(
        name="retinaface-mobilenet0.25",
        model="retinaface",
        licence="MIT",
        source="biubug6/Pytorch_Retinaface (facexlib's copy), trained on WIDER FACE",
        url="https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        size_mib=1.7,
    ),
    WeightsEntry(
        name="vit_tiny_patch16_224",
        model="timm/vit_tiny_patch16_224",
        licence="Apache-2.0",
        source="Google (timm), ImageNet-21k, then 1k",
        url="https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
        size_mib=21.9,
    ),
    *(
        WeightsEntry(
            name=name,
            model=name,
            licence=licence,
            source=source,
            url=f"https://huggingface.co/{repository}/resolve/main/{file}",
            size_mib=size_mib,
        )
        for name, repository, file, size_mib, licence, source in (
            ("whisper-tiny.en", "openai/whisper-tiny.en", "model.safetensors", 144.1, "Apache-2.0", "OpenAI Whisper"),
            ("wav2vec2-base", "facebook/wav2vec2-base", "pytorch_model.bin", 363.0, "Apache-2.0", "Meta"),
            ("hubert-base-ls960", "facebook/hubert-base-ls960", "pytorch_model.bin", 360.2, "Apache-2.0", "Meta"),
            ("wavlm-base-plus", "microsoft/wavlm-base-plus", "pytorch_model.bin", 360.2, "CC-BY-SA-3.0", "Microsoft"),
        )
    ),
    WeightsEntry(
        name="squeezenet1_1-onnx",
        model="squeezenet1_1",
        licence="Apache-2.0",
        source="ONNX model zoo, ImageNet-1k, as a state dict",
        sha256="f19c622d144f9a441c2f15348b5d80ec45b2381af4438d0c3fad6bcedad1dc63",
        size_mib=4.7,
        preset="IMAGENET1K_V1",
    ),
    WeightsEntry(
        name="mobilenet_v2-onnx",
        model="mobilenet_v2",
        licence="Apache-2.0",
        source="ONNX model zoo, ImageNet-1k, as a state dict (its classifier is zero: pooled features only)",
        sha256="4072e68ab225cb2f2ed4c6a4cc75f4a9b4cf79f49bb3d0d47bcaf74f8adac428",
        size_mib=13.5,
        preset="IMAGENET1K_V1",
    ),
)

REGISTRY: Mapping[str, WeightsEntry] = MappingProxyType(
    {entry.name: entry for entry in (*_torchvision_entries(), *_OTHER_ENTRIES)}
)


def default_weights(model: str) -> RegistryWeights:
    """Return the weights of a model for a spec that names none: torchvision's V1, or `yolov5nu` for `yolov5n`.

    Raises:
        WeightsError: the registry has no default weights for the model.
    """
    candidates = {f"{model}-v1", f"{model}u", model.rpartition("/")[2]}
    for name, entry in REGISTRY.items():
        if entry.model == model and name in candidates:
            return RegistryWeights(name=name)
    hint = did_you_mean(model, {entry.model for entry in REGISTRY.values()}) or "."
    offered = [entry.name for entry in REGISTRY.values() if entry.model == model] or ["..."]
    raise WeightsError(
        f"model {model!r} has no default weights in the registry{hint} Name some in the spec: weights: "
        f"{{kind: registry, name: {offered[0]}}}, {{kind: file, path: ...}}, {{kind: hub, repo: ..., revision: ..., "
        "sha256: ...} or {kind: random, seed: 0}"
    )


def find_entry(name: str) -> WeightsEntry:
    """Return the registry entry of a name.

    Raises:
        WeightsError: there is no such entry.
    """
    if name not in REGISTRY:
        hint = did_you_mean(name, REGISTRY) or "."
        raise WeightsError(f"no weights named {name!r} in the registry{hint} See: emofuse weights list")
    return REGISTRY[name]
